"""Cuts of a token grid into windows without padding, and the token order that keeps every window contiguous.

Each axis is cut separately into spans of equal windows; the windows of the grid are the products of a row span and a
column span. Attention, norms and MLPs work in any token order. A backbone therefore orders the tokens window by window
once, and the windows of a group are then plain views.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .tracing import once_per_size

Grid = tuple[int, int]  # height and width, in tokens


class Span(NamedTuple):
    """Span of ``number`` adjacent windows along one axis, each ``size`` tokens long, from token ``start`` on."""

    start: int
    size: int
    number: int


class Group(NamedTuple):
    """Group of ``number`` consecutive windows of equal shape, ``height`` x ``width`` tokens each."""

    number: int
    height: int
    width: int


@dataclass(frozen=True)
class Windows:
    """A cut of a grid: row spans and column spans, each in order and without gaps.

    It is no named tuple, since the compilers of PyTorch 2.6 to 2.8 cannot read the properties of one.
    """

    rows: tuple[Span, ...]
    cols: tuple[Span, ...]

    @property
    def grid(self) -> Grid:
        """Height and width in tokens, ``(H, W)``."""
        row, col = self.rows[-1], self.cols[-1]
        return row.start + row.size * row.number, col.start + col.size * col.number

    @property
    def largest(self) -> Grid:
        """Height and width of the largest window, ``(h, w)``."""
        return max(span.size for span in self.rows), max(span.size for span in self.cols)

    @property
    def groups(self) -> list[Group]:
        """One group for each product of a row span and a column span, row spans outermost."""
        return [Group(row.number * col.number, row.size, col.size) for row in self.rows for col in self.cols]

    @property
    def several(self) -> bool:
        """True if there is more than one window."""
        return len(self.rows) > 1 or len(self.cols) > 1 or self.rows[0].number * self.cols[0].number > 1

    def prefix_of(self, x: Tensor) -> int:
        """Count the tokens of ``(B, P + H * W, ...)`` before those of the grid."""
        return x.shape[1] - self.grid[0] * self.grid[1]

    def split(self, x: Tensor) -> list[Tensor]:
        """View tokens ``(B, P + H * W, ...)`` in window order as one ``(B, count, tokens, ...)`` per group.

        Raises:
            ValueError: if the cut has several windows and ``x`` does not hold exactly ``H * W`` tokens.
        """
        groups, (height, width) = self.groups, self.grid
        if x.shape[1] != height * width and (len(groups) > 1 or groups[0].number > 1):
            raise ValueError(
                f'x must hold the {height} x {width} tokens of the grid, which is cut into several windows, '
                f'but got {x.shape[1]}; a cls token needs global attention'
            )
        if len(groups) == 1:
            return [x.unflatten(1, (groups[0].number, -1))]
        parts = x.split([count * height * width for count, height, width in groups], dim=1)
        return [part.unflatten(1, (group.number, -1)) for part, group in zip(parts, groups)]


def one_window(grid: Grid) -> Windows:
    """Return the whole grid ``(H, W)`` as one window, with tokens row by row."""
    return Windows(*((Span(0, length, 1),) for length in grid))


def even_windows(grid: Grid, window_size: int) -> Windows:
    """Cut a grid into near-equal windows of at most ``window_size``: 64 tokens at size 14 give 13 13 13 13 12.

    Args:
        grid: ``(H, W)``.
        window_size: maximum side of a window, in tokens.

    Raises:
        ValueError: if ``window_size`` is not positive.
    """
    _check_positive('window_size', window_size)
    return Windows(*(_even_spans(length, window_size) for length in grid))


def shifted_windows(grid: Grid, window_size: int, shift: int = 0) -> Windows:
    """Cut a grid into Swin's windows: whole windows from the shifted origin on, remainders at the borders.

    An axis that fits into one window is neither cut nor shifted. On an axis that ``window_size`` divides, the windows
    are the regions that attend to each other in Swin's attention by cyclic shift and mask (Liu et al., *Swin
    Transformer*, section 3.2).

    Args:
        grid: ``(H, W)``.
        window_size: side of a whole window, in tokens.
        shift: length of the first window along each axis, in tokens, ``0 <= shift < window_size``; 0 for no shift.

    Raises:
        ValueError: if ``window_size`` or ``shift`` is out of range.
    """
    _check_positive('window_size', window_size)
    if not 0 <= shift < window_size:
        raise ValueError(f'shift must be at least 0 and below window_size = {window_size}, but got {shift}')
    return Windows(*(_shifted_spans(length, window_size, shift) for length in grid))


def window_order(windows: Windows, device: torch.device | str | None = None) -> Tensor:
    """Return the row-by-row index of each token in window order.

    Args:
        windows: how the grid is cut.
        device: device of the result.

    Returns:
        Indexes of the tokens, ``(H * W,)``: group by group as in ``windows.groups``; within a group, windows from left
        to right and top to bottom; within a window, row by row.
    """
    height, width = windows.grid
    tokens = torch.arange(height * width, device=device).view(height, width)
    parts = []
    for row in windows.rows:
        for col in windows.cols:
            part = tokens.narrow(0, row.start, row.size * row.number).narrow(1, col.start, col.size * col.number)
            part = part.unflatten(1, (col.number, col.size)).unflatten(0, (row.number, row.size))
            parts.append(part.transpose(1, 2).flatten())  # (n, h, m, w) -> (n, m, h, w)
    return torch.cat(parts)


def reorder(x: Tensor, old: Windows, new: Windows) -> Tensor:
    """Move tokens from the order of one cut of their grid to the order of another, in one copy.

    Args:
        x: tokens in the order of ``old``, ``(B, H * W, C)``.
        old: a cut of the grid; :func:`one_window` for row by row.
        new: another cut of the same grid.

    Returns:
        ``x`` in the order of ``new``; ``x`` itself if the cuts are equal.
    """
    if old is new or old == new:  # `is` spares compilers a comparison of symbolic sizes
        return x
    return _Permute.apply(x, old, new)


class _Permute(torch.autograd.Function):
    """``index_select`` by a permutation, whose backward pass is one too instead of a sum into zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, old: Windows, new: Windows) -> Tensor:
        ctx.cuts = old, new
        order = once_per_size(_order_between, old, new, like=x)
        if torch.compiler.is_dynamo_compiling():
            # Skip the bounds check: the C++ that inductor writes for it under a padding mask does not compile.
            return torch.ops.aten._unsafe_index(x, [None, order])
        return x.index_select(1, order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        old, new = ctx.cuts
        return _Permute.apply(grad, new, old), None, None


def _order_between(old: Windows, new: Windows, device: torch.device) -> Tensor:
    """Return, for each token in the order of ``new``, its index in the order of ``old``."""
    row_by_row = one_window(new.grid)
    order = window_order(new, device)
    if old == row_by_row:
        return order
    back = window_order(old, device)
    back = torch.empty_like(back).scatter_(0, back, torch.arange(len(back), device=device))
    return back if new == row_by_row else back[order]


def _even_spans(length: int, window_size: int) -> tuple[Span, ...]:
    count = -(-length // window_size)
    size, larger = length // count, length % count  # the compiler of PyTorch 2.6 knows no divmod of symbolic sizes
    spans = [Span(0, size + 1, larger), Span(larger * (size + 1), size, count - larger)]
    return tuple(span for span in spans if span.number)


def _shifted_spans(length: int, window_size: int, shift: int) -> tuple[Span, ...]:
    if length <= window_size:
        return (Span(0, length, 1),)
    count, rest = divmod(length - shift, window_size)
    spans = [Span(0, shift, 1), Span(shift, window_size, count), Span(length - rest, rest, 1)]
    return tuple(span for span in spans if span.size and span.number)


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f'{name} must be at least 1, but got {value}')
