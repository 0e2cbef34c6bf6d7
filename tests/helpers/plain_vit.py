"""An oracle: the ViT in float64, slow and by its definition, on the weights of an mmrope.RoPEViT.

Tokens stay row by row. Of all pairs of tokens, those attend that a table of window numbers allows; angles are taken
over the whole grid; nothing is fused, kept or done in place, so autograd gives the gradients.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mmrope import RoPEViT
from mmrope.layers import Positions


def plain_vit(
    model: RoPEViT, x: Tensor, weights: dict[str, Tensor], global_blocks: set[int], eps: float = 1e-6
) -> list[Tensor]:
    """The maps of ``model.out_indices`` for images ``x``; ``weights`` are those of ``model`` in float64."""
    x, grid, prefix = embed(model, x, weights, eps)
    outs = []
    for i in range(len(model.blocks)):
        x = block(model, i, x, weights, grid, window_mask(model, i, grid, prefix, global_blocks), eps)
        if i in model.out_indices:
            out = norm(x, weights, 'norm', eps) if i == len(model.blocks) - 1 or model.norm_every_output else x
            outs.append(out[:, prefix:].transpose(1, 2).unflatten(2, grid))
    return outs


def embed(
    model: RoPEViT, x: Tensor, weights: dict[str, Tensor], eps: float = 1e-6
) -> tuple[Tensor, tuple[int, int], int]:
    """Tokens before the first block, their grid, and the number of prefix tokens."""
    patch = model.patch_embed.proj.kernel_size[0]
    x = F.pad(x.double(), (0, -x.shape[3] % patch, 0, -x.shape[2] % patch))
    x = F.conv2d(x, weights['patch_embed.proj.weight'], weights['patch_embed.proj.bias'], stride=patch)
    grid = tuple(x.shape[2:])
    x = x.flatten(2).transpose(1, 2)
    if 'pos_embed' in weights:
        maps = weights['pos_embed'].unflatten(1, model.pos_grid).permute(0, 3, 1, 2)
        x = x + on_grid(maps, grid, model.pos_embed_resize).flatten(2).transpose(1, 2)
    tokens = [weights[name].expand(len(x), -1, -1) for name in ('cls_token', 'reg_token') if name in weights]
    return norm(torch.cat((*tokens, x), dim=1), weights, 'norm_pre', eps), grid, sum(t.shape[1] for t in tokens)


def window_mask(model: RoPEViT, i: int, grid: tuple[int, int], prefix: int, global_blocks: set[int]) -> Tensor:
    return windows_apart(grid, 0 if i in global_blocks else model.window_size, prefix)


def block(
    model: RoPEViT,
    i: int,
    x: Tensor,
    weights: dict[str, Tensor],
    grid: tuple[int, int],
    mask: Tensor,
    eps: float = 1e-6,
) -> Tensor:
    """Block ``i``; of its tokens, those before the last ``H * W`` have no position."""
    names = {key[len(f'blocks.{i}.') :]: value for key, value in weights.items() if key.startswith(f'blocks.{i}.')}
    attn = model.blocks[i].attn
    positions = Positions() if attn.rope is None else attn.rope.positions
    places = [axis(positions, length, i) for i, length in enumerate(grid)]
    prefix = x.shape[1] - grid[0] * grid[1]
    branch = attention(norm(x, names, 'norm1', eps), names, attn.num_heads, places, prefix, mask, eps)
    x = x + branch * names.get('gamma_1', 1.0)
    return x + mlp(norm(x, names, 'norm2', eps), names, eps) * names.get('gamma_2', 1.0)


def on_grid(maps: Tensor, grid: tuple[int, int], how: str) -> Tensor:
    """A position embedding on another grid."""
    if tuple(maps.shape[2:]) == grid:
        return maps
    if how == 'tile':
        repeats = [-(-new // old) for new, old in zip(grid, maps.shape[2:])]
        return maps.tile(1, 1, *repeats)[:, :, : grid[0], : grid[1]]
    return F.interpolate(maps, grid, mode=how.split('_')[0], align_corners=False, antialias='antialias' in how)


def axis(positions: Positions, length: int, number: int) -> Tensor:
    """Positions of the tokens along y (0) or x (1)."""
    index = torch.arange(length).double()
    frame, ref = (
        value[number] if isinstance(value, tuple) else value for value in (positions.frame or length, positions.ref)
    )
    if positions.rule == 'index':
        return index + positions.offset
    if positions.rule == 'reference':
        return (index + positions.offset) * ref / frame
    return 2 * math.pi * ((index + 0.5) / frame * 2 - 1)


def windows_apart(grid: tuple[int, int], window_size: int, prefix: int = 0) -> Tensor:
    """``-inf`` for pairs of tokens in different windows: as equal as possible, the larger ones first, ``(N, N)``."""
    if not window_size:
        return torch.zeros(())
    numbers = []
    for length in grid:
        parts = torch.arange(length).tensor_split(-(-length // window_size))
        numbers.append(torch.cat([torch.full_like(part, i) for i, part in enumerate(parts)]))
    window = (numbers[0][:, None] * 10_000 + numbers[1]).flatten()
    apart = torch.zeros(len(window), len(window)).double().masked_fill(window[:, None] != window, -torch.inf)
    return F.pad(apart, (prefix, 0, prefix, 0))


def attention(
    x: Tensor, weights: dict, heads: int, places: list[Tensor], prefix: int, mask: Tensor, eps: float
) -> Tensor:
    qkv = linear(x, weights, 'attn.qkv').unflatten(-1, (3, heads, -1))
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, N, D)
    q, k = norm(q, weights, 'attn.q_norm', eps), norm(k, weights, 'attn.k_norm', eps)
    if 'attn.rope.freqs' in weights:
        q, k = (rotate(part, weights['attn.rope.freqs'], places, prefix) for part in (q, k))
    logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + mask
    out = (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)
    return linear(norm(out, weights, 'attn.norm', eps), weights, 'attn.proj')


def mlp(x: Tensor, weights: dict, eps: float) -> Tensor:
    hidden = linear(x, weights, 'mlp.fc1')
    if hidden.shape[-1] == weights['mlp.fc2.weight'].shape[1]:
        hidden = F.gelu(hidden)
    else:
        gate, value = hidden.chunk(2, -1)
        hidden = F.silu(gate) * value
    return linear(norm(hidden, weights, 'mlp.norm', eps), weights, 'mlp.fc2')


def rotate(x: Tensor, freqs: Tensor, places: list[Tensor], prefix: int) -> Tensor:
    rows, cols = torch.meshgrid(*places, indexing='ij')
    angles = cols.reshape(-1, 1) * freqs[0][:, None] + rows.reshape(-1, 1) * freqs[1][:, None]  # (heads, N, D / 2)
    a, b = x[:, :, prefix:, 0::2], x[:, :, prefix:, 1::2]
    turned = torch.stack((a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()), dim=-1)
    return torch.cat((x[:, :, :prefix], turned.flatten(-2)), dim=2)


def linear(x: Tensor, weights: dict, name: str) -> Tensor:
    return x @ weights[f'{name}.weight'].T + weights[f'{name}.bias']


def norm(x: Tensor, weights: dict, name: str, eps: float) -> Tensor:
    """LayerNorm, RMSNorm where there is no bias, or nothing where there is no norm."""
    weight = weights.get(f'{name}.weight')
    if weight is None:
        return x
    bias = weights.get(f'{name}.bias')
    if bias is None:
        return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps=eps)
