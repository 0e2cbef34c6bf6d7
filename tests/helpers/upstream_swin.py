"""An oracle: RoPE-ViT's Swin in float64, by its definition, on weights under its authors' own names."""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.helpers.classic_swin import attend_masked, layer_norm, linear


def upstream_swin(state: dict[str, Tensor], x: Tensor, depths: tuple[int, ...], heads: tuple[int, ...]) -> Tensor:
    """The normalised last map ``(B, H, W, C)`` for images whose sides are multiples of 32."""
    weights = {name: value.double() for name, value in state.items()}
    x = F.conv2d(x.double(), weights['patch_embed.proj.weight'], weights['patch_embed.proj.bias'], stride=4)
    x = layer_norm(x.permute(0, 2, 3, 1), weights, 'patch_embed.norm')
    for i, depth in enumerate(depths):
        for j in range(depth):
            name = f'layers.{i}.blocks.{j}'
            x = x + attention(layer_norm(x, weights, f'{name}.norm1'), weights, f'{name}.attn', heads[i], j % 2 * 3)
            hidden = F.gelu(linear(layer_norm(x, weights, f'{name}.norm2'), weights, f'{name}.mlp.fc1'))
            x = x + linear(hidden, weights, f'{name}.mlp.fc2')
        if i < len(depths) - 1:
            x = torch.cat([x[:, row::2, col::2] for col, row in itertools.product(range(2), range(2))], dim=-1)
            x = layer_norm(x, weights, f'layers.{i}.downsample.norm')
            x = x @ weights[f'layers.{i}.downsample.reduction.weight'].T
    return layer_norm(x, weights, 'norm')


def attention(x: Tensor, weights: dict[str, Tensor], name: str, heads: int, shift: int) -> Tensor:
    height, width, dim = x.shape[1:]
    q, k, v = linear(x, weights, f'{name}.qkv').unflatten(-1, (3, heads, dim // heads)).unbind(3)  # (B, H, W, heads, D)
    if f'{name}.rope_freqs' in weights:
        q, k = rotate(q, weights[f'{name}.rope_freqs']), rotate(k, weights[f'{name}.rope_freqs'])
    shift = shift if min(height, width) > 7 else 0
    out = attend_masked(q, k, v, weights.get(f'{name}.relative_position_bias_table'), 7, [shift, shift])
    return linear(out.flatten(3), weights, f'{name}.proj')


def rotate(x: Tensor, freqs: Tensor) -> Tensor:
    """Complex numbers, as the authors have it: the frequencies ``(2, heads, D / 2)`` along x first."""
    height, width = x.shape[1:3]
    t = torch.arange(height * width).double()
    t_x, t_y = t % width, torch.div(t, width, rounding_mode='floor')
    angles = t_x[:, None, None] * freqs[0] + t_y[:, None, None] * freqs[1]  # (H * W, heads, D / 2)
    pairs = torch.view_as_complex(x.flatten(1, 2).unflatten(-1, (-1, 2)))
    turned = pairs * torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(turned).flatten(-2).unflatten(1, (height, width))
