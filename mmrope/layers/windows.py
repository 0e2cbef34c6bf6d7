"""Cutting a token grid into the windows that fit it, and putting it back.

Each axis is cut on its own into spans of equal windows; the windows of the grid are the products of a span of rows and
a span of columns. Windows of equal shape lie in one batch. No window holds padding.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Span(NamedTuple):
    """``count`` windows of ``size`` tokens side by side along one axis, from token ``start`` on."""

    start: int
    size: int
    count: int


class Windows(NamedTuple):
    """How a grid is cut: spans of rows and spans of columns, each in order and without gaps."""

    rows: list[Span]
    cols: list[Span]

    @property
    def largest(self) -> tuple[int, int]:
        """``(h, w)`` of a window that every window of the cut fits into."""
        return max(span.size for span in self.rows), max(span.size for span in self.cols)


def even_windows(grid: tuple[int, int], window_size: int) -> Windows:
    """Windows as equal as possible and none larger than ``window_size``: 64 tokens, window 14 give 13 13 13 13 12.

    Args:
        grid: ``(H, W)``.
        window_size: largest extent of a window, in tokens.

    Raises:
        ValueError: if ``window_size`` is not positive.
    """
    _check_positive('window_size', window_size)
    return Windows(*(_even_spans(length, window_size) for length in grid))


def shifted_windows(grid: tuple[int, int], window_size: int, shift: int = 0) -> Windows:
    """Swin's windows: ``window_size`` tokens from the shifted origin on, the rest at the borders.

    An axis that fits into one window is one window, unshifted. On an axis that ``window_size`` divides, these are the
    regions that attend to each other in shifted window attention by cyclic shift and mask (Liu et al., *Swin
    Transformer*, section 3.2).

    Args:
        grid: ``(H, W)``.
        window_size: extent of a whole window, in tokens.
        shift: extent of the first window of an axis, in tokens, ``0 <= shift < window_size``; 0 for none.

    Raises:
        ValueError: if ``window_size`` or ``shift`` is out of range.
    """
    _check_positive('window_size', window_size)
    if not 0 <= shift < window_size:
        raise ValueError(f'shift must be at least 0 and below window_size = {window_size}, but got {shift}')
    return Windows(*(_shifted_spans(length, window_size, shift) for length in grid))


def cut(x: Tensor, windows: Windows) -> list[Tensor]:
    """Cut a grid of tokens into its windows.

    Args:
        x: ``(B, H, W, ...)``.
        windows: how to cut it.

    Returns:
        One ``(B * count, h, w, ...)`` for each product of a span of rows and a span of columns, row spans outermost.
    """
    batches = []
    for row in windows.rows:
        for col in windows.cols:
            part = x.narrow(1, row.start, row.size * row.count).narrow(2, col.start, col.size * col.count)
            part = part.unflatten(2, (col.count, col.size)).unflatten(1, (row.count, row.size))
            batches.append(part.transpose(2, 3).flatten(0, 2))  # (B, n, m, h, w, ...) -> (B * n * m, h, w, ...)
    return batches


def restore(batches: list[Tensor], windows: Windows) -> Tensor:
    """Put a grid back together: the inverse of :func:`cut`.

    Args:
        batches: as :func:`cut` returns them, with any trailing shape.
        windows: how the grid was cut.

    Returns:
        ``(B, H, W, ...)``.
    """
    parts = iter(batches)
    bands = []
    for row in windows.rows:
        band = [_join(next(parts), row, col) for col in windows.cols]
        bands.append(torch.cat(band, dim=2) if len(band) > 1 else band[0])
    return torch.cat(bands, dim=1) if len(bands) > 1 else bands[0]


def _join(batch: Tensor, row: Span, col: Span) -> Tensor:
    part = batch.unflatten(0, (-1, row.count, col.count)).transpose(2, 3)  # (B, n, h, m, w, ...)
    return part.flatten(3, 4).flatten(1, 2)


def _even_spans(length: int, window_size: int) -> list[Span]:
    count = -(-length // window_size)
    size, larger = divmod(length, count)
    spans = [Span(0, size + 1, larger), Span(larger * (size + 1), size, count - larger)]
    return [span for span in spans if span.count]


def _shifted_spans(length: int, window_size: int, shift: int) -> list[Span]:
    if length <= window_size:
        return [Span(0, length, 1)]
    count, rest = divmod(length - shift, window_size)
    spans = [Span(0, shift, 1), Span(shift, window_size, count), Span(length - rest, rest, 1)]
    return [span for span in spans if span.size and span.count]


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f'{name} must be at least 1, but got {value}')
