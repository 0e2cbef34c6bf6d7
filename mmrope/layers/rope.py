"""Two-dimensional rotary position embedding (RoPE): frequencies, positions, angles and the rotation.

Source: Heo, Park, Han, Yun, *Rotary Position Embedding for Vision Transformer*, ECCV 2024, arXiv 2403.13298.

RoPE rotates the channel pair ``(2d, 2d + 1)`` of the query and the key at row ``h`` and column ``w`` of the grid by

    angle[n, d](h, w) = x(w) * freqs[0, n, d] + y(h) * freqs[1, n, d]

for head ``n``, where ``x`` and ``y`` are positions ``step * index + start`` (step 1, start 0 in the paper). Each angle
is the sum of an angle of its column and an angle of its row. :func:`axis_angles` computes these ``H + W`` angles
instead of ``H * W``, and :func:`join_axes` combines them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .tracing import is_tracing, once_per_size, without_autocast

Pair = tuple[float, float]  # along y, along x
RULES = ('index', 'reference', 'centred')


@dataclass(frozen=True)
class Positions:
    """Rule from the index of a token to its position along an axis: ``step * index + start``.

    ``'index'`` counts tokens, as in RoPE-ViT. ``'reference'`` scales the frame to the grid of pretraining, as in EVA-02
    and SAM 3: ``(index + offset) * ref / frame``. ``'centred'`` puts the centres of the tokens between ``-2 pi`` and
    ``2 pi``, each axis by its own frame, as in DINOv3: ``2 pi * ((2 * index + 1) / frame - 1)``. There the factor
    ``2 pi`` belongs to the frequencies, which here are ``theta ** (-4 j / head_dim)`` for all rules.

    The frame is the whole grid, padding included, unless ``frame`` fixes it. Tokens attend by differences of positions,
    so ``offset`` matters only with prefix tokens, whose position is 0.

    Args:
        rule: ``'index'``, ``'reference'`` or ``'centred'``.
        ref: for ``'reference'``, the side of the frame in positions, one number or ``(H, W)``.
        offset: added to the index; not for ``'centred'``.
        frame: fixed frame in tokens, one number or ``(H, W)``; ``None`` for the grid.

    Raises:
        ValueError: if an argument is out of range or has no meaning for the rule.
    """

    rule: str = 'index'
    ref: float | Pair | None = None
    offset: float = 0.0
    frame: int | tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f'rule of positions must be {", ".join(map(repr, RULES))}, but got {self.rule!r}')
        if (self.ref is None) != (self.rule != 'reference') or (self.ref is not None and not _positive(self.ref)):
            raise ValueError(
                "ref of positions must be a positive number or (H, W) for 'reference', and None for other rules, "
                f'but got {self.ref!r} for {self.rule!r}'
            )
        if not isinstance(self.offset, (int, float)) or (self.offset and self.rule == 'centred'):
            raise ValueError(f"offset of positions must be a number, and 0 for 'centred', but got {self.offset!r}")
        if self.frame is not None and (self.rule == 'index' or not _positive(self.frame)):
            raise ValueError(
                "frame of positions must be a positive number, (H, W) or None, which it is for 'index', "
                f'but got {self.frame!r} for {self.rule!r}'
            )

    def line(self, grid: tuple[int, int]) -> tuple[Pair, Pair]:
        """Compute step and start, each along y and along x.

        Args:
            grid: whole grid ``(H, W)``, of which a window may be a part.
        """
        height, width = grid if self.frame is None else _pair(self.frame)
        if self.rule == 'index':
            return (1.0, 1.0), (float(self.offset), float(self.offset))
        if self.rule == 'centred':
            half_y, half_x = 2 * math.pi / height, 2 * math.pi / width
            return (2 * half_y, 2 * half_x), (half_y - 2 * math.pi, half_x - 2 * math.pi)
        assert self.ref is not None  # the constructor has seen it
        tall, wide = _pair(self.ref)
        return (tall / height, wide / width), (self.offset * tall / height, self.offset * wide / width)


def _pair(value: Any) -> tuple[Any, Any]:
    first, second = value if isinstance(value, (tuple, list)) else (value, value)
    return first, second


def _positive(value: Any) -> bool:
    """Say whether a value is a positive number or two of them."""
    sides = value if isinstance(value, (tuple, list)) else (value, value)
    return len(sides) == 2 and all(isinstance(side, (int, float)) and side > 0 for side in sides)


INDEX = Positions()


def mixed_freqs(head_dim: int, angles: Tensor, theta: float) -> Tensor:
    """Compute the initial frequencies of RoPE-Mixed: the axial ones, rotated by an angle per head (paper, section 3.2).

    Args:
        head_dim: channels per head, a multiple of 4.
        angles: one angle per head in radians, ``(heads,)``.
        theta: base of the geometric progression.

    Returns:
        ``freqs`` in radians per token step, ``(2, heads, head_dim // 2)``; index 0 along x (columns), 1 along y (rows).

    Raises:
        ValueError: if ``head_dim`` is not a positive multiple of 4 or ``theta`` is not positive.
    """
    if head_dim < 4 or head_dim % 4:
        raise ValueError(f'head_dim must be a positive multiple of 4 (2 axes x channel pairs), but got {head_dim}')
    if not theta > 0 or math.isinf(theta):
        raise ValueError(f'theta must be a positive finite number, but got {theta}')
    magnitudes = theta ** (-torch.arange(0, head_dim, 4, dtype=torch.float32, device=angles.device) / head_dim)
    directions = torch.stack((angles, angles + math.pi / 2), dim=-1)[..., None]  # (heads, 2, 1)
    return torch.stack((magnitudes * directions.cos(), magnitudes * directions.sin())).flatten(-2)


def axial_freqs(head_dim: int, theta: float, device: torch.device | str | None = None) -> Tensor:
    """Compute the frequencies of RoPE-Axial: half of the pairs rotate along x, half along y (paper, section 3.1).

    Args:
        head_dim: channels per head, a multiple of 4.
        theta: base of the geometric progression.
        device: device of the result.

    Returns:
        ``freqs`` in radians per token step, shared by all heads, ``(2, 1, head_dim // 2)``.

    Raises:
        ValueError: as :func:`mixed_freqs`.
    """
    freqs = mixed_freqs(head_dim, torch.zeros(1, device=device), theta)
    half = head_dim // 4
    freqs[0, :, half:], freqs[1, :, :half] = 0, 0  # cos(pi / 2) is not exactly 0 in floating point
    return freqs


def axis_angles(freqs: Tensor, grid: tuple[int, int], step: Pair = (1.0, 1.0), start: Pair = (0.0, 0.0)) -> Tensor:
    """Compute the angle of each column and each row of a grid; a token's angle is the sum of the two.

    The result has the dtype of ``freqs``, but at least float32. Autocast does not touch an elementwise product on any
    device; it would round a matrix product.

    Args:
        freqs: radians per token step, ``(2, heads or 1, head_dim // 2)``.
        grid: ``(H, W)``.
        step: distance between the positions of neighbouring tokens, along y and along x.
        start: position of the first token, along y and along x.

    Returns:
        ``(2, max(H, W), heads or 1, head_dim // 2)``: as in ``freqs``, index 0 for the ``W`` columns, 1 for the ``H``
        rows. Entries past the end of the shorter axis are unused.
    """
    freqs = freqs.to(torch.promote_types(freqs.dtype, torch.float32))
    positions = once_per_size(_positions, grid, step, start, freqs.dtype, like=freqs)
    return (positions[..., None, None] * freqs[:, None]) if is_tracing() else _Angles.apply(freqs, positions)


def join_axes(angles: Tensor, grid: tuple[int, int]) -> Tensor:
    """Compute the cosine and sine of every token's angle.

    Cosines and sines are computed for ``H + W`` angles only; each row's rotation is then applied to each column's.

    Args:
        angles: angles of columns and rows, as :func:`axis_angles` returns them.
        grid: ``(H, W)``.

    Returns:
        ``(cos, sin)`` on the last axis, ``(H * W, heads or 1, head_dim // 2, 2)``, tokens row by row.
    """
    angles = angles.to(torch.promote_types(angles.dtype, torch.float32))
    cols, rows = torch.stack((angles.cos(), angles.sin()), dim=-1).unbind(0)
    rows, cols = rows[: grid[0]], cols[: grid[1]]
    return rotate(cols.flatten(-2), rows[:, None]).unflatten(-1, (-1, 2)).flatten(0, 1)


def rotary_table(freqs: Tensor, grid: tuple[int, int], step: Pair = (1.0, 1.0), start: Pair = (0.0, 0.0)) -> Tensor:
    """Compute the cosine and sine of every token's angles from frequencies, grid and positions alone.

    Args:
        freqs: radians per token step, ``(2, heads or 1, head_dim // 2)``.
        grid: ``(H, W)``.
        step: as for :func:`axis_angles`.
        start: as for :func:`axis_angles`.

    Returns:
        ``(cos, sin)`` on the last axis, ``(heads or 1, H * W, head_dim // 2, 2)``, tokens row by row.
    """
    return join_axes(axis_angles(freqs, grid, step, start), grid).transpose(0, 1)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotate the channel pairs ``(2d, 2d + 1)`` of ``x``, in the wider dtype of ``x`` and ``table``.

    Args:
        x: queries or keys, ``(..., head_dim)``.
        table: ``(cos, sin)`` on the last axis, ``(..., head_dim // 2, 2)``; the leading axes broadcast against those
            of ``x``.

    Returns:
        The rotated ``x``, a new tensor of the same dtype.
    """
    dtype = torch.promote_types(x.dtype, table.dtype)
    x_dtype, x, table = x.dtype, x.to(dtype), table.to(dtype)
    if is_tracing():  # compilers do not support complex numbers, and fuse these lines themselves
        (a, b), (cos, sin) = x.unflatten(-1, (-1, 2)).unbind(-1), table.unbind(-1)
        turned = torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1)
    else:  # one pass over memory
        turned = torch.view_as_real(as_complex(x) * torch.view_as_complex(table))
    return turned.flatten(-2).to(x_dtype)


def rotate_into(out: Tensor, x: Tensor, table: Tensor) -> None:
    """Write :func:`rotate` of ``x`` to ``out``, in one pass if the dtypes agree. Not differentiable."""
    if x.dtype == table.dtype and out.stride(-1) == 1:
        torch.mul(as_complex(x), torch.view_as_complex(table), out=as_complex(out))
    else:
        out.copy_(rotate(x, table))


def angle_gradient(turned: Tensor, grad: Tensor) -> Tensor:
    """Compute the gradient of rotation angles: a change of an angle moves the rotated ``y`` along ``i * y``.

    Args:
        turned: rotated vectors ``y``, ``(..., head_dim)``.
        grad: gradient of ``y``, of the same shape.

    Returns:
        The gradient of the angles, ``(..., head_dim // 2)``, in at least float32.
    """
    dtype = torch.promote_types(turned.dtype, torch.float32)
    return (as_complex(turned.to(dtype)).conj() * as_complex(grad.to(dtype))).imag


def as_complex(x: Tensor) -> Tensor:
    """View channel pairs as complex numbers, ``(..., head_dim)`` as ``(..., head_dim // 2)``; copy if strided."""
    x = x if x.stride(-1) == 1 else x.contiguous()
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)))


def _positions(grid: tuple[int, int], step: Pair, start: Pair, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the positions along x and along y, ``(2, max(H, W))``."""
    indexes = torch.arange(max(grid), dtype=dtype, device=device)
    return torch.stack([step[axis] * indexes + start[axis] for axis in (1, 0)])


class _Angles(torch.autograd.Function):
    """Positions times frequencies, with a backward pass of one kernel; autograd would run a product and a sum."""

    @staticmethod
    def forward(ctx: Any, freqs: Tensor, positions: Tensor) -> Tensor:
        ctx.save_for_backward(positions)
        return positions[..., None, None] * freqs[:, None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (positions,) = ctx.saved_tensors
        with without_autocast(grad.device):
            return torch.bmm(positions[:, None], grad.flatten(2)).view(grad[:, 0].shape), None


class RoPE(nn.Module):
    """Rotary frequencies of one attention layer, and the angles they give on a grid.

    ``'mixed'`` learns a set of frequencies per head, each from a random direction. ``'axial'`` is mixed at angle zero,
    fixed and shared by all heads; checkpoints do not store it. Frequencies stay in float32 if the model is cast to half
    precision: in bfloat16 the angles of a 64 x 64 grid would be off by 0.65 radians.

    Attention rotates by the angles that a call of the module returns, in the forward and the backward pass. A subclass
    or a forward hook may therefore change positions or angles, and gradients stay correct.

    Args:
        head_dim: channels per head, a multiple of 4.
        num_heads: number of heads; in ``'mixed'`` each has its own frequencies.
        mode: ``'mixed'`` or ``'axial'``.
        theta: base of the geometric progression.
        positions: rule from the index of a token to its position.

    Raises:
        ValueError: if ``mode``, ``head_dim`` or ``theta`` is out of range.
    """

    def __init__(self, head_dim: int, num_heads: int, mode: str, theta: float, positions: Positions = INDEX) -> None:
        super().__init__()
        if mode not in ('mixed', 'axial'):
            raise ValueError(f"mode must be 'mixed' or 'axial', but got {mode!r}")
        self.head_dim, self.theta, self.positions = head_dim, theta, positions
        if mode == 'mixed':
            self.freqs = nn.Parameter(mixed_freqs(head_dim, torch.zeros(num_heads), theta))
        else:
            self.register_buffer('freqs', axial_freqs(head_dim, theta), persistent=False)
        self.reset_parameters()

    def forward(self, grid: tuple[int, int], whole: tuple[int, int] | None = None) -> Tensor:
        """Compute the angles of a grid ``(H, W)``, as :func:`axis_angles` returns them.

        Args:
            grid: what to compute angles for, the whole grid or a window.
            whole: the whole grid, if ``grid`` is a window: positions may scale to it.
        """
        return axis_angles(self.freqs, grid, *self.positions.line(whole or grid))

    def reset_parameters(self) -> None:
        """Draw a random direction per head for ``'mixed'``; compute the frequencies of ``'axial'``."""
        if isinstance(self.freqs, nn.Parameter):
            angles = torch.rand(self.freqs.shape[1], device=self.freqs.device) * 2 * math.pi
            freqs = mixed_freqs(self.head_dim, angles, self.theta)
        else:
            freqs = axial_freqs(self.head_dim, self.theta, self.freqs.device)
        with torch.no_grad():
            self.freqs.copy_(freqs)

    def materialize(self, device: torch.device) -> None:
        """Compute the frequencies of ``'axial'`` on ``device`` if they are on meta: no checkpoint stores them."""
        if self.freqs.is_meta and not isinstance(self.freqs, nn.Parameter):
            self.freqs = axial_freqs(self.head_dim, self.theta, device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> 'RoPE':
        """Apply ``fn``, but undo a cast to a lower precision."""

        def keep_precision(tensor: Tensor) -> Tensor:
            out = fn(tensor)
            return tensor.to(out.device) if out.dtype.itemsize < tensor.dtype.itemsize else out

        was_meta = self.freqs.is_meta
        super()._apply(keep_precision, recurse)
        if was_meta and not self.freqs.is_meta and not isinstance(self.freqs, nn.Parameter):
            self.reset_parameters()  # to_empty() leaves the memory uninitialised
        return self
