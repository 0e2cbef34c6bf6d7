"""Conversion of weights between the layouts of other projects and mmrope's; pure functions on dicts of tensors.

The authors' ViT keeps the frequencies of all blocks in one tensor ``freqs``, ``(2, depth, heads * head_dim // 2)``,
and timm in ``rope.freqs``, ``(2, depth, heads, head_dim // 2)``. mmrope has a tensor ``(2, heads, head_dim // 2)`` in
each block. All three rotate the same channel pairs, so nothing is reordered. Other names of a ViT agree. The layouts of
other families are in :mod:`.family_layouts` and :mod:`.timm_layouts`.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..models import families, swin, vit
from ..text import few
from .family_layouts import (
    Blocks,
    Layout,
    drop_reason,
    family_of_names,
    heads_in,
    layout_of,
    timm_names,
)
from .report import WeightsError
from .timm_layouts import to_timm_family

FAMILIES: dict[str, Any] = {  # each with its ARCHS and THETAS
    'RoPEViT': vit,
    'RoPESwin': swin,
    **{cls.__name__: cls for cls in families.FAMILIES},
}
STACKED_FREQS = ('freqs', 'rope.freqs')
BLOCK_FREQS = re.compile(r'blocks\.(\d+)\.attn\.rope\.freqs')
BUFFERS = re.compile(r'(?:.*\.)?(?:freqs_t_[xy]|rope_t_[xy]|attn_mask|relative_position_index)')
# A backbone's first projection, which reveals the prefix of its names.
ANCHOR = re.compile(r'(.*?)(?:layers\.\d+\.)?blocks\.0\.attn\.(?:qkv|q_proj|wq)\.weight')
# Where others call it otherwise: a name that is unusual together with another.
ANCHORS = (
    ('conv1.weight', 'transformer.resblocks.0.attn.in_proj_weight'),
    ('embeddings.patch_embeddings.weight', 'embeddings.register_tokens'),
    ('embeddings.patch_embeddings.projection.weight', 'layers.0.attention.q_proj.weight'),
    ('patch_embed.patch_embeddings.weight', 'blocks.0.attention.q_proj.weight'),
)
BODY = re.compile(r'(?:model\.)?(?:patch_embed|blocks|layers?|embeddings|conv1|transformer)\.')
NO_ROPE = 'none'
HEAD_DIM = 64  # in every published ViT


@dataclass
class Converted:
    """Weights under mmrope's names.

    Attributes:
        family: the class that they are for, ``'RoPEViT'``, ``'RoPESwin'`` or another; a guess if mmrope wrote them.
        state: the weights.
        renamed: new names, and the old ones.
        dropped: names left out, and the reason.
        assumed: assumptions about facts that the weights do not state.
        pos_grid: grid ``(H, W)`` that ``pos_embed`` was learned on; ``None`` if unknown.
        num_heads: heads per stage (one stage in a ViT); ``None`` if unknown.
        taken: which of several sets of weights these are.
        rules: rules of positions that they are for; none if unknown.
    """

    family: str
    state: dict[str, Tensor] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    assumed: list[str] = field(default_factory=list)
    pos_grid: tuple[int, int] | None = None
    num_heads: tuple[int, ...] | None = None
    taken: str = ''
    rules: tuple[str, ...] = ()

    def add(self, new: str, old: str, value: Tensor) -> None:
        """Add a tensor under its new name."""
        self.state[new] = value
        if new != old:
            self.renamed[new] = old


def family_of(state: Mapping[str, Tensor]) -> str:
    """Return the class for some weights by their names; SAM 3's look like those of PE.

    Raises:
        WeightsError: if they are not those of a ViT or Swin.
    """
    if 'blocks.0.attn.qkv.weight' in state:
        return family_of_names(state)
    if 'layers.0.blocks.0.attn.qkv.weight' in state:
        return 'RoPESwin'
    known = ' or '.join(f'prefix={prefix.removesuffix(".")!r}' for prefix in prefixes_of(state))
    advice = f': set {known}, where such weights are' if known else ''
    raise WeightsError(
        f'these are not weights of a ViT or Swin that mmrope knows{advice}; their keys: {few(sorted(state))}'
    )


def prefixes_of(state: Mapping[str, Tensor]) -> list[str]:
    """List the prefixes under which ``state`` holds a ViT or Swin; ``''`` for no prefix."""
    found = {match[1] for key in state if (match := ANCHOR.fullmatch(key))}
    for first, other in ANCHORS:
        prefixes = {key.removesuffix(first) for key in state if key.endswith(first)}
        found |= {prefix for prefix in prefixes if prefix + other in state}
    return sorted(prefix for prefix in found if not prefix or prefix.endswith('.'))


def to_mmrope(state: Mapping[str, Tensor], num_heads: int | None = None) -> Converted:
    """Convert weights to mmrope's layout; their names reveal the layout they are in.

    Args:
        state: weights of RoPE-ViT's authors (ViT or Swin), of a Swin without RoPE (Microsoft's or timm's), of another
            family of ViTs with RoPE (its authors', Hugging Face transformers' or timm's), or of mmrope.
        num_heads: heads of the ViT to load. The shape of the authors' ``freqs`` does not show its heads: a published
            size has the published number, another size ``num_heads``, or heads of 64 channels if that is ``None``.

    Returns:
        The weights, and a record of the conversion.

    Raises:
        WeightsError: if ``state`` is none of these, or has a bias table of a window that is not square.
    """
    layout = layout_of(state)
    if layout is not None:
        return _from_layout(state, layout, num_heads)
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


def _from_layout(state: Mapping[str, Tensor], layout: Layout, num_heads: int | None) -> Converted:
    """Convert weights of another family."""
    converted, kept = Converted(layout.family, rules=rules_of(layout.family)), {}
    names = timm_names(state, layout)
    for key, name in names.items():
        reason = drop_reason(name)
        if reason is not None:
            converted.dropped[key] = reason
        if reason is None or name.endswith('.bias_mask'):
            kept[name] = state[key]
    if 'patch_embed.proj.weight' not in kept:
        raise WeightsError(
            f'these weights of a {layout.family} have no patch embedding; their keys: {few(sorted(state))}'
        )
    depth, dims = depth_of(kept, 'blocks'), kept['patch_embed.proj.weight'].shape[0]
    known = heads_in(kept) or _heads_of_size(layout.family, dims, depth)
    if num_heads and dims % (4 * num_heads):
        num_heads = None  # of a model of another size, which the report will say
    converted.num_heads = None if known is None else (known,)
    heads = known or num_heads or max(dims // HEAD_DIM, 1)
    if known is None and num_heads is None:
        converted.assumed.append(f'num_heads={heads}, heads of {HEAD_DIM} channels')
    old = {name: key for key, name in names.items()}
    for name, value in Blocks(kept, layout, heads).convert(depth).items():
        parts = (name, name.replace('.qkv.', '.q_proj.'), name.replace('.fc1.', '.fc1_g.'))
        source = next((old[part] for part in parts if part in old), name)
        converted.add(name, 'rope_embed.periods' if name.endswith('.rope.freqs') else source, value)
    return converted


def rules_of(family: str) -> tuple[str, ...]:
    """Return the rules of positions that weights of another project's layout are for.

    PE has two, equal at the size of pretraining; ``NO_ROPE`` stands for the layout of DINOv2.
    """
    if family == 'PEViT':
        return 'reference', 'index'
    if family == 'RoPEViT':
        return (NO_ROPE,)
    return (FAMILIES[family].DEFAULTS['positions']['rule'],)


def _heads_of_size(family: str, embed_dims: int, depth: int) -> int | None:
    """Count the heads of the published size of a family; ``None`` if there is none like it."""
    sizes = FAMILIES[family].ARCHS.values()
    heads = {size['num_heads'] for size in sizes if (size['embed_dims'], size['depth']) == (embed_dims, depth)}
    return heads.pop() if len(heads) == 1 else None


def to_timm(state: Mapping[str, Tensor], family: str | None = None, num_heads: int | None = None) -> dict[str, Tensor]:
    """Convert a ViT from mmrope's layout to timm's.

    Args:
        state: weights in mmrope's layout.
        family: the class they are for; ``None`` for what their names suggest.
        num_heads: heads of the model; ``None`` for those of a published size, or else heads of 64 channels.

    Raises:
        WeightsError: if timm has no layout for them, or a block has no frequencies.
    """
    family = family or family_of(state)
    if family == 'RoPESwin':
        raise WeightsError('timm has no Swin with RoPE, so these weights cannot be converted to its layout')
    if family != 'RoPEViT':
        dims = state['patch_embed.proj.weight'].shape[0]
        heads = num_heads or _heads_of_size(family, dims, depth_of(state, 'blocks')) or max(dims // HEAD_DIM, 1)
        return to_timm_family(state, family, heads)
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
    return (heads,) if family == 'RoPEViT' and heads * HEAD_DIM == embed_dims else None


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
