"""Learned absolute position embedding: fitting it to a grid."""

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_pos_embed(pos_embed: Tensor, old_grid: tuple[int, int], new_grid: tuple[int, int]) -> Tensor:
    """Resize a position embedding, bicubic without antialias as RoPE-ViT's authors do.

    Args:
        pos_embed: one vector a token, row by row, ``(1, H * W, C)``.
        old_grid: the ``(H, W)`` that it was learned on.
        new_grid: the ``(H, W)`` wanted.

    Returns:
        ``(1, H * W, C)`` for the new grid; ``pos_embed`` itself if the grids are equal.
    """
    if old_grid == new_grid:
        return pos_embed
    maps = pos_embed.unflatten(1, old_grid).permute(0, 3, 1, 2)  # (1, C, H, W)
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    maps = F.interpolate(maps, size=new_grid, mode='bicubic', align_corners=False)
    return maps.flatten(2).transpose(1, 2).to(pos_embed.dtype)
