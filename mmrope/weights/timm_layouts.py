"""From mmrope's layout of a family to timm's."""

from collections.abc import Mapping

import torch
from torch import Tensor

from .family_layouts import TIMM, is_gated, permuted, row_order, turns_axes_apart
from .report import WeightsError


def to_timm_family(state: Mapping[str, Tensor], family: str, num_heads: int) -> dict[str, Tensor]:
    """Convert a family's weights from mmrope's layout to timm's.

    Raises:
        WeightsError: if timm's model has no place for some of them.
    """
    if family not in TIMM or family == 'Sapiens2ViT':
        raise WeightsError(f'timm has no layout for weights of a {family}, or not for all of them')
    layout, new = TIMM[family], dict(state)
    depth = 1 + max(int(key.split('.')[1]) for key in state if key.startswith('blocks.'))
    back = row_order(state['patch_embed.proj.weight'].shape[0] // num_heads, layout).argsort()
    split = family == 'EVA02ViT' and 'blocks.0.mlp.norm.weight' in state
    for i in range(depth):
        freqs = new.pop(f'blocks.{i}.attn.rope.freqs', None)
        if freqs is not None and not turns_axes_apart(freqs):
            raise WeightsError(f'blocks.{i}.attn.rope.freqs was learned, and timm has no place for it')
        _split_qkv(new, f'blocks.{i}.attn.', back, family, split)
        if is_gated(state) and (split or family == 'DINOv3ViT'):
            for kind in ('weight', 'bias'):
                gate, value = new.pop(f'blocks.{i}.mlp.fc1.{kind}').chunk(2)
                new[f'blocks.{i}.mlp.fc1_g.{kind}'], new[f'blocks.{i}.mlp.fc1_x.{kind}'] = gate, value
    if family == 'PEViT':
        _drop_zeros(new, 'patch_embed.proj.bias')
    if 'pos_embed' in new and 'cls_token' in new:  # the cls token holds its own row
        new['pos_embed'] = torch.cat((torch.zeros_like(new['cls_token']), new['pos_embed']), dim=1)
    return new


def _split_qkv(new: dict[str, Tensor], name: str, back: Tensor, family: str, split: bool) -> None:
    """Put the rows of q and k back in timm's order, and split what timm's model splits."""
    weights, biases = (list(new.pop(f'{name}qkv.{kind}').chunk(3)) for kind in ('weight', 'bias'))
    for parts in (weights, biases):
        parts[:2] = [permuted(part, back) for part in parts[:2]]
    if family == 'PEViT':
        new[f'{name}qkv.weight'], new[f'{name}qkv.bias'] = torch.cat(weights), torch.cat(biases)
        return
    if biases[1].any():
        raise WeightsError(f'{name}qkv.bias has a bias of the keys, for which timm has no place')
    if split:
        new |= {f'{name}{part}_proj.weight': weight for part, weight in zip('qkv', weights)}
        new |= {f'{name}{part}_proj.bias': biases[i] for i, part in ((0, 'q'), (2, 'v'))}
        return
    new[f'{name}qkv.weight'] = torch.cat(weights)
    if family == 'EVA02ViT' or biases[0].any() or biases[2].any():  # timm has models with and without a bias
        new |= {f'{name}{part}_bias': biases[i] for i, part in ((0, 'q'), (2, 'v'))}


def _drop_zeros(new: dict[str, Tensor], key: str) -> None:
    if new.pop(key).any():
        raise WeightsError(f'{key} is not zero, and timm has no place for it')
