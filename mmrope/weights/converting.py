"""Converting a checkpoint of any known layout to a file in mmrope's or timm's layout."""

import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..checkpoints.files import write_whole
from ..checkpoints.loading import load_checkpoint, load_trusted_checkpoint
from ..text import few
from .advice import FREQS, axial_theta
from .layouts import Converted, to_timm
from .report import reasons, renames
from .unwrapping import converted_from, unwrap

SUFFIXES = ('.pth', '.safetensors')


def convert(source: str, layout: str = 'mmrope', prefix: str | None = None, trusted: bool = False) -> Converted:
    """Load weights and convert them; keep the classification head, a cls token and the final norm.

    Args:
        source: a path, a URL, ``hf-hub:OWNER/NAME[@REVISION][/FILE]`` or ``timm:NAME``.
        layout: layout of the result, ``'mmrope'`` or ``'timm'``.
        prefix: as in ``load_pretrained``.
        trusted: whether the file may run code while it loads.

    Returns:
        The converted weights.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: if the weights cannot be fetched, loaded or converted.
    """
    load = load_trusted_checkpoint if trusted else load_checkpoint
    converted = converted_from(unwrap(load(source, 'cpu'), prefix))
    _drop_constants(converted)
    noted = {key: getattr(converted, key) for key in ('pos_grid', 'num_heads') if getattr(converted, key) is not None}
    noted |= {'positions': converted.rules} if converted.rules else {}
    noted |= {'family': converted.family} if converted.family not in ('RoPEViT', 'RoPESwin') else {}
    if layout == 'timm':
        converted.dropped |= _frequencies_of_family(converted)
        heads = converted.num_heads or (None,)
        converted.state = to_timm(converted.state, converted.family, heads[0])
        old = converted.renamed.get('blocks.0.attn.rope.freqs', 'blocks.0.attn.rope.freqs')
        converted.renamed = {'rope.freqs': old} if 'rope.freqs' in converted.state and old != 'rope.freqs' else {}
    state: Any = OrderedDict(converted.state)
    state._metadata = OrderedDict({'': noted})
    converted.state = state
    return converted


def _frequencies_of_family(converted: Converted) -> dict[str, str]:
    """List the frequencies of a family, which timm's models do not load."""
    keys = [key for key in converted.state if FREQS.fullmatch(key)] if converted.family != 'RoPEViT' else []
    return dict.fromkeys(keys, 'frequencies, which timm computes in float32')


def _drop_constants(converted: Converted) -> None:
    """Drop the frequencies of RoPE-Axial, which the model computes."""
    for key in [key for key in converted.state if FREQS.fullmatch(key)]:
        theta = axial_theta(converted.state[key])
        if theta is not None and converted.family != 'DINOv3ViT':
            del converted.state[key]
            converted.renamed.pop(key, None)
            converted.dropped[key] = f'axial frequencies, which are computed (rope_theta {theta:.4g})'


def describe(converted: Converted) -> str:
    """Describe a conversion in a few lines."""
    lines = [f'{converted.family}: {len(converted.state)} tensors']
    if converted.renamed:
        lines.append(f'  renamed: {few(renames(converted.renamed), 6)}')
    lines += [f'  dropped: {reason}' for reason in reasons(converted.dropped)]
    lines += [f'  taken: {converted.taken}'] if converted.taken else []
    lines += [f'  assumed: {assumption}' for assumption in converted.assumed]
    return '\n'.join(lines)


def check_suffix(path: str) -> None:
    """Check that weights can be written to a file of this name.

    Raises:
        ValueError: if ``path`` ends in neither ``.pth`` nor ``.safetensors``.
    """
    if not path.endswith(SUFFIXES):
        raise ValueError(f'path must end in {" or ".join(SUFFIXES)}, but got {path!r}')


def save(state: Mapping[str, Tensor], path: str) -> None:
    """Write weights to a ``.pth`` or ``.safetensors`` file, whole or not at all.

    Args:
        state: tensors by name.
        path: path of the file; its folder is created if missing.

    Raises:
        ValueError: if ``path`` ends in neither.
        OSError: if the file cannot be written.
    """
    check_suffix(path)
    tensors: Any = OrderedDict(
        (key, value.clone(memory_format=torch.contiguous_format)) for key, value in state.items()
    )
    tensors._metadata = getattr(state, '_metadata', OrderedDict())
    with write_whole(path) as partial:
        if path.endswith('.safetensors'):
            noted = json.dumps(tensors._metadata.get('', {}))
            save_file(tensors, partial, metadata={'format': 'pt', 'mmrope': noted})
        else:
            torch.save(tensors, partial)
