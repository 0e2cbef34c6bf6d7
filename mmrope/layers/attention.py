"""Multi-head self-attention over a grid of tokens, with rotary position embedding, global or in windows."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .position import RelativePositionBias
from .rope import RoPE, rotate
from .windows import Windows, cut, restore


class Attention(nn.Module):
    """Rotate queries and keys, attend, project.

    RoPE depends on offsets only, so positions count from the corner of each window: one table of the largest window
    serves them all.

    Args:
        dim: channels of a token.
        num_heads: heads; ``dim`` is a multiple of it.
        rope: ``'mixed'``, ``'axial'`` or ``None`` for no rotation.
        theta: base of the frequencies.
        rpb_window_size: largest extent of a window, in tokens, for a learned bias by relative position besides;
            ``None`` for no bias.

    Raises:
        ValueError: if ``dim`` is not a multiple of ``num_heads``, or as :class:`RoPE`.
    """

    def __init__(
        self, dim: int, num_heads: int, rope: str | None, theta: float | None, rpb_window_size: int | None = None
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f'dim must be a multiple of num_heads, but got dim = {dim} and num_heads = {num_heads}')
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.rope = None if rope is None else RoPE(dim // num_heads, num_heads, rope, theta)
        self.rpb = None if rpb_window_size is None else RelativePositionBias(rpb_window_size, num_heads)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, grid: tuple[int, int], windows: Windows | None = None) -> Tensor:
        """Attend within the whole grid, or within each window.

        Args:
            x: tokens, ``(B, P + H * W, C)``; the first ``P`` (a cls token, say) have no position and are not rotated.
            grid: ``(H, W)``.
            windows: how to cut the grid; ``None`` for global attention. ``P`` must be 0 with windows or a bias.

        Returns:
            ``(B, P + H * W, C)``.
        """
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # (B, P + H * W, 3, heads, head_dim)
        if windows is None:
            num_prefix = x.shape[1] - grid[0] * grid[1]
            table = None if self.rope is None else self.rope(grid, qkv.dtype, num_prefix)
            return self.proj(_attend(qkv, table, self._bias(grid, qkv.dtype)))
        table = None if self.rope is None else self.rope(windows.largest, qkv.dtype)
        batches = [self._attend_windows(batch, table, windows) for batch in cut(qkv.unflatten(1, grid), windows)]
        return self.proj(restore(batches, windows).flatten(1, 2))

    def _attend_windows(self, qkv: Tensor, table: Tensor | None, windows: Windows) -> Tensor:
        h, w = qkv.shape[1:3]  # (B * count, h, w, 3, heads, head_dim)
        if table is not None:
            table = table.unflatten(1, windows.largest)[:, :h, :w].flatten(1, 2)
        return _attend(qkv.flatten(1, 2), table, self._bias((h, w), qkv.dtype)).unflatten(1, (h, w))

    def _bias(self, window: tuple[int, int], dtype: torch.dtype) -> Tensor | None:
        return None if self.rpb is None else self.rpb(window, dtype)


def _attend(qkv: Tensor, table: Tensor | None, bias: Tensor | None) -> Tensor:
    """Attention among the ``N`` tokens of each sequence: ``(B, N, 3, heads, head_dim)`` to ``(B, N, C)``."""
    qk, v = qkv.permute(2, 0, 3, 1, 4).split((2, 1))  # (2, B, heads, N, head_dim) and (1, ...)
    if table is not None:
        qk = rotate(qk, table)
    x = F.scaled_dot_product_attention(qk[0], qk[1], v[0], attn_mask=bias)
    return x.transpose(1, 2).flatten(2)  # (B, N, C)
