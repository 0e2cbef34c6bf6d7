"""Finding a backbone's weights in what a checkpoint file holds."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ..text import few
from .advice import check_grid
from .layouts import BODY, BUFFERS, Converted, prefixes_of, to_mmrope
from .report import WeightsError

# Where trainers keep the weights, the averaged ones first. MMEngine writes those under `state_dict`, and under
# `ema_state_dict` what they were averaged from.
NESTED = ('state_dict_ema', 'model_ema', 'ema', 'ema_model', 'state_dict', 'model', 'module', 'ema_state_dict')
# What compilers, FSDP, activation checkpointing and DeepSpeed put into names, anywhere.
WRAPPERS = re.compile(r'(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.')
# Of DistributedDataParallel and averaged models.
MODULE = 'module.'
BACKBONE = 'backbone.'  # within a detector, segmenter or classifier of OpenMMLab


@dataclass
class Unwrapped:
    """The tensors of a backbone under their own names.

    Attributes:
        state: the tensors.
        others: the names of those around it.
        taken: which weights of several these are; empty if there is one set.
        stated: what mmrope wrote beside the weights of its own: ``pos_grid`` and ``num_heads``.
    """

    state: dict[str, Tensor]
    others: list[str] = field(default_factory=list)
    taken: str = ''
    stated: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """The number of weights of blocks."""
        return sum(BODY.match(key) is not None and BUFFERS.fullmatch(key) is None for key in self.state)

    def below(self, prefix: str) -> 'Unwrapped':
        """Take a prefix off, and leave what does not have it."""
        state = {key.removeprefix(prefix): value for key, value in self.state.items() if key.startswith(prefix)}
        stated = {key.removeprefix(prefix): value for key, value in self.stated.items() if key.startswith(prefix)}
        others = [key for key in self.state if not key.startswith(prefix)]
        return Unwrapped(state, self.others + others, self.taken, stated)


def unwrap(checkpoint: Any, prefix: str | None = None) -> Unwrapped:
    """Find the weights of a backbone in a checkpoint: nested, averaged, or those of a part of a model.

    Of several sets of weights the first of ``NESTED`` is taken that has as many weights of a backbone as any other.

    Args:
        checkpoint: what ``load_checkpoint`` returns.
        prefix: what the backbone's names begin with, without those of wrappers; ``None`` to find out.

    Raises:
        WeightsError: if there are no weights, or none with this prefix.
    """
    sets = dict(_sets_of_weights(checkpoint))
    if not sets:
        raise WeightsError('the checkpoint holds no weights: a dict of tensors, or one under ' + ', '.join(NESTED))
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
    """Convert what ``unwrap`` found as ``to_mmrope`` does, and go on with what is known of it.

    Raises:
        WeightsError: as ``to_mmrope`` does.
    """
    converted = to_mmrope(unwrapped.state, num_heads)
    converted.dropped.update({key: 'of other parts of the model' for key in unwrapped.others})
    converted.num_heads = unwrapped.stated.get('num_heads')
    if 'pos_grid' in unwrapped.stated and 'pos_embed' in converted.state:
        converted.pos_grid = check_grid(unwrapped.stated['pos_grid'], converted.state)
    converted.taken = unwrapped.taken
    return converted


def remove_wrappers(state: dict[str, Any], model: nn.Module) -> None:
    """Take what wrappers put into names off a whole model's, where it has no such names itself; in place."""
    ours = set(model.state_dict())
    for name in [name for name in state if isinstance(name, str) and name not in ours and WRAPPERS.search(name)]:
        state[WRAPPERS.sub('', name)] = state.pop(name)
    metadata = getattr(state, '_metadata', None) or {}
    for name in [name for name in metadata if WRAPPERS.search(f'{name}.')]:
        metadata[WRAPPERS.sub('', f'{name}.').removesuffix('.')] = metadata.pop(name)


def _sets_of_weights(checkpoint: Any, path: str = '') -> Iterable[tuple[str, Unwrapped]]:
    """Find every dict of tensors below ``NESTED``, and the checkpoint itself if it is one, with where it was found."""
    if not isinstance(checkpoint, Mapping):
        return
    for key in NESTED:
        yield from _sets_of_weights(checkpoint.get(key), f'{path}.{key}' if path else key)
    tensors = [key for key, value in checkpoint.items() if isinstance(key, str) and isinstance(value, Tensor)]
    if tensors:
        state = {WRAPPERS.sub('', key): checkpoint[key] for key in tensors}
        yield path, Unwrapped(state, stated=_stated(checkpoint))


def _stated(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read what mmrope has noted in PyTorch's metadata of a state dict, under names like those of weights."""
    noted = {}
    for module, metadata in (getattr(state, '_metadata', None) or {}).items():
        for key in {'pos_grid', 'num_heads'} & set(metadata):
            noted[WRAPPERS.sub('', f'{module}.{key}'.removeprefix('.'))] = metadata[key]
    return noted


def _backbone(weights: Unwrapped, prefix: str | None) -> Unwrapped:
    """Take off what the names of a backbone begin with; no tensors are left if none begins with ``prefix``."""
    weights = _without_modules(weights)
    if prefix is None:
        within = _without_modules(weights.below(BACKBONE))
        return within if '' in prefixes_of(within.state) else weights
    return _without_modules(weights.below(re.sub(r'^(module\.)+', '', WRAPPERS.sub('', _with_dot(prefix)))))


def _without_modules(weights: Unwrapped) -> Unwrapped:
    while any(key.startswith(MODULE) for key in weights.state):
        weights = weights.below(MODULE)
    return weights


def _with_dot(prefix: str) -> str:
    return prefix if not prefix or prefix.endswith('.') else f'{prefix}.'


def _choice(path: str, sizes: Mapping[str, int]) -> str:
    """Say which weights were taken where there are others, and how many tensors those have that are not whole."""
    others = [
        other + (f' (only {size} of {sizes[path]} tensors)' if size < sizes[path] else '')
        for other, size in sizes.items()
        if size and other != path
    ]
    return f'{path or "those beside them"}, not {" or ".join(others)}' if others else ''
