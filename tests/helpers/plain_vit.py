"""An oracle: the ViT in float64, slow and by its definition, on the weights of an mmrope.RoPEViT.

Tokens stay row by row. Of all pairs of tokens, those attend that a table of window numbers allows; angles are taken
over the whole grid; nothing is fused, kept or done in place, so autograd gives the gradients.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmrope import RoPEViT


def plain_vit(model: RoPEViT, x: Tensor, weights: dict[str, Tensor], global_blocks: set[int]) -> list[Tensor]:
    """The maps of ``model.out_indices`` for images ``x``; ``weights`` are those of ``model`` in float64."""
    patch = model.patch_embed.proj.kernel_size[0]
    x = F.pad(x.double(), (0, -x.shape[3] % patch, 0, -x.shape[2] % patch))
    x = F.conv2d(x, weights['patch_embed.proj.weight'], weights['patch_embed.proj.bias'], stride=patch)
    grid = tuple(x.shape[2:])
    x = x.flatten(2).transpose(1, 2)
    if 'pos_embed' in weights:
        maps = weights['pos_embed'].unflatten(1, model.pos_grid).permute(0, 3, 1, 2)
        if model.pos_grid != grid:
            maps = F.interpolate(maps, size=grid, mode='bicubic', align_corners=False)
        x = x + maps.flatten(2).transpose(1, 2)
    prefix = 0
    if 'cls_token' in weights:
        prefix, x = 1, torch.cat((weights['cls_token'].expand(len(x), -1, -1), x), dim=1)
    apart = windows_apart(grid, model.window_size)
    outs = []
    for i, block in enumerate(model.blocks):
        mask = apart if model.window_size and i not in global_blocks else torch.zeros(())
        names = {key[len(f'blocks.{i}.') :]: value for key, value in weights.items() if key.startswith(f'blocks.{i}.')}
        x = x + attention(layer_norm(x, names, 'norm1'), names, block.attn.num_heads, grid, prefix, mask) * names.get(
            'gamma_1', 1.0
        )
        hidden = F.gelu(linear(layer_norm(x, names, 'norm2'), names, 'mlp.fc1'))
        x = x + linear(hidden, names, 'mlp.fc2') * names.get('gamma_2', 1.0)
        if i in model.out_indices:
            last = i == len(model.blocks) - 1 and 'norm.weight' in weights
            out = layer_norm(x, weights, 'norm') if last else x
            outs.append(out[:, prefix:].transpose(1, 2).unflatten(2, grid))
    return outs


def windows_apart(grid: tuple[int, int], window_size: int) -> Tensor:
    """``-inf`` for pairs of tokens in different windows: as equal as possible, the larger ones first, ``(N, N)``."""
    if not window_size:
        return torch.zeros(())
    numbers = []
    for length in grid:
        parts = torch.arange(length).tensor_split(-(-length // window_size))
        numbers.append(torch.cat([torch.full_like(part, i) for i, part in enumerate(parts)]))
    window = (numbers[0][:, None] * 10_000 + numbers[1]).flatten()
    return torch.zeros(len(window), len(window)).double().masked_fill(window[:, None] != window, -torch.inf)


def attention(x: Tensor, weights: dict, heads: int, grid: tuple[int, int], prefix: int, mask: Tensor) -> Tensor:
    qkv = linear(x, weights, 'attn.qkv').unflatten(-1, (3, heads, -1))
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, N, D)
    if 'attn.rope.freqs' in weights:
        q, k = (rotate(part, weights['attn.rope.freqs'], grid, prefix) for part in (q, k))
    logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + mask
    return linear((logits.softmax(-1) @ v).transpose(1, 2).flatten(2), weights, 'attn.proj')


def rotate(x: Tensor, freqs: Tensor, grid: tuple[int, int], prefix: int) -> Tensor:
    rows, cols = torch.meshgrid(*(torch.arange(size).double() for size in grid), indexing='ij')
    angles = cols.reshape(-1, 1) * freqs[0][:, None] + rows.reshape(-1, 1) * freqs[1][:, None]  # (heads, N, D / 2)
    a, b = x[:, :, prefix:, 0::2], x[:, :, prefix:, 1::2]
    turned = torch.stack((a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()), dim=-1)
    return torch.cat((x[:, :, :prefix], turned.flatten(-2)), dim=2)


def linear(x: Tensor, weights: dict, name: str) -> Tensor:
    return x @ weights[f'{name}.weight'].T + weights[f'{name}.bias']


def layer_norm(x: Tensor, weights: dict, name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f'{name}.weight'], weights[f'{name}.bias'], eps=1e-6)
