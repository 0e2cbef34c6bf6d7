"""From the output of a ``qkv`` projection to the rotated queries, keys and values of each window.

:func:`split_qkv` has two implementations with the same result. :func:`_split` is the definition; compilers and
exporters trace it. :class:`_FusedSplit` runs in eager mode. It writes rotated queries and keys, and the values, in one
pass to new memory shared by all windows. The output of the projection can then be freed, and the backward pass keeps
only what attention keeps anyway. On CUDA its forward and backward pass are one kernel each (:mod:`.kernels`).
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..layers import kernels
from .rope import angle_gradient, join_axes, rotate, rotate_into
from .tracing import is_tracing, once_per_size
from .windows import Windows, window_order


def split_qkv(
    qkv: Tensor, angles: Tensor | None, windows: Windows, order: Windows | None = None, packed: bool = False
) -> list[Tensor]:
    """Split ``qkv`` by group of windows, and rotate queries and keys by their position in the window.

    Args:
        qkv: ``(B, P + H * W, 3, heads, head_dim)``, tokens in window order. The first ``P`` are prefix tokens, which
            are not rotated.
        angles: angles of columns and rows of the largest window, as :class:`RoPE` returns them; ``None`` for no
            rotation.
        windows: how the grid is cut.
        order: with a single window, the cut whose order its tokens are in; ``None`` for row by row.
        packed: whether to return all windows together, in the order of the tokens.

    Returns:
        Three tensors per group, ``(B * count, heads, tokens, head_dim)``; if ``packed``, three tensors in total,
        ``(B * (P + H * W), heads, head_dim)``.

    Raises:
        ValueError: if there are prefix tokens and several windows, or ``angles`` has the wrong shape.
    """
    if is_tracing():
        return list(_split(qkv, angles, windows, order, packed))
    if angles is not None:
        angles = _of_largest(angles, windows, qkv)
    return list(_FusedSplit.apply(qkv, angles, windows, order, packed))


def _of_largest(angles: Tensor, windows: Windows, qkv: Tensor) -> Tensor:
    """Check the shape of the angles, since a hook may have made them, and crop them to the largest window."""
    side, heads, pairs = max(windows.largest), qkv.shape[3], qkv.shape[4] // 2
    wanted = angles.ndim == 4 and angles.shape[0] == 2 and angles.shape[1] >= side
    if not wanted or angles.shape[2] not in (1, heads) or angles.shape[3] != pairs:
        raise ValueError(
            f'angles must be (2, at least {side}, 1 or {heads}, {pairs}) (columns and rows, tokens, heads, channel '
            f'pairs) for a window of {windows.largest[0]} x {windows.largest[1]}, but got shape {tuple(angles.shape)}'
        )
    return angles[:, :side] if angles.shape[1] > side else angles


def _split(
    qkv: Tensor, angles: Tensor | None, windows: Windows, order: Windows | None, packed: bool
) -> tuple[Tensor, ...]:
    out = []
    for part, table in zip(windows.split(qkv), _tables(angles, windows, order)):
        qk, v = part.flatten(0, 1).permute(2, 0, 3, 1, 4).split((2, 1))  # (2, B * count, heads, tokens, head_dim)
        if table is not None:
            prefix = qk.shape[3] - table.shape[0]  # len() would be a constant in torch.export
            rotated = rotate(qk[:, :, :, prefix:], table.transpose(0, 1))
            qk = torch.cat((qk[:, :, :, :prefix], rotated), dim=3) if prefix else rotated
        out += [*qk.unbind(0), v[0]]
    if packed:
        parts = _Rows(qkv.shape, windows, packed=False).of_windows(out)  # (B, count, tokens, heads, head_dim)
        out = [torch.cat([x.flatten(1, 2) for x in xs], dim=1).flatten(0, 1) for xs in zip(*parts)]
    return tuple(out)


class _FusedSplit(torch.autograd.Function):
    """:func:`_split` in one pass each way: the backward pass rotates by the negated angles, whatever made them."""

    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, angles: Tensor | None, windows: Windows, order: Windows | None, packed: bool
    ) -> tuple[Tensor, ...]:
        parts = windows.split(qkv)
        rows = _Rows(qkv.shape, windows, packed)
        if not (angles is None or ctx.needs_input_grad[0] or packed or _take_kernels(qkv)):
            return tuple(_without_values(parts, _tables(angles, windows, order)))
        if angles is None and rows.in_order:
            new = qkv.flatten(0, 1)
        elif _take_kernels(qkv):
            new = kernels.rotate(qkv, angles, windows, order, rows.in_order)
        else:
            new = qkv.new_empty(qkv.flatten(0, 1).shape)
            for out, part, table in zip(rows.by_group(new), parts, _tables(angles, windows, order)):
                _rotate_part(out[:, :, :, :2], part[:, :, :, :2], table)
                out[:, :, :, 2] = part[:, :, :, 2]
        outs = rows.split(new)
        ctx.rows, ctx.order = rows, order
        ctx.save_for_backward(angles, *(outs if ctx.needs_input_grad[1] else ()))
        return tuple(outs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        angles, *outs = ctx.saved_tensors
        rows, order = ctx.rows, ctx.order
        windows = rows.windows
        if _take_kernels(grads[0]):
            launches = rows.of_launches(grads), rows.of_launches(outs)
            grad, grad_angles = kernels.unrotate(rows.shape, angles, windows, order, *launches)
            return grad, grad_angles, None, None, None
        grad = grads[0].new_empty(rows.shape)
        tables = _tables(angles, windows, order, back=True)
        for part, backs, table in zip(windows.split(grad), rows.of_windows(grads), tables):
            for i, back in enumerate(backs):
                _rotate_part(part[:, :, :, i], back, table if i < 2 else None)
        return grad, _grad_angles(angles, rows, order, outs, grads) if outs else None, None, None, None


def _without_values(parts: Sequence[Tensor], tables: Sequence[Tensor | None]) -> Iterator[Tensor]:
    """Rotate queries and keys into new memory, but do not copy the values; for calls without a backward pass."""
    for part, table in zip(parts, tables):
        new = part.new_empty(part[:, :, :, :2].shape)
        _rotate_part(new, part[:, :, :, :2], table)
        yield from (x.flatten(0, 1).transpose(1, 2) for x in (*new.unbind(3), part[:, :, :, 2]))


def _take_kernels(x: Tensor) -> bool:
    return kernels.take(x) and x.shape[-1] % 2 == 0  # the kernels process channels in pairs, rotated or not


class _Rows:
    """Memory layout of the new queries, keys and values: one row ``(3, heads, head_dim)`` per token.

    Rows are stored group by group, and within a group image by image, so that a group is a view at any batch size.
    Rows of packed windows are stored in the order of the tokens.

    Args:
        shape: ``(B, P + H * W, 3, heads, head_dim)``.
        windows: how the grid is cut.
        packed: as for :func:`split_qkv`.
    """

    def __init__(self, shape: torch.Size, windows: Windows, packed: bool) -> None:
        self.shape, self.windows, self.packed = shape, windows, packed

    @property
    def in_order(self) -> bool:
        """True if the rows are stored in the order of the tokens."""
        return self.packed or self.shape[0] == 1 or len(self.windows.groups) == 1

    def by_group(self, x: Tensor) -> list[Tensor]:
        """View rows ``(B * N, ...)`` as one ``(B, count, tokens, ...)`` per group."""
        if self.in_order:
            return self.windows.split(x.unflatten(0, self.shape[:2]))
        groups, batch = self.windows.groups, self.shape[0]
        parts = x.split([batch * count * height * width for count, height, width in groups])
        return [
            part.unflatten(0, (batch, count, height * width)) for part, (count, height, width) in zip(parts, groups)
        ]

    def split(self, x: Tensor) -> list[Tensor]:
        """View rows ``(B * N, 3, heads, head_dim)`` as the tensors that :func:`split_qkv` returns."""
        if self.packed:
            return list(x.unbind(1))
        parts = [part.flatten(0, 1) for part in self.by_group(x)]  # (B * count, tokens, 3, heads, head_dim)
        return [x for part in parts for x in part.permute(2, 0, 3, 1, 4).unbind(0)]

    def of_windows(self, split: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        """View the result of :func:`split_qkv` as three ``(B, count, tokens, heads, head_dim)`` per group."""
        if self.packed:
            return list(zip(*map(self.by_group, split)))
        counts = [group.number for group in self.windows.groups for _ in range(3)]
        parts = [x.unflatten(0, (self.shape[0], count)).transpose(2, 3) for x, count in zip(split, counts)]
        return list(zip(parts[::3], parts[1::3], parts[2::3]))

    def of_launches(self, split: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        """View the result as three ``(B * count, heads, tokens, head_dim)`` per group; packed windows count as one."""
        if self.packed:
            split = [x.unflatten(0, self.shape[:2]).transpose(1, 2) for x in split]
        return list(zip(split[::3], split[1::3], split[2::3]))


def _tables(
    angles: Tensor | None, windows: Windows, order: Windows | None, back: bool = False
) -> list[Tensor] | list[None]:
    """Compute ``(cos, sin)`` for the tokens of each group's windows, ``(tokens, heads or 1, head_dim // 2, 2)``.

    ``back`` negates the angles. Without angles, the table of each group is ``None``.
    """
    if angles is None:
        return [None] * len(windows.groups)
    table = join_axes(-angles if back else angles, windows.largest)
    if _lies_otherwise(windows, order):
        return [table.index_select(0, once_per_size(window_order, order, like=table))]
    table = table.unflatten(0, windows.largest)
    return [table[:height, :width].flatten(0, 1) for _, height, width in windows.groups]


def _lies_otherwise(windows: Windows, order: Windows | None) -> bool:
    return order is not None and order is not windows and order != windows


def _rotate_part(out: Tensor, x: Tensor, table: Tensor | None) -> None:
    """Write ``x``, ``(B, count, P + tokens, ..., heads, head_dim)``, to ``out``, all but the first ``P`` rotated."""
    if table is None:
        out.copy_(x)
        return
    prefix = x.shape[2] - len(table)
    if prefix:
        out[:, :, :prefix] = x[:, :, :prefix]
    rotate_into(out[:, :, prefix:], x[:, :, prefix:], table if x.ndim == 5 else table[:, None])


def _grad_angles(
    angles: Tensor, rows: _Rows, order: Windows | None, outs: Sequence[Tensor], grads: Sequence[Tensor]
) -> Tensor:
    """Compute the gradient of column and row angles: sum the gradients of the tokens' angles along the other axis."""
    windows, side = rows.windows, angles.shape[1]
    totals = []
    for (_, height, width), turned, back in zip(windows.groups, rows.of_windows(outs), rows.of_windows(grads)):
        first = turned[0].shape[2] - height * width
        q, k = (angle_gradient(turned[i][:, :, first:], back[i][:, :, first:]).sum((0, 1)) for i in (0, 1))
        turn = q + k
        if _lies_otherwise(windows, order):
            turn = torch.empty_like(turn).index_copy_(0, once_per_size(window_order, order, like=turn), turn)
        turn = turn.unflatten(0, (height, width))  # (h, w, heads, head_dim // 2)
        along = [F.pad(turn.sum(axis), (0, 0, 0, 0, 0, side - turn.shape[1 - axis])) for axis in (0, 1)]
        totals.append(torch.stack(along))
    return reduce(torch.add, totals).sum_to_size(angles.shape).to(angles.dtype)
