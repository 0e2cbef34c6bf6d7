"""Multi-head self-attention over a grid of tokens, with rotary position embedding, global or in windows."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import varlen
from .position import RelativePositionBias
from .qkv import split_qkv
from .rope import INDEX, Positions, RoPE
from .windows import Grid, Windows, one_window

MOST_WINDOWS = 65_535  # limit of one launch of CUDA's attention kernels


class Attention(nn.Module):
    """Multi-head self-attention within each window, with rotated queries and keys.

    RoPE depends on offsets only, so positions count from the corner of each window, and the angles of the largest
    window serve all windows. Prefix tokens (cls, registers) have no position and are not rotated. Among several windows
    they attend to all tokens, and each window to them and itself; positions then count from the corner of the grid.
    Second-order gradients and the transforms of ``torch.func`` are not supported.

    Args:
        dim: channels per token, a multiple of ``num_heads``.
        num_heads: number of heads.
        rope: ``'mixed'``, ``'axial'`` or ``None`` for no rotation.
        theta: base of the frequencies.
        rpb_window_size: maximum side of a window, in tokens, for a relative position bias; ``None`` for no bias.
        positions: rule from the index of a token to its position.
        norm: makes a norm for a number of channels; ``None`` for no norm of the heads' outputs.
        qk_norm: as ``norm``, for queries and keys, head by head before the rotation.

    Raises:
        ValueError: if ``dim`` is not a multiple of ``num_heads``, ``theta`` is missing, or :class:`RoPE` raises it.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        rope: str | None,
        theta: float | None,
        rpb_window_size: int | None = None,
        positions: Positions = INDEX,
        norm: Callable[[int], nn.Module] | None = None,
        qk_norm: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f'dim must be a multiple of num_heads, but got dim = {dim} and num_heads = {num_heads}')
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm, self.k_norm = (None if qk_norm is None else qk_norm(dim // num_heads) for _ in range(2))
        self.rope: RoPE | None = None
        if rope is not None:
            if theta is None:
                raise ValueError(f'theta must be a number when rope is {rope!r}, but got None')
            self.rope = RoPE(dim // num_heads, num_heads, rope, theta, positions)
        self.rpb = None if rpb_window_size is None else RelativePositionBias(rpb_window_size, num_heads)
        self.norm = None if norm is None else norm(dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, windows: Windows, order: Windows | None = None, mask: Tensor | None = None) -> Tensor:
        """Attend within each of ``windows``; :func:`one_window` is global attention.

        Args:
            x: tokens in window order (:func:`window_order`), ``(B, P + H * W, C)``. The first ``P`` are prefix tokens,
                for which there is no bias.
            windows: how the grid is cut; each token attends to its own window.
            order: with a single window, the cut whose order its tokens are in; ``None`` for row by row.
            mask: with a single window, which tokens the first ``Q`` of the prefix tokens may attend to, in the order
                of ``x``; bool, ``(B, Q, P + H * W)``. All other tokens attend to everything.

        Returns:
            ``(B, P + H * W, C)``.

        Raises:
            ValueError: if there are both prefix tokens or an order and a bias, or ``mask`` does not fit.
        """
        if self.rpb is not None and order is not None and order != windows:
            raise ValueError(
                f'order must be None when rpb_window_size is set (the bias is for tokens row by row), but got {order}'
            )
        if mask is not None:
            self._check_mask(mask, x, windows)
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # (B, P + H * W, 3, heads, head_dim)
        qkv = self._normalised(qkv)
        if self.rpb is None and windows.several and (prefix := windows.prefix_of(x)) > 0:
            return self._project(self._attend_with_prefix(qkv, windows, prefix))
        angles = self._angles(windows.largest, windows.grid)
        if self.rpb is None and varlen.takes(qkv, windows):
            q, k, v = split_qkv(qkv, angles, windows, order, packed=True)
            return self._project(varlen.attend(q, k, v, windows, len(x)).view(x.shape))
        split = split_qkv(qkv, angles, windows, order)
        outs = []
        for (count, *window), q, k, v in zip(windows.groups, split[::3], split[1::3], split[2::3]):
            bias = None if self.rpb is None else self.rpb(window, q.dtype)
            out = _attend(q, k, v, bias) if mask is None else _attend_masked(q, k, v, mask)
            # (B * count, heads, tokens, head_dim)
            outs.append(out.transpose(1, 2).flatten(2).unflatten(0, (len(x), count)).flatten(1, 2))
        return self._project(torch.cat(outs, dim=1) if len(outs) > 1 else outs[0])

    def _check_mask(self, mask: Tensor, x: Tensor, windows: Windows) -> None:
        if windows.several or self.rpb is not None:
            reason = 'several windows' if windows.several else 'a relative position bias'
            raise ValueError(f'mask must be None with {reason}, but got shape {tuple(mask.shape)}')
        prefix = windows.prefix_of(x)
        fits = mask.ndim == 3 and (mask.shape[0], mask.shape[2]) == tuple(x.shape[:2]) and mask.shape[1] <= prefix
        if not fits or mask.dtype != torch.bool:
            raise ValueError(
                f'mask must be bool of shape ({x.shape[0]}, at most {prefix} (the prefix tokens), {x.shape[1]}), '
                f'but got {mask.dtype} of shape {tuple(mask.shape)}'
            )

    def _attend_with_prefix(self, qkv: Tensor, windows: Windows, prefix: int) -> Tensor:
        """Attend within several windows and to prefix tokens, which attend to all tokens; arguments as ``forward``."""
        split = split_qkv(qkv, self._angles(windows.grid, windows.grid), one_window(windows.grid), windows)
        q, k, v = (part.transpose(1, 2) for part in split)  # (B, P + H * W, heads, head_dim)
        outs = []
        for group, queries, *others in zip(windows.groups, *(windows.split(part[:, prefix:]) for part in (q, k, v))):
            seen = []  # keys and values of the prefix and a window, (B, count, P + tokens, heads, head_dim)
            for part, every in zip(others, (k, v)):
                firsts = every[:, None, :prefix].expand(-1, group.number, -1, -1, -1)
                seen.append(torch.cat((firsts, part), dim=2))
            keys, values = (part.flatten(0, 1).transpose(1, 2) for part in seen)
            out = _attend(queries.flatten(0, 1).transpose(1, 2), keys, values, None)
            outs.append(out.transpose(1, 2).flatten(2).unflatten(0, (len(qkv), group.number)).flatten(1, 2))
        of_prefix = _attend(q[:, :prefix].transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), None)
        return torch.cat((of_prefix.transpose(1, 2).flatten(2), *outs), dim=1)  # (B, P + H * W, C)

    def _angles(self, grid: Grid, whole: Grid) -> Tensor | None:
        """Compute the angles of a grid or a window; those that count tokens do not depend on the whole grid."""
        if self.rope is None:
            return None
        return self.rope(grid) if self.rope.positions.rule == 'index' else self.rope(grid, whole)

    def _normalised(self, qkv: Tensor) -> Tensor:
        """Normalise queries and keys, if they are to be."""
        if self.q_norm is None or self.k_norm is None:
            return qkv
        q, k, v = qkv.unbind(2)
        return torch.stack((self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype), v), dim=2)

    def _project(self, x: Tensor) -> Tensor:
        return self.proj(x if self.norm is None else self.norm(x))

    def _load_from_state_dict(self, state_dict: dict, prefix: str, local_metadata: dict, *args: Any) -> None:
        weight = state_dict.get(f'{prefix}qkv.weight')
        if self.rope is not None and weight is not None and local_metadata.get('assign_to_params_buffers'):
            self.rope.materialize(weight.device)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    if q.is_cuda and len(q) > MOST_WINDOWS:
        parts = zip(*(x.split(MOST_WINDOWS) for x in (q, k, v)))
        return torch.cat([F.scaled_dot_product_attention(q, k, v, attn_mask=bias) for q, k, v in parts])
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def _attend_masked(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attend with a mask for the first queries, ``(B, Q, keys)``, and none for the others, which are most of them."""
    masked = mask.shape[1]
    others = F.scaled_dot_product_attention(q[:, :, masked:], k, v)
    firsts = F.scaled_dot_product_attention(q[:, :, :masked], k, v, attn_mask=mask[:, None])
    return torch.cat([out.transpose(1, 2) for out in (firsts, others)], dim=1).transpose(1, 2)
