"""Two-dimensional rotary position embedding (RoPE): frequencies, tables and the rotation.

Source: Heo, Park, Han, Yun, *Rotary Position Embedding for Vision Transformer*, ECCV 2024, arXiv 2403.13298.

The token at row ``h`` and column ``w`` of the grid turns the channel pair ``(2d, 2d + 1)`` of its query and its key by

    angle[n, d](h, w) = w * freqs[0, n, d] + h * freqs[1, n, d]

for head ``n``. Tables hold ``(cos, sin)`` of these angles on their last axis.
"""

import math

import torch
from torch import Tensor, nn

# How many grids' tables a module keeps: a landscape and a portrait image, say.
MAX_TABLES = 2
_COMPLEX_TWINS = (torch.float32, torch.float64)


def mixed_freqs(head_dim: int, angles: Tensor, theta: float) -> Tensor:
    """Frequencies of RoPE-Mixed as it starts: the axial ones, turned by one angle a head (paper, section 3.2).

    Args:
        head_dim: channels a head, a multiple of 4.
        angles: one angle a head in radians, ``(heads,)``.
        theta: base of the geometric progression.

    Returns:
        ``freqs`` in radians a token step, ``(2, heads, head_dim // 2)``; index 0 along x (columns), 1 along y (rows).

    Raises:
        ValueError: if ``head_dim`` is not a positive multiple of 4 or ``theta`` is not positive.
    """
    if head_dim < 4 or head_dim % 4:
        raise ValueError(f'head_dim must be a positive multiple of 4 (2 axes x channel pairs), but got {head_dim}')
    if not theta > 0 or math.isinf(theta):
        raise ValueError(f'theta must be a positive finite number, but got {theta}')
    magnitudes = theta ** (-torch.arange(0, head_dim, 4, dtype=torch.float32) / head_dim)
    directions = torch.stack((angles, angles + math.pi / 2), dim=-1)[..., None]  # (heads, 2, 1)
    return torch.stack((magnitudes * directions.cos(), magnitudes * directions.sin())).flatten(-2)


def axial_freqs(head_dim: int, theta: float) -> Tensor:
    """Frequencies of RoPE-Axial: half of the pairs turn along x, half along y (paper, section 3.1).

    Args:
        head_dim: channels a head, a multiple of 4.
        theta: base of the geometric progression.

    Returns:
        ``freqs`` in radians a token step, the same for all heads, ``(2, 1, head_dim // 2)``.

    Raises:
        ValueError: as :func:`mixed_freqs`.
    """
    freqs = mixed_freqs(head_dim, torch.zeros(1), theta)
    half = head_dim // 4
    freqs[0, :, half:], freqs[1, :, :half] = 0, 0  # cos(pi / 2) is 6e-17 in floating point
    return freqs


def rotary_table(freqs: Tensor, grid: tuple[int, int]) -> Tensor:
    """Cosine and sine of every token's angles, a pure function of the frequencies and the grid.

    The angle is a sum over the two axes, so the table is the one of the columns turned by the one of the rows:
    ``H + W`` sines a frequency instead of ``H * W``. Multiplication by element stays in the dtype of ``freqs`` under
    autocast on every device; a matrix product would not.

    Args:
        freqs: radians a token step, ``(2, heads or 1, head_dim // 2)``.
        grid: ``(H, W)``.

    Returns:
        ``(cos, sin)`` on the last axis, ``(heads or 1, H * W, head_dim // 2, 2)``, tokens row by row.
    """
    rows, cols = (torch.arange(size, device=freqs.device, dtype=freqs.dtype)[:, None, None] for size in grid)
    col_table = _cos_sin(cols * freqs[0]).flatten(-2)  # (W, heads, head_dim)
    row_table = _cos_sin(rows * freqs[1])[:, None]  # (H, 1, heads, head_dim // 2, 2)
    table = rotate(col_table, row_table)  # (H, W, heads, head_dim)
    return table.unflatten(-1, (-1, 2)).flatten(0, 1).transpose(0, 1)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turn the channel pairs ``(2d, 2d + 1)`` of ``x``.

    Args:
        x: queries or keys, ``(..., head_dim)``.
        table: ``(cos, sin)`` on the last axis, ``(..., head_dim // 2, 2)``, of the dtype of ``x``; the leading axes
            broadcast against those of ``x``.

    Returns:
        The rotated ``x``, a new tensor of its dtype.
    """
    pairs = x.unflatten(-1, (-1, 2))
    if x.dtype in _COMPLEX_TWINS and not torch.compiler.is_compiling():
        # One pass over memory. Half precision has no complex arithmetic, and compilers fuse the lines below themselves.
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(table))
    else:
        (a, b), (cos, sin) = pairs.unbind(-1), table.unbind(-1)
        turned = torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1)
    return turned.flatten(-2)


def _cos_sin(angles: Tensor) -> Tensor:
    return torch.stack((angles.cos(), angles.sin()), dim=-1)


class RoPE(nn.Module):
    """Holds the frequencies of one attention layer and makes their tables.

    ``'mixed'`` learns its frequencies, a set a head, from a random direction each. ``'axial'`` is mixed at angle zero,
    frozen and the same for all heads; it stores nothing in a checkpoint. Frequencies never fall below float32,
    whatever dtype the model is moved to: in bfloat16 the angles of a 64 x 64 grid would be off by 0.65 radians.

    Tables are kept between calls when the frequencies cannot be learning (frozen, or in eval without gradients), and
    dropped when the frequencies change: ``load_state_dict``, an optimiser step, ``.to()``, and every ``.train()`` or
    ``.eval()``. A write through ``freqs.data`` is invisible to autograd; call ``.eval()`` after one.

    Args:
        head_dim: channels a head, a multiple of 4.
        num_heads: heads, each with frequencies of its own if mixed.
        mode: ``'mixed'`` or ``'axial'``.
        theta: base of the geometric progression.

    Raises:
        ValueError: if ``mode``, ``head_dim`` or ``theta`` is not as above.
    """

    def __init__(self, head_dim: int, num_heads: int, mode: str, theta: float) -> None:
        super().__init__()
        if mode not in ('mixed', 'axial'):
            raise ValueError(f"mode must be 'mixed' or 'axial', but got {mode!r}")
        if mode == 'mixed':
            self.freqs = nn.Parameter(mixed_freqs(head_dim, torch.rand(num_heads) * 2 * math.pi, theta))
        else:
            self.register_buffer('freqs', axial_freqs(head_dim, theta), persistent=False)
        self._tables: dict[tuple, Tensor] = {}
        self._tables_of: tuple[int, int] = (-1, -1)

    def forward(self, grid: tuple[int, int], dtype: torch.dtype, num_prefix: int = 0) -> Tensor:
        """Table for a grid, after ``num_prefix`` tokens that are not rotated.

        Args:
            grid: ``(H, W)``.
            dtype: of the queries and keys to rotate. The table is made in that of ``freqs`` and then cast.
            num_prefix: tokens before the grid (a cls token); their angle is zero.

        Returns:
            ``(cos, sin)`` on the last axis, ``(heads or 1, num_prefix + H * W, head_dim // 2, 2)``.
        """
        learning = self.freqs.requires_grad and (self.training or torch.is_grad_enabled())
        if torch.compiler.is_compiling() or learning or self.freqs.is_inference():
            return self._make_table(grid, dtype, num_prefix)
        version = (self.freqs.data_ptr(), self.freqs._version)
        if version != self._tables_of:
            self._tables, self._tables_of = {}, version
        key = (*grid, num_prefix, self.freqs.device, dtype)
        if key not in self._tables:
            while len(self._tables) >= MAX_TABLES:
                self._tables.pop(next(iter(self._tables)))
            # A table made in inference mode could not serve a later training step.
            with torch.inference_mode(False), torch.no_grad():
                self._tables[key] = self._make_table(grid, dtype, num_prefix)
        return self._tables[key]

    def _make_table(self, grid: tuple[int, int], dtype: torch.dtype, num_prefix: int) -> Tensor:
        table = rotary_table(self.freqs, grid).to(dtype)
        if num_prefix == 0:
            return table
        identity = table.new_tensor([1.0, 0.0]).expand(table.shape[0], num_prefix, *table.shape[2:])
        return torch.cat((identity, table), dim=1)

    def train(self, mode: bool = True) -> 'RoPE':
        self._tables = {}
        return super().train(mode)

    def _apply(self, fn, recurse: bool = True) -> 'RoPE':
        """Move to a device, but keep the precision, when the model is cast to half."""

        def keep_precision(tensor: Tensor) -> Tensor:
            out = fn(tensor)
            return tensor.to(out.device) if out.dtype.itemsize < tensor.dtype.itemsize else out

        self._tables = {}
        return super()._apply(keep_precision, recurse)

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_tables': {}}
