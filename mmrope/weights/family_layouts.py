"""Layouts of the families of ViTs with RoPE: their authors', Hugging Face transformers' and timm's.

Names become timm's first, and then mmrope's: one ``qkv`` with a bias, its rows of q and k in the order of channels that
mmrope rotates; one ``fc1``, gate first; the rows of ``pos_embed`` that belong to the cls token added to it.

mmrope writes ``attn.qkv.bias`` in every block. Files of others that have this name have other names too which mmrope
never writes, or rows in mmrope's order. So a file of mmrope is never taken for one of another layout.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .family_names import (
    DINOV2,
    DINOV3,
    DROPPED,
    EOMT_DINOV3,
    EVA02,
    HUGGING_FACE,
    PE,
    SAM3,
    SAPIENS2,
    Names,
)
from .report import WeightsError

LEAST_SCALE = 0.1  # mean weight of norms; below it, tensors are differences


@dataclass(frozen=True)
class Layout:
    """A layout of a family.

    Attributes:
        family: class that such weights are for; ``'RoPEViT'`` without RoPE for DINOv2's.
        names: what turns its names into timm's.
        half: whether channel ``j`` of a head turns with channel ``j + head_dim // 2``, and not with its neighbour.
        y_first: whether the first half of the pairs turns along y.
    """

    family: str
    names: Names = ()
    half: bool = False
    y_first: bool = False


TIMM = {  # by the class; also the order of channels of the authors' files
    'DINOv3ViT': Layout('DINOv3ViT', half=True, y_first=True),
    'Sapiens2ViT': Layout('Sapiens2ViT', half=True, y_first=True),
    'EVA02ViT': Layout('EVA02ViT', y_first=True),
    'SBBViT': Layout('SBBViT', y_first=True),
    'PEViT': Layout('PEViT'),
}


def layout_of(state: Mapping[str, Tensor]) -> Layout | None:
    """Recognise the layout of another project by its names; ``None`` for mmrope's own and those of RoPE-ViT's authors.

    Raises:
        WeightsError: if the tensors are no weights but differences from DINOv3's.
    """
    if {'conv1.weight', 'transformer.resblocks.0.attn.in_proj_weight'} <= set(state):
        return Layout('PEViT', PE)
    if 'embeddings.position_embeddings.weight' in state:
        return Layout('RoPEViT', HUGGING_FACE)
    if 'patch_embed.patch_embeddings.weight' in state:
        _refuse_differences(state)
        return Layout('DINOv3ViT', EOMT_DINOV3, half=True, y_first=True)
    if 'embeddings.patch_embeddings.projection.weight' in state:
        return Layout('SAM3ViT', HUGGING_FACE)
    if 'embeddings.patch_embeddings.weight' in state:
        normed = any(key.endswith('layer.0.attention.q_norm.weight') for key in state)
        return Layout('Sapiens2ViT' if normed else 'DINOv3ViT', HUGGING_FACE, half=True, y_first=True)
    if 'blocks.0.attn.wq.weight' in state:
        return Layout('Sapiens2ViT', SAPIENS2, half=True, y_first=True)
    if 'blocks.0.ls1.gamma' in state:
        if 'pos_embed' in state:
            return Layout('RoPEViT', DINOV2)
        return Layout('DINOv3ViT', DINOV3, half=True, y_first=True)
    if 'ln_pre.weight' in state and 'blocks.0.attn.qkv.weight' in state:
        return Layout('SAM3ViT', SAM3)
    if 'blocks.0.mlp.w12.weight' in state or 'blocks.0.mlp.w1.weight' in state:
        return Layout('EVA02ViT', EVA02, y_first=True)
    own = 'blocks.0.attn.qkv.bias' in state and not is_timms_pe(state)
    return None if own else TIMM.get(family_of_names(state))


def _refuse_differences(state: Mapping[str, Tensor]) -> None:
    """Check that the norms scale: weights of norms are near 1, and their differences from others near 0.

    Raises:
        WeightsError: if they do not.
    """
    norms = [state[key].float().mean() for key in state if re.search(r'(?:^|\.)norm\d?\.weight$', key)]
    if norms and torch.stack(norms).mean() < LEAST_SCALE:
        raise WeightsError(
            "these are no weights, but differences from DINOv3's, as which EoMT's authors publish their models on it: "
            'take a file of the whole model, such as one that transformers has added up'
        )


def is_timms_pe(state: Mapping[str, Tensor]) -> bool:
    """Tell timm's PE from mmrope's, which has a bias in its patch embedding."""
    return 'norm_pre.weight' in state and 'patch_embed.proj.bias' not in state


def family_of_names(state: Mapping[str, Tensor]) -> str:
    """Guess the family of a ViT under timm's or mmrope's names; SAM 3's cannot be told from those of PE."""
    if 'norm_pre.weight' in state:
        return 'PEViT'
    if 'blocks.0.attn.q_norm.weight' in state:
        return 'Sapiens2ViT'
    if 'reg_token' in state:
        return 'DINOv3ViT' if 'cls_token' in state else 'SBBViT'
    if 'blocks.0.mlp.fc1_g.weight' in state or is_gated(state):
        return 'EVA02ViT'
    return 'RoPEViT'


def is_gated(state: Mapping[str, Tensor]) -> bool:
    """Say whether the hidden channels of the MLPs come in pairs of a gate and a value."""
    names = ('blocks.0.mlp.fc1.weight', 'blocks.0.mlp.fc2.weight')
    if not all(name in state and state[name].ndim == 2 for name in names):
        return False
    return state[names[0]].shape[0] == 2 * state[names[1]].shape[1]


def row_order(head_dim: int, layout: Layout) -> Tensor:
    """Return the channel of a head in ``layout`` for each channel of a head in mmrope."""
    pairs = torch.arange(head_dim // 2)
    if layout.y_first:
        pairs = pairs.roll(len(pairs) // 2)
    first, second = (pairs, pairs + len(pairs)) if layout.half else (2 * pairs, 2 * pairs + 1)
    return torch.stack((first, second), dim=-1).flatten()


def permuted(x: Tensor, order: Tensor) -> Tensor:
    """Put the rows of a projection, a bias or a norm of one head in another order, head by head."""
    return x.unflatten(0, (-1, len(order)))[:, order.to(x.device)].flatten(0, 1)


def timm_names(state: Mapping[str, Tensor], layout: Layout) -> dict[str, str]:
    """Return the name that timm has for each name of a layout."""
    new = {}
    for key in state:
        name = key
        for pattern, replacement in layout.names:
            name = re.sub(pattern, replacement, name)
        new[key] = name
    gated = any('.fc1_g.' in name for name in new.values())
    return {key: name.replace('.up_proj.', '.fc1_x.' if gated else '.fc1.') for key, name in new.items()}


def drop_reason(name: str) -> str | None:
    """Say why a tensor under timm's name has no place in mmrope; ``None`` if it has."""
    return next((reason for pattern, reason in DROPPED.items() if re.fullmatch(pattern, name)), None)


class Blocks:
    """Tensors under timm's names on their way to mmrope's.

    Args:
        state: tensors, masks of biases among them.
        layout: where they come from.
        num_heads: heads of the model.

    Raises:
        WeightsError: if the heads do not divide the channels.
    """

    def __init__(self, state: dict[str, Tensor], layout: Layout, num_heads: int) -> None:
        self.state, self.layout, self.num_heads = dict(state), layout, num_heads
        dims = self.state['patch_embed.proj.weight'].shape[0]
        if dims % num_heads or dims // num_heads % 4:
            raise WeightsError(f'num_heads={num_heads} does not fit weights of {dims} channels')
        self.order = row_order(dims // num_heads, layout)

    def convert(self, depth: int) -> dict[str, Tensor]:
        """Return the tensors under mmrope's names."""
        for i in range(depth):
            self._join_qkv(f'blocks.{i}.attn.')
            self._join_gate(f'blocks.{i}.mlp.')
            if f'blocks.{i}.gamma_1' in self.state and f'blocks.{i}.gamma_2' not in self.state:
                self.state[f'blocks.{i}.gamma_2'] = torch.ones_like(self.state[f'blocks.{i}.gamma_1'])
        self._take_periods(depth)
        self._fold_prefix()
        weight = self.state['patch_embed.proj.weight']
        self.state.setdefault('patch_embed.proj.bias', weight.new_zeros(len(weight)))
        if self.state.get('cls_token', weight).ndim == 1:  # of PE
            self.state['cls_token'] = self.state['cls_token'][None, None]
        return self.state

    def _join_qkv(self, name: str) -> None:
        """Make one projection of three, its biases complete and its rows in mmrope's order."""
        pop = self.state.pop
        if f'{name}qkv.weight' in self.state:
            weights = list(pop(f'{name}qkv.weight').chunk(3))
        elif all(f'{name}{part}_proj.weight' in self.state for part in 'qkv'):
            weights = [pop(f'{name}{part}_proj.weight') for part in 'qkv']
        else:
            return  # the report names what is missing
        whole = pop(f'{name}qkv.bias', None)
        if whole is not None:
            mask = pop(f'{name}qkv.bias_mask', None)
            biases: list[Tensor] = list((whole if mask is None else _masked(whole, mask)).chunk(3))
        else:
            biases = []
            for part, weight in zip('qkv', weights):
                bias, alone = pop(f'{name}{part}_proj.bias', None), pop(f'{name}{part}_bias', None)
                bias = alone if bias is None else bias
                biases.append(weight.new_zeros(len(weight)) if bias is None else bias)
        head_dim = len(self.order)
        for parts in (weights, biases):
            for i in (1, 2):  # heads that several queries share
                repeats = len(parts[0]) // len(parts[i])
                if repeats > 1:
                    parts[i] = parts[i].unflatten(0, (-1, head_dim)).repeat_interleave(repeats, 0).flatten(0, 1)
            for i in (0, 1):
                parts[i] = permuted(parts[i], self.order)
        self.state[f'{name}qkv.weight'], self.state[f'{name}qkv.bias'] = torch.cat(weights), torch.cat(biases)
        for part in 'qk':
            if f'{name}{part}_norm.weight' in self.state:
                self.state[f'{name}{part}_norm.weight'] = permuted(self.state[f'{name}{part}_norm.weight'], self.order)

    def _join_gate(self, name: str) -> None:
        for kind in ('weight', 'bias'):
            gate, value = (self.state.pop(f'{name}fc1_{part}.{kind}', None) for part in 'gx')
            if gate is not None and value is not None:
                self.state[f'{name}fc1.{kind}'] = torch.cat((gate, value))

    def _take_periods(self, depth: int) -> None:
        """Make frequencies of the periods of DINOv3: those of a file decide, since published ones were rounded."""
        periods = self.state.pop('rope_embed.periods', None)
        if periods is None:
            return
        magnitudes = 1 / periods.float()
        zeros = torch.zeros_like(magnitudes)
        freqs = torch.stack((torch.cat((magnitudes, zeros)), torch.cat((zeros, magnitudes))))[:, None]
        for i in range(depth):
            self.state[f'blocks.{i}.attn.rope.freqs'] = freqs.clone()

    def _fold_prefix(self) -> None:
        """Add the row of ``pos_embed`` that belongs to the cls token to it; without one, leave it out."""
        pos = self.state.get('pos_embed')
        if pos is None:
            return
        if pos.ndim == 2:  # of PE
            pos = pos[None]
        rows, cls = pos.shape[1], self.state.get('cls_token')
        alone = self.layout.family == 'RoPEViT' and math.isqrt(rows) ** 2 == rows  # timm's DINOv2 with registers
        prefix = int((cls is not None and not alone) or math.isqrt(rows - 1) ** 2 == rows - 1)
        if prefix and cls is not None:  # a sum in half precision would be rounded
            precise = torch.promote_types(cls.dtype, torch.float32)
            self.state['cls_token'] = cls.reshape(1, 1, -1).to(precise) + pos[:, :1]
        self.state['pos_embed'] = pos[:, prefix:]


def _masked(bias: Tensor, mask: Tensor) -> Tensor:
    """Apply DINOv3's mask of a bias, which hides the bias of the keys; NaN stands for a mask that was never set."""
    if mask.isnan().any():
        mask = torch.ones_like(bias)
        mask.view(3, -1)[1] = 0
    return torch.where(mask == 0, torch.zeros_like(bias), bias * mask)


def turns_axes_apart(freqs: Tensor) -> bool:
    """Say whether half of the pairs turn along x only and the others along y only, whatever their frequencies."""
    half = freqs.shape[-1] // 2
    return not (freqs.is_meta or freqs[0, :, half:].any() or freqs[1, :, :half].any())


def heads_in(state: Mapping[str, Tensor]) -> int | None:
    """Count the heads if a tensor shows how many channels each has."""
    dims = state['patch_embed.proj.weight'].shape[0]
    if 'rope_embed.periods' in state:
        return dims // (4 * len(state['rope_embed.periods']))
    if 'blocks.0.attn.q_norm.weight' in state:
        return dims // len(state['blocks.0.attn.q_norm.weight'])
    return None
