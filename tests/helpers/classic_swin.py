"""An oracle: Swin Transformer in float64, slow and by its definition, on the weights of an mmrope.RoPESwin.

Attention is computed in two ways. ``roll=True`` is the classic one, on sizes that the window divides: roll the grid,
cut it into windows, mask the pairs that the roll brought together. ``roll=False`` knows no windows: of all pairs of
tokens of the grid, those attend that lie in the same window along both axes.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from mmrope import RoPESwin


def classic_swin(
    model: RoPESwin, x: Tensor, window_size: int, roll: bool = False, weights: dict[str, Tensor] | None = None
) -> list[Tensor]:
    """The normalised outputs of all stages of ``model``, which returns all of them, for images ``x``.

    ``weights`` are those of ``model`` in float64, if gradients are wanted.
    """
    weights = weights_of(model) if weights is None else weights
    patch = model.patch_embed.proj.kernel_size[0]
    x = F.pad(x.double(), (0, -x.shape[3] % patch, 0, -x.shape[2] % patch))
    x = F.conv2d(x, weights['patch_embed.proj.weight'], weights['patch_embed.proj.bias'], stride=patch)
    x = layer_norm(x.permute(0, 2, 3, 1), weights, 'patch_embed.norm')
    outs = []
    for i, stage in enumerate(model.layers):
        for j, block in enumerate(stage.blocks):
            name = f'layers.{i}.blocks.{j}'
            shift = window_size // 2 if j % 2 else 0
            y = layer_norm(x, weights, f'{name}.norm1')
            x = x + attention(y, weights, f'{name}.attn', block.attn.num_heads, window_size, shift, roll)
            y = layer_norm(x, weights, f'{name}.norm2')
            x = x + linear(F.gelu(linear(y, weights, f'{name}.mlp.fc1')), weights, f'{name}.mlp.fc2')
        outs.append(layer_norm(x, weights, f'norm{i}').permute(0, 3, 1, 2))
        if i < len(model.layers) - 1:
            x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
            x = torch.cat([x[:, row::2, col::2] for col, row in itertools.product(range(2), range(2))], dim=-1)
            x = layer_norm(x, weights, f'layers.{i}.downsample.norm')
            x = x @ weights[f'layers.{i}.downsample.reduction.weight'].T
    return outs


def weights_of(model: RoPESwin) -> dict[str, Tensor]:
    """Parameters and axial frequencies in float64, leaves of their own."""
    return {name: x.detach().double() for name, x in (*model.named_parameters(), *model.named_buffers())}


def linear(x: Tensor, weights: dict, name: str) -> Tensor:
    return x @ weights[f'{name}.weight'].T + weights[f'{name}.bias']


def layer_norm(x: Tensor, weights: dict, name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f'{name}.weight'], weights[f'{name}.bias'], eps=1e-5)


def attention(x: Tensor, weights: dict, name: str, heads: int, window_size: int, shift: int, roll: bool) -> Tensor:
    height, width, dim = x.shape[1:]
    q, k, v = linear(x, weights, f'{name}.qkv').unflatten(-1, (3, heads, dim // heads)).unbind(3)  # (B, H, W, heads, D)
    if f'{name}.rope.freqs' in weights:
        q, k = rotate(q, weights[f'{name}.rope.freqs']), rotate(k, weights[f'{name}.rope.freqs'])
    table = weights.get(f'{name}.rpb.relative_position_bias_table')
    shifts = [shift if length > window_size else 0 for length in (height, width)]
    attend = attend_rolled if roll else attend_masked
    return linear(attend(q, k, v, table, window_size, shifts).flatten(3), weights, f'{name}.proj')


def rotate(x: Tensor, freqs: Tensor) -> Tensor:
    """Angles over the whole grid: attention depends on offsets only, so windows need not count from their corners."""
    rows, cols = (torch.arange(size).double() for size in x.shape[1:3])
    angles = cols[None, :, None, None] * freqs[0] + rows[:, None, None, None] * freqs[1]  # (H, W, heads, D / 2)
    turned = torch.complex(x[..., 0::2], x[..., 1::2]) * torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(turned).flatten(-2)


def attend_rolled(q: Tensor, k: Tensor, v: Tensor, table, window_size: int, shifts: list[int]) -> Tensor:
    height, width, heads, head_dim = q.shape[1:]
    rows, cols = (min(window_size, length) for length in (height, width))
    assert height % rows == 0 and width % cols == 0, 'rolled windows want a grid that the window divides'
    regions = [torch.zeros(length) for length in (height, width)]
    for region, shift in zip(regions, shifts):
        if shift:
            region[-window_size:-shift], region[-shift:] = 1, 2
    region = regions[0][:, None] * 3 + regions[1]

    def windows(x: Tensor) -> Tensor:  # (B, H, W, ...) -> (B, windows, rows * cols, ...)
        x = x.unflatten(2, (-1, cols)).unflatten(1, (-1, rows)).transpose(2, 3)
        return x.flatten(1, 2).flatten(2, 3)

    q, k, v = (windows(x.roll([-s for s in shifts], (1, 2))).transpose(2, 3) for x in (q, k, v))
    region = windows(region[None])  # (1, windows, tokens)
    logits = q @ k.transpose(-1, -2) / head_dim**0.5  # (B, windows, heads, tokens, tokens)
    logits = logits + bias_of(table, window_size, rows, cols)
    logits = logits.masked_fill((region[..., :, None] != region[..., None, :])[:, :, None], -torch.inf)
    out = (logits.softmax(-1) @ v).transpose(2, 3)  # (B, windows, tokens, heads, D)
    out = out.unflatten(2, (rows, cols)).unflatten(1, (height // rows, width // cols)).transpose(2, 3)
    return out.flatten(3, 4).flatten(1, 2).roll(shifts, (1, 2))


def attend_masked(q: Tensor, k: Tensor, v: Tensor, table, window_size: int, shifts: list[int]) -> Tensor:
    height, width, heads, head_dim = q.shape[1:]
    rows, cols = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    window = torch.stack([(p.flatten() - s) // window_size for p, s in zip((rows, cols), shifts)])  # floored
    apart = (window[:, :, None] != window[:, None, :]).any(0)
    q, k, v = (x.flatten(1, 2).transpose(1, 2) for x in (q, k, v))  # (B, heads, N, D)
    logits = q @ k.transpose(-1, -2) / head_dim**0.5
    logits = (logits + bias_of(table, window_size, height, width)).masked_fill(apart, -torch.inf)
    return (logits.softmax(-1) @ v).transpose(1, 2).unflatten(1, (height, width))


def bias_of(table: Tensor | None, window_size: int, height: int, width: int) -> Tensor:
    """``(heads, N, N)``: the entry of the offset of query and key; offsets that no window has get any entry."""
    if table is None:
        return torch.zeros(())
    side = 2 * window_size - 1
    rows, cols = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    rows, cols = ((p.flatten()[:, None] - p.flatten() + window_size - 1).clamp(0, side - 1) for p in (rows, cols))
    return table[rows * side + cols].permute(2, 0, 1)
