"""Learned absolute position embeddings and relative position bias, and how to resize them."""

import math
from contextlib import suppress
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import trunc_normal_
from torch import Tensor, nn

from .tracing import once_per_size

RESIZES: dict[str, dict[str, Any]] = {
    'bicubic': dict(mode='bicubic', align_corners=False),
    'bicubic_antialias': dict(mode='bicubic', align_corners=False, antialias=True),
    'bilinear': dict(mode='bilinear', align_corners=False),
}


def resize_pos_embed(
    pos_embed: Tensor, old_grid: tuple[int, int], new_grid: tuple[int, int], how: str = 'bicubic'
) -> Tensor:
    """Resize a position embedding.

    Args:
        pos_embed: one vector per token, row by row, ``(1, H * W, C)``.
        old_grid: grid ``(H, W)`` of ``pos_embed``.
        new_grid: grid ``(H, W)`` of the result.
        how: interpolation: ``'bicubic'`` without antialiasing, as RoPE-ViT's authors do, ``'bicubic_antialias'``,
            ``'bilinear'`` without antialiasing, or ``'tile'`` to repeat it, cropped at the bottom and right.

    Returns:
        ``(1, H * W, C)`` for the new grid; ``pos_embed`` itself if the grids are equal.
    """
    if old_grid == new_grid:
        return pos_embed
    maps = pos_embed.unflatten(1, old_grid).permute(0, 3, 1, 2)  # (1, C, H, W)
    if how == 'tile':
        rows, cols = (torch.arange(new, device=maps.device) % old for old, new in zip(old_grid, new_grid))
        return maps[:, :, rows[:, None], cols].flatten(2).transpose(1, 2)
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    maps = F.interpolate(maps, size=new_grid, **RESIZES[how])
    return maps.flatten(2).transpose(1, 2).to(pos_embed.dtype)


def resize_bias_table(table: Tensor, window_size: int) -> Tensor:
    """Resize a relative position bias table to another window by bicubic interpolation, as Swin's authors do.

    Args:
        table: one value per head and offset, rows of offsets outermost, ``((2 * old - 1) ** 2, heads)``.
        window_size: side of the new window, in tokens.

    Returns:
        ``((2 * window_size - 1) ** 2, heads)``; ``table`` itself if it already has this size.

    Raises:
        ValueError: if the length of ``table`` is not the square of an odd number.
    """
    old = math.isqrt(len(table))
    if old**2 != len(table) or old % 2 == 0:
        raise ValueError(f'table must have (2 * window_size - 1) ** 2 rows, but got shape {tuple(table.shape)}')
    new = 2 * window_size - 1
    return resize_pos_embed(table[None], (old, old), (new, new))[0]


class RelativePositionBias(nn.Module):
    """Learned bias of the attention logits for each offset within a window, one table per head.

    Source: Liu et al., *Swin Transformer* (ICCV 2021, arXiv 2103.14030), section 3.2. A table for another window size
    is resized on loading.

    Args:
        window_size: maximum side of a window, in tokens.
        num_heads: number of heads.
    """

    def __init__(self, window_size: int, num_heads: int) -> None:
        super().__init__()
        self.window_size = window_size
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window_size - 1) ** 2, num_heads))
        trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, window: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """Compute the bias for every query (second-to-last axis) and key (last axis) of a window.

        Args:
            window: its height and width ``(h, w)``, at most ``window_size`` each.
            dtype: dtype of the result.

        Returns:
            ``(heads, h * w, h * w)``.

        Raises:
            ValueError: if the window is larger than ``window_size``.
        """
        if max(window) > self.window_size:
            raise ValueError(f'window must be at most {self.window_size} along each axis, but got {tuple(window)}')
        table = self.relative_position_bias_table
        offsets = once_per_size(_offsets, tuple(window), self.window_size, like=table)
        return table[offsets].permute(2, 0, 1).to(dtype)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        key = f'{prefix}relative_position_bias_table'
        if key in state_dict:
            with suppress(ValueError):  # PyTorch reports a malformed table, with its key and shapes
                state_dict[key] = resize_bias_table(state_dict[key], self.window_size)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _offsets(window: tuple[int, int], window_size: int, device: torch.device) -> Tensor:
    """Return the table row for each query and key of a window, ``(h * w, h * w)``."""
    rows, cols = (torch.arange(size, device=device) for size in window)
    rows, cols = (x[:, None] - x + window_size - 1 for x in (rows, cols))  # (h, h), (w, w)
    offsets = rows[:, None, :, None] * (2 * window_size - 1) + cols[None, :, None, :]  # (h, w, h, w)
    return offsets.flatten(2, 3).flatten(0, 1)
