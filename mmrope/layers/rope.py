"""Two-dimensional rotary position embedding (RoPE): frequencies, tables and the rotation.

Source: Heo, Park, Han, Yun, *Rotary Position Embedding for Vision Transformer*, ECCV 2024, arXiv 2403.13298.

The token at row ``h`` and column ``w`` of the grid turns the channel pair ``(2d, 2d + 1)`` of its query and its key by

    angle[n, d](h, w) = w * freqs[0, n, d] + h * freqs[1, n, d]

for head ``n``. Tables hold ``(cos, sin)`` of these angles on their last axis.
"""

import math

import torch
from torch import Tensor, nn

# How many grids' axes a module keeps: a landscape and a portrait image, say.
MAX_GRIDS = 2
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

    Args:
        freqs: radians a token step, ``(2, heads or 1, head_dim // 2)``.
        grid: ``(H, W)``.

    Returns:
        ``(cos, sin)`` on the last axis, ``(heads or 1, H * W, head_dim // 2, 2)``, tokens row by row.
    """
    return join_axes(*axis_tables(freqs, grid))


def axis_tables(freqs: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Cosine and sine of what each row and each column adds to the angles, ``H + W`` instead of ``H * W`` of them.

    In the dtype of ``freqs`` and never below float32: multiplication by element stays there under autocast on every
    device; a matrix product would not.

    Args:
        freqs: radians a token step, ``(2, heads or 1, head_dim // 2)``.
        grid: ``(H, W)``.

    Returns:
        Those of the rows, ``(H, heads or 1, head_dim // 2, 2)``, and those of the columns, ``(W, ...)``.
    """
    freqs = freqs.to(torch.promote_types(freqs.dtype, torch.float32))
    rows, cols = (torch.arange(size, device=freqs.device, dtype=freqs.dtype)[:, None, None] for size in grid)
    return _cos_sin(rows * freqs[1]), _cos_sin(cols * freqs[0])


def join_axes(rows: Tensor, cols: Tensor) -> Tensor:
    """The table of a grid from those of its axes: angles add up, so the one turns the other.

    Args:
        rows: as :func:`axis_tables` returns them.
        cols: likewise.

    Returns:
        As :func:`rotary_table`.
    """
    table = rotate(cols.flatten(-2), rows[:, None])  # (H, W, heads, head_dim)
    return table.unflatten(-1, (-1, 2)).flatten(0, 1).transpose(0, 1)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turn the channel pairs ``(2d, 2d + 1)`` of ``x``, in the wider of its dtype and that of the table.

    Args:
        x: queries or keys, ``(..., head_dim)``.
        table: ``(cos, sin)`` on the last axis, ``(..., head_dim // 2, 2)``; the leading axes broadcast against those
            of ``x``.

    Returns:
        The rotated ``x``, a new tensor of its dtype.
    """
    dtype = torch.promote_types(x.dtype, table.dtype)
    x_dtype, x, table = x.dtype, x.to(dtype), table.to(dtype)
    if dtype in _COMPLEX_TWINS and not is_tracing():
        # One pass over memory. Compilers know no complex numbers and fuse the lines below themselves.
        turned = torch.view_as_real(as_complex(x) * torch.view_as_complex(table))
    else:
        (a, b), (cos, sin) = x.unflatten(-1, (-1, 2)).unbind(-1), table.unbind(-1)
        turned = torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1)
    return turned.flatten(-2).to(x_dtype)


def rotate_into(out: Tensor, x: Tensor, table: Tensor) -> None:
    """:func:`rotate`, written to ``out``, which may be ``x`` itself. Not for use under autograd."""
    if x.dtype in _COMPLEX_TWINS and x.dtype == table.dtype and out.stride(-1) == 1:
        torch.mul(as_complex(x), torch.view_as_complex(table), out=as_complex(out))
    else:
        out.copy_(rotate(x, table))


def as_complex(x: Tensor) -> Tensor:
    """Channel pairs as complex numbers: ``(..., head_dim)`` to ``(..., head_dim // 2)``, a view where it can be one."""
    x = x if x.stride(-1) == 1 else x.contiguous()
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)))


def is_tracing() -> bool:
    """Whether a graph is being recorded, by a compiler, an exporter or ``torch.jit.trace``."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def _cos_sin(angles: Tensor) -> Tensor:
    return torch.stack((angles.cos(), angles.sin()), dim=-1)


class RoPE(nn.Module):
    """Holds the frequencies of one attention layer and makes their tables.

    ``'mixed'`` learns its frequencies, a set a head, from a random direction each. ``'axial'`` is mixed at angle zero,
    frozen and the same for all heads; it stores nothing in a checkpoint. Frequencies never fall below float32,
    whatever dtype the model is moved to: in bfloat16 the angles of a 64 x 64 grid would be off by 0.65 radians.

    The table of a grid is made anew in each call, so that no more than one block's is alive at a time; those of its
    axes, ``H + W`` rows instead of ``H * W``, are kept between calls where the frequencies are frozen or in eval,
    unless a gradient is to flow through the table. They are dropped when the frequencies change: ``load_state_dict``,
    an optimiser step, ``.to()``, and every ``.train()`` or ``.eval()``. A write through ``freqs.data`` is invisible to
    autograd; call ``.eval()`` after one.

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
        self._axes: dict[tuple, tuple[Tensor, Tensor]] = {}
        self._axes_of: tuple[int, int] = (-1, -1)

    def forward(self, grid: tuple[int, int]) -> Tensor:
        """The table of a grid ``(H, W)``, as :func:`rotary_table`."""
        return join_axes(*self._axis_tables(grid))

    def _axis_tables(self, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        learning = self.freqs.requires_grad and (self.training or torch.is_grad_enabled())
        if torch.compiler.is_compiling() or learning or self.freqs.is_inference():
            return axis_tables(self.freqs, grid)
        version = (self.freqs.data_ptr(), self.freqs._version)
        if version != self._axes_of:
            self._axes, self._axes_of = {}, version
        key = (*grid, self.freqs.device)
        if key not in self._axes:
            while len(self._axes) >= MAX_GRIDS:
                self._axes.pop(next(iter(self._axes)))
            # Tables made in inference mode could not serve a later training step.
            with torch.inference_mode(False), torch.no_grad():
                self._axes[key] = axis_tables(self.freqs, grid)
        return self._axes[key]

    def train(self, mode: bool = True) -> 'RoPE':
        self._axes = {}
        return super().train(mode)

    def _apply(self, fn, recurse: bool = True) -> 'RoPE':
        """Move to a device, but keep the precision, when the model is cast to half."""

        def keep_precision(tensor: Tensor) -> Tensor:
            out = fn(tensor)
            return tensor.to(out.device) if out.dtype.itemsize < tensor.dtype.itemsize else out

        self._axes = {}
        return super()._apply(keep_precision, recurse)

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_axes': {}}
