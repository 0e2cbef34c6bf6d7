"""Finding the weights of a backbone in a checkpoint."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ..text import few
from .advice import check_grid
from .layouts import BODY, BUFFERS, FAMILIES, NO_ROPE, Converted, prefixes_of, to_mmrope
from .report import WeightsError

# Where trainers keep the weights, averaged ones first. MMEngine writes the averaged weights under `state_dict`, and the
# weights that they average under `ema_state_dict`.
NESTED = (
    'state_dict_ema',
    'model_ema',
    'ema',
    'ema_model',
    'state_dict',
    'model',
    'module',
    'backbone',
    'ema_state_dict',
)
# Parts of names that compilers, FSDP, activation checkpointing and DeepSpeed insert anywhere.
WRAPPERS = re.compile(r'(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.')
MODULE = 'module.'  # of DistributedDataParallel and averaged models
# Of the image backbone in the files of PE core, EVA-02-CLIP, SAM 3 and EoMT, of detectors of Detectron2, and of
# transformers' classifiers of DINOv3.
PUBLISHED = re.compile(
    r'(?:model\.|detector\.|detector_model\.|backbone\.)*'
    r'(?:visual\.|trunk\.|vision_backbone\.|vision_encoder\.|dinov3_vit\.|net\.|network\.encoder\.)'
    r'(?:trunk\.|backbone\.)?'
)
NOTES = ('family', 'num_heads', 'positions', 'pos_grid')
BACKBONE = 'backbone.'  # within a detector, segmenter or classifier of OpenMMLab


@dataclass
class Unwrapped:
    """Tensors of a backbone under their names within the backbone.

    Attributes:
        state: the tensors.
        others: names of the tensors outside the backbone.
        taken: which of several sets of weights these are; empty if there is only one.
        stated: notes that mmrope stores beside its weights, of ``NOTES``.
    """

    state: dict[str, Tensor]
    others: list[str] = field(default_factory=list)
    taken: str = ''
    stated: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of weights of the patch embedding and the blocks."""
        return sum(BODY.match(key) is not None and BUFFERS.fullmatch(key) is None for key in self.state)

    def below(self, prefix: str) -> 'Unwrapped':
        """Keep the tensors whose name has a prefix, and take it off."""
        state = {key.removeprefix(prefix): value for key, value in self.state.items() if key.startswith(prefix)}
        stated = {key.removeprefix(prefix): value for key, value in self.stated.items() if key.startswith(prefix)}
        others = [key for key in self.state if not key.startswith(prefix)]
        return Unwrapped(state, self.others + others, self.taken, stated)


def unwrap(checkpoint: Any, prefix: str | None = None) -> Unwrapped:
    """Find the weights of a backbone in a checkpoint: nested, averaged, or part of a larger model.

    Of several sets of weights, the one with the most weights of a backbone is taken, at a tie the first of ``NESTED``.

    Args:
        checkpoint: a checkpoint, as ``load_checkpoint`` returns it.
        prefix: prefix of the backbone's names, without those of wrappers; ``None`` to detect it.

    Returns:
        The weights of the backbone.

    Raises:
        WeightsError: if there are no weights, or none with this prefix.
    """
    sets = dict(_sets_of_weights(checkpoint))
    if not sets:
        raise WeightsError(
            'the checkpoint holds no weights: it must be a dict of tensors, or have one under ' + ', '.join(NESTED)
        )
    backbones = {path: _backbone(weights, prefix) for path, weights in sets.items()}
    backbones = {path: found for path, found in backbones.items() if found.state}
    if not backbones:
        keys = [key for weights in sets.values() for key in weights.state]
        raise WeightsError(
            f'prefix={_with_dot(prefix or "")!r}: no key of the checkpoint begins with it; its keys: {few(keys)}'
        )
    sizes = {path: found.size for path, found in backbones.items()}
    path = next(path for path in sizes if sizes[path] == max(sizes.values()))
    backbones[path].taken = _choice(path, sizes)
    return backbones[path]


def converted_from(unwrapped: Unwrapped, num_heads: int | None = None) -> Converted:
    """Convert the result of ``unwrap`` as ``to_mmrope`` does, and keep what is known about it.

    Raises:
        WeightsError: as ``to_mmrope`` does.
    """
    converted = to_mmrope(unwrapped.state, num_heads)
    converted.dropped.update({key: 'of other parts of the model' for key in unwrapped.others})
    stated = unwrapped.stated
    converted.num_heads = stated.get('num_heads', converted.num_heads)
    converted.rules = tuple(stated.get('positions', converted.rules))
    counts = 'num_heads' in stated and converted.family != 'RoPESwin'  # all others note their family
    if stated.get('family') in FAMILIES:
        converted.family = stated['family']
    elif counts or converted.rules == (NO_ROPE,):
        converted.family = 'RoPEViT'
    if 'pos_grid' in stated and 'pos_embed' in converted.state:
        converted.pos_grid = check_grid(stated['pos_grid'], converted.state)
    converted.taken = unwrapped.taken
    return converted


def remove_wrappers(state: dict[str, Any], model: nn.Module) -> None:
    """Remove, in place, what wrappers inserted into the names of a model's weights, unless ``model`` has such names."""
    ours = set(model.state_dict())
    for name in [name for name in state if isinstance(name, str) and name not in ours and WRAPPERS.search(name)]:
        state[WRAPPERS.sub('', name)] = state.pop(name)
    metadata = getattr(state, '_metadata', None) or {}
    for name in [name for name in metadata if WRAPPERS.search(f'{name}.')]:
        metadata[WRAPPERS.sub('', f'{name}.').removesuffix('.')] = metadata.pop(name)


def _sets_of_weights(checkpoint: Any, path: str = '') -> Iterable[tuple[str, Unwrapped]]:
    """Yield every dict of tensors below ``NESTED``, and the checkpoint itself if it is one, with its path."""
    if not isinstance(checkpoint, Mapping):
        return
    for key in NESTED:
        yield from _sets_of_weights(checkpoint.get(key), f'{path}.{key}' if path else key)
    tensors = [key for key, value in checkpoint.items() if isinstance(key, str) and isinstance(value, Tensor)]
    if tensors:
        state = {WRAPPERS.sub('', key): checkpoint[key] for key in tensors}
        yield path, Unwrapped(state, stated=_stated(checkpoint))


def _stated(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read mmrope's notes from PyTorch's metadata of a state dict, named as weights are."""
    noted = {}
    for module, metadata in (getattr(state, '_metadata', None) or {}).items():
        for key in set(NOTES) & set(metadata):
            noted[WRAPPERS.sub('', f'{module}.{key}'.removeprefix('.'))] = metadata[key]
    return noted


def _backbone(weights: Unwrapped, prefix: str | None) -> Unwrapped:
    """Strip the prefix of a backbone's names; no tensors are left if none has it."""
    weights = _without_modules(weights)
    if prefix is None:
        within = _without_modules(weights.below(BACKBONE))
        if '' in prefixes_of(within.state):
            return within
        prefixes = prefixes_of(weights.state)
        alone = len(prefixes) == 1 and PUBLISHED.fullmatch(prefixes[0])
        return weights.below(prefixes[0]) if alone else weights
    return _without_modules(weights.below(re.sub(r'^(module\.)+', '', WRAPPERS.sub('', _with_dot(prefix)))))


def _without_modules(weights: Unwrapped) -> Unwrapped:
    while any(key.startswith(MODULE) for key in weights.state):
        weights = weights.below(MODULE)
    return weights


def _with_dot(prefix: str) -> str:
    return prefix if not prefix or prefix.endswith('.') else f'{prefix}.'


def _choice(path: str, sizes: Mapping[str, int]) -> str:
    """Say which weights were taken if there are others, and how many tensors incomplete ones have."""
    others = [
        other + (f' (only {size} of {sizes[path]} tensors)' if size < sizes[path] else '')
        for other, size in sizes.items()
        if size and other != path
    ]
    return f'{path or "the top level"}, not {" or ".join(others)}' if others else ''
