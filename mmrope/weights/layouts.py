"""Conversion of weights between the layouts of other projects and mmrope's; pure functions on dicts of tensors.

The authors' ViT keeps the frequencies of all blocks in one tensor ``freqs``, ``(2, depth, heads * head_dim // 2)``,
and timm in ``rope.freqs``, ``(2, depth, heads, head_dim // 2)``. mmrope has a tensor ``(2, heads, head_dim // 2)`` in
each block. All three rotate the same channel pairs, so nothing is reordered. Other names of a ViT agree.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..models import swin, vit
from ..text import few
from .report import WeightsError

FAMILIES = {'RoPEViT': vit, 'RoPESwin': swin}  # each with its ARCHS and THETAS
STACKED_FREQS = ('freqs', 'rope.freqs')
BLOCK_FREQS = re.compile(r'blocks\.(\d+)\.attn\.rope\.freqs')
BUFFERS = re.compile(r'(?:.*\.)?(?:freqs_t_[xy]|rope_t_[xy]|attn_mask|relative_position_index)')
# A backbone's first projection, which reveals the prefix of its names.
ANCHOR = re.compile(r'(.*?)(?:layers\.\d+\.)?blocks\.0\.attn\.qkv\.weight')
BODY = re.compile(r'(patch_embed|blocks|layers)\.')
HEAD_DIM = 64  # in every published ViT


@dataclass
class Converted:
    """Weights under mmrope's names.

    Attributes:
        family: ``'RoPEViT'`` or ``'RoPESwin'``.
        state: the weights.
        renamed: new names, and the old ones.
        dropped: names left out, and the reason.
        assumed: assumptions about facts that the weights do not state.
        pos_grid: grid ``(H, W)`` that ``pos_embed`` was learned on; ``None`` if unknown.
        num_heads: heads per stage (one stage in a ViT); ``None`` if unknown.
        taken: which of several sets of weights these are.
    """

    family: str
    state: dict[str, Tensor] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    assumed: list[str] = field(default_factory=list)
    pos_grid: tuple[int, int] | None = None
    num_heads: tuple[int, ...] | None = None
    taken: str = ''

    def add(self, new: str, old: str, value: Tensor) -> None:
        """Add a tensor under its new name."""
        self.state[new] = value
        if new != old:
            self.renamed[new] = old


def family_of(state: Mapping[str, Tensor]) -> str:
    """Return the class for some weights by their names: ``'RoPEViT'`` or ``'RoPESwin'``.

    Raises:
        WeightsError: if it is neither.
    """
    if 'blocks.0.attn.qkv.weight' in state:
        return 'RoPEViT'
    if 'layers.0.blocks.0.attn.qkv.weight' in state:
        return 'RoPESwin'
    known = ' or '.join(f'prefix={prefix.removesuffix(".")!r}' for prefix in prefixes_of(state))
    advice = f': set {known}, where such weights are' if known else ''
    raise WeightsError(
        f'these are not weights of a ViT or Swin that mmrope knows{advice}; their keys: {few(sorted(state))}'
    )


def prefixes_of(state: Mapping[str, Tensor]) -> list[str]:
    """List the prefixes under which ``state`` holds a ViT or Swin; ``''`` for no prefix."""
    return sorted({found[1] for key in state if (found := ANCHOR.fullmatch(key))})


def to_mmrope(state: Mapping[str, Tensor], num_heads: int | None = None) -> Converted:
    """Convert weights to mmrope's layout; their names reveal the layout they are in.

    Args:
        state: weights of RoPE-ViT's authors (ViT or Swin), of timm (ViT), of a Swin without RoPE (Microsoft's or
            timm's), or of mmrope.
        num_heads: heads of the ViT to load. The shape of the authors' ``freqs`` does not show its heads: a published
            size has the published number, another size ``num_heads``, or heads of 64 channels if that is ``None``.

    Returns:
        The weights, and a record of the conversion.

    Raises:
        WeightsError: if ``state`` is none of these, or has a bias table of a window that is not square.
    """
    family = family_of(state)
    converted = Converted(family)
    _check_windows(state)
    kept = {key: value for key, value in state.items() if not BUFFERS.fullmatch(key)}
    converted.dropped.update({key: 'buffers that are computed' for key in state if key not in kept})
    if family == 'RoPESwin':
        renames = _swin_renames(kept)
        for key, value in kept.items():
            converted.add(_rename(key, renames), key, value)
        return converted
    for key, value in kept.items():
        if key in STACKED_FREQS:
            for i, freqs in enumerate(_freqs_of_blocks(value, state, num_heads, converted)):
                converted.add(f'blocks.{i}.attn.rope.freqs', key, freqs)
        else:
            converted.add(key, key, value)
    return converted


def to_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a ViT from mmrope's layout to timm's.

    Raises:
        WeightsError: if it is a Swin (timm has none with RoPE), or the frequencies of a block are missing.
    """
    if family_of(state) != 'RoPEViT':
        raise WeightsError('timm has no Swin with RoPE, so these weights cannot be converted to its layout')
    freqs = {int(found[1]): state[key] for key in state if (found := BLOCK_FREQS.fullmatch(key))}
    converted = {key: value for key, value in state.items() if not BLOCK_FREQS.fullmatch(key)}
    if freqs:
        depth = depth_of(state, 'blocks')
        if len(freqs) < depth:
            raise WeightsError(f'frequencies are missing in {depth - len(freqs)} of {depth} blocks')
        converted['rope.freqs'] = torch.stack([freqs[i] for i in range(depth)], dim=1)
    return converted


def depth_of(state: Mapping[str, Tensor], blocks: str) -> int:
    """Count the blocks below the name ``blocks``."""
    numbers = re.compile(rf'{re.escape(blocks)}\.(\d+)\.')
    return 1 + max((int(found[1]) for key in state if (found := numbers.match(key))), default=-1)


def published_heads(family: str, embed_dims: int) -> tuple[int, ...] | None:
    """Return the heads per stage of the published model of a width; ``None`` if there is none."""
    heads = {arch['embed_dims']: arch['num_heads'] for arch in FAMILIES[family].ARCHS.values()}.get(embed_dims)
    if family == 'RoPESwin' or heads is None:
        return heads
    return (heads,) if heads * HEAD_DIM == embed_dims else None


def _freqs_of_blocks(
    stacked: Tensor, state: Mapping[str, Tensor], num_heads: int | None, converted: Converted
) -> list[Tensor]:
    if stacked.ndim == 3:  # (2, depth, heads * head_dim // 2)
        dims = state['blocks.0.attn.qkv.weight'].shape[1]
        (heads,) = published_heads('RoPEViT', dims) or (None,)
        if heads is None:
            heads = num_heads or max(dims // HEAD_DIM, 1)
            converted.assumed.append(f'num_heads={heads} for freqs, whose shape does not show it')
        if stacked.shape[2] % heads:
            raise WeightsError(f'freqs of shape {tuple(stacked.shape)} cannot be split into {heads} heads')
        stacked = stacked.unflatten(2, (heads, -1))
    return list(stacked.unbind(1))


def _check_windows(state: Mapping[str, Tensor]) -> None:
    """Check that bias tables are of square windows, by the number of tokens in the index beside them.

    Raises:
        WeightsError: if one is not: a table of 5 x 13 tokens, for example, has as many rows as one of 8 x 8.
    """
    for key, index in state.items():
        table = state.get(key.replace('relative_position_index', 'relative_position_bias_table'))
        if key.endswith('relative_position_index') and table is not None:
            side = (math.isqrt(len(table)) + 1) // 2
            if (2 * side - 1) ** 2 != len(table) or len(index) != side**2:
                raise WeightsError(
                    f'{key} is of a window of {len(index)} tokens that is not square; mmrope has square windows only'
                )


def _swin_renames(state: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """List patterns and replacements that turn the names in ``state`` into mmrope's."""
    last = depth_of(state, 'layers') - 1
    renames = [
        (r'\.attn\.rope_freqs$', '.attn.rope.freqs'),
        (r'\.attn\.relative_position_bias_table$', '.attn.rpb.relative_position_bias_table'),
        (r'^norm\.', f'norm{last}.'),
    ]
    if f'layers.{last}.downsample.norm.weight' in state:  # timm's step down begins a stage instead of ending one
        renames += [(rf'^layers\.{i}\.downsample\.', f'layers.{i - 1}.downsample.') for i in range(1, last + 1)]
    return renames


def _rename(key: str, renames: list[tuple[str, str]]) -> str:
    for pattern, replacement in renames:
        new = re.sub(pattern, replacement, key)
        if new != key:
            return new
    return key
