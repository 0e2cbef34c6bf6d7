"""Multi-head self-attention over a grid of tokens, with rotary position embedding, global or in windows."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .position import RelativePositionBias
from .rope import RoPE, as_complex, is_tracing, rotary_table, rotate, rotate_into
from .windows import Group, Windows, one_window, window_order


class Attention(nn.Module):
    """Rotate queries and keys, attend, project.

    RoPE depends on offsets only, so positions count from the corner of each window: one table of the largest window
    serves them all. In eager mode queries and keys are turned where they lie, in the output of ``qkv``: a forward hook
    on ``qkv`` that keeps its output should clone it, and what takes the place of ``qkv`` must not end in an operation
    that saves its output. Differentiable once, and not under ``torch.func``'s transforms.

    Args:
        dim: channels of a token.
        num_heads: heads; ``dim`` is a multiple of it.
        rope: ``'mixed'``, ``'axial'`` or ``None`` for no rotation.
        theta: base of the frequencies.
        rpb_window_size: largest extent of a window, in tokens, for a learned bias by relative position besides;
            ``None`` for no bias.
        across_windows: whether tokens attend to the whole grid although they lie window by window. Not with a bias.

    Raises:
        ValueError: if ``dim`` is not a multiple of ``num_heads``, ``across_windows`` comes with a bias, or as
            :class:`RoPE`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        rope: str | None,
        theta: float | None,
        rpb_window_size: int | None = None,
        across_windows: bool = False,
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f'dim must be a multiple of num_heads, but got dim = {dim} and num_heads = {num_heads}')
        if across_windows and rpb_window_size is not None:
            raise ValueError(f'across_windows = True takes no bias, but got rpb_window_size = {rpb_window_size}')
        self.num_heads = num_heads
        self.across_windows = across_windows
        self.qkv = nn.Linear(dim, 3 * dim)
        self.rope = None if rope is None else RoPE(dim // num_heads, num_heads, rope, theta)
        self.rpb = None if rpb_window_size is None else RelativePositionBias(rpb_window_size, num_heads)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        """Attend within each window, or across them all.

        Args:
            x: tokens window by window (:func:`window_order`), ``(B, P + H * W, C)``. The first ``P`` (a cls token, say)
                have no position and are not rotated; ``P`` must be 0 with more than one window or a bias.
            windows: how the grid is cut; :func:`one_window` for tokens row by row and global attention.

        Returns:
            ``(B, P + H * W, C)``.
        """
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # (B, P + H * W, 3, heads, head_dim)
        parts = _Parts(windows, self.across_windows)
        if is_tracing():
            qkvs = _split(qkv, parts, self.rope)
        else:
            qkvs = _Split.apply(qkv, None if self.rope is None else self.rope.freqs, parts, self.rope)
        outs = []
        for (count, *window), q, k, v in zip(parts.groups, qkvs[::3], qkvs[1::3], qkvs[2::3]):
            bias = None if self.rpb is None else self.rpb(window, q.dtype)
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)  # (B * count, heads, N, head_dim)
            outs.append(out.transpose(1, 2).flatten(2).unflatten(0, (-1, count)).flatten(1, 2))
        return self.proj(torch.cat(outs, dim=1) if len(outs) > 1 else outs[0])


class _Parts(NamedTuple):
    """Parts of a sequence, each of ``count`` runs of equal length that attend among themselves.

    Args:
        windows: how the grid is cut, and the order of its tokens.
        across: whether the whole sequence is one run.
    """

    windows: Windows
    across: bool

    @property
    def groups(self) -> list[Group]:
        return [Group(1, *self.windows.grid)] if self.across else self.windows.groups

    def cut(self, x: Tensor) -> list[Tensor]:
        """From ``(B, P + H * W, ...)`` to one ``(B, count, length, ...)`` a part, views.

        Raises:
            ValueError: if there are tokens besides the grid's, and several windows.
        """
        groups = self.groups
        height, width = self.windows.grid
        if x.shape[1] != height * width and (len(groups) > 1 or groups[0].count > 1):
            raise ValueError(f'several windows take {height} x {width} tokens and no others, but got {x.shape[1]}')
        if len(groups) == 1:
            return [x.unflatten(1, (groups[0].count, -1))]
        lengths = [count * height * width for count, height, width in groups]
        return [part.unflatten(1, (group.count, -1)) for part, group in zip(x.split(lengths, dim=1), groups)]

    def tables(self, make: Callable[[tuple[int, int]], Tensor]) -> list[Tensor]:
        """What ``make`` gives for a grid, ``(heads or 1, H * W, ...)`` row by row, for the tokens of a run."""
        if self.across:
            table = make(self.windows.grid)
            if self.windows != one_window(self.windows.grid):
                order = window_order(self.windows, table.device)
                table = table.transpose(0, 1).index_select(0, order).transpose(0, 1)
            return [table]
        largest = self.windows.largest
        table = make(largest).unflatten(1, largest)
        return [table[:, :height, :width].flatten(1, 2) for _, height, width in self.groups]


def _split(qkv: Tensor, parts: _Parts, rope: RoPE | None) -> list[Tensor]:
    """Queries, keys and values of each part, the former two rotated.

    Args:
        qkv: ``(B, P + H * W, 3, heads, head_dim)``.
        parts: which tokens attend to which.
        rope: ``None`` for no rotation.

    Returns:
        For each part three ``(B * count, heads, length, head_dim)``.
    """
    pieces = parts.cut(qkv)
    out = []
    for piece, table in zip(pieces, parts.tables(rope) if rope else [None] * len(pieces)):
        qk, v = piece.flatten(0, 1).permute(2, 0, 3, 1, 4).split((2, 1))  # (2, B * count, heads, length, head_dim)
        if table is not None:
            prefix, qk = qk.split((qk.shape[3] - table.shape[1], table.shape[1]), dim=3)
            qk = rotate(qk, table)
            qk = torch.cat((prefix, qk), dim=3) if prefix.shape[3] else qk
        out += [*qk.unbind(0), v[0]]
    return out


class _Split(torch.autograd.Function):
    """:func:`_split` without copies of its own, which keeps nothing for backward but what it returns.

    Queries and keys are turned where they lie, in one pass over memory; half precision is turned in float32 and takes
    more. A rotation is undone by the opposite one and the gradient of an angle follows from the turned vectors, so that
    neither the vectors as they were nor the table have to be kept.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, freqs: Tensor | None, parts: _Parts, rope: RoPE | None) -> tuple[Tensor, ...]:
        pieces = [piece.flatten(0, 1) for piece in parts.cut(qkv)]  # (B * count, length, 3, heads, head_dim)
        for piece, table in zip(pieces, parts.tables(rope) if rope else ()):
            qk = piece[:, piece.shape[1] - table.shape[1] :, :2]
            rotate_into(qk, qk, table.transpose(0, 1)[:, None])
        out = [x for piece in pieces for x in piece.permute(2, 0, 3, 1, 4).unbind(0)]
        ctx.shape, ctx.parts = qkv.shape, parts
        ctx.save_for_backward(freqs, *(out if ctx.needs_input_grad[1] else ()))
        return tuple(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        freqs, *turned = ctx.saved_tensors
        parts = ctx.parts
        grad_freqs = _grad_freqs(freqs, parts, turned, grads) if turned else None
        tables = parts.tables(partial(rotary_table, -freqs)) if freqs is not None else []
        grad = grads[0].new_empty(ctx.shape)
        for i, piece in enumerate(parts.cut(grad)):
            for j, out in enumerate(piece.unbind(3)):  # (B, count, length, heads, head_dim)
                back = grads[3 * i + j].unflatten(0, piece.shape[:2]).transpose(2, 3)
                if j == 2 or freqs is None:
                    out.copy_(back)
                    continue
                prefix, table = piece.shape[2] - tables[i].shape[1], tables[i].transpose(0, 1)
                out[:, :, :prefix] = back[:, :, :prefix]
                rotate_into(out[:, :, prefix:], back[:, :, prefix:], table)
        return grad, grad_freqs, None, None


def _grad_freqs(freqs: Tensor, parts: _Parts, turned: list[Tensor], grads: tuple[Tensor, ...]) -> Tensor:
    """Gradient of the frequencies from turned queries and keys, and theirs: an angle turns ``y`` along ``i * y``."""
    dtype = torch.promote_types(freqs.dtype, torch.float32)
    out = torch.zeros_like(freqs, dtype=dtype)
    for i, place in enumerate(parts.tables(partial(_places, freqs))):
        for j in (0, 1):
            y, grad = (as_complex(x[3 * i + j][:, :, -place.shape[1] :].to(dtype)) for x in (turned, grads))
            turn = torch.view_as_real((y.conj() * grad).transpose(1, 2))  # (B * count, length, heads, head_dim // 2, 2)
            with torch.autocast(freqs.device.type, enabled=False):
                grad_freqs = place[0].T.repeat(1, len(turn)) @ turn.flatten(0, 1).flatten(1)
            out += grad_freqs.unflatten(1, turn.shape[2:])[..., 1].sum_to_size(out.shape)  # freqs that heads share
    return out.to(freqs.dtype)


def _places(freqs: Tensor, grid: tuple[int, int]) -> Tensor:
    """Column and row of each token, ``(1, H * W, 2)``, of the dtype of a table."""
    dtype = torch.promote_types(freqs.dtype, torch.float32)
    rows, cols = (torch.arange(size, device=freqs.device, dtype=dtype) for size in grid)
    return torch.stack(torch.meshgrid(cols, rows, indexing='xy'), dim=-1).view(1, -1, 2)
