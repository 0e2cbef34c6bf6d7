"""Multi-head self-attention over a grid of tokens, with rotary position embedding, global or in windows."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import varlen
from .position import RelativePositionBias
from .qkv import split_qkv
from .rope import RoPE
from .windows import Windows

MOST_WINDOWS = 65_535  # limit of one launch of CUDA's attention kernels


class Attention(nn.Module):
    """Multi-head self-attention within each window, with rotated queries and keys.

    RoPE depends on offsets only, so positions count from the corner of each window, and the angles of the largest
    window serve all windows. Second-order gradients and the transforms of ``torch.func`` are not supported.

    Args:
        dim: channels per token, a multiple of ``num_heads``.
        num_heads: number of heads.
        rope: ``'mixed'``, ``'axial'`` or ``None`` for no rotation.
        theta: base of the frequencies.
        rpb_window_size: maximum side of a window, in tokens, for a relative position bias; ``None`` for no bias.

    Raises:
        ValueError: if ``dim`` is not a multiple of ``num_heads``, ``theta`` is missing, or :class:`RoPE` raises it.
    """

    def __init__(
        self, dim: int, num_heads: int, rope: str | None, theta: float | None, rpb_window_size: int | None = None
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f'dim must be a multiple of num_heads, but got dim = {dim} and num_heads = {num_heads}')
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.rope: RoPE | None = None
        if rope is not None:
            if theta is None:
                raise ValueError(f'theta must be a number when rope is {rope!r}, but got None')
            self.rope = RoPE(dim // num_heads, num_heads, rope, theta)
        self.rpb = None if rpb_window_size is None else RelativePositionBias(rpb_window_size, num_heads)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, windows: Windows, order: Windows | None = None) -> Tensor:
        """Attend within each of ``windows``; :func:`one_window` is global attention.

        Args:
            x: tokens in window order (:func:`window_order`), ``(B, P + H * W, C)``. The first ``P`` are prefix tokens,
                which are not rotated and need a single window and no bias.
            windows: how the grid is cut; each token attends to its own window.
            order: with a single window, the cut whose order its tokens are in; ``None`` for row by row.

        Returns:
            ``(B, P + H * W, C)``.

        Raises:
            ValueError: if there are prefix tokens and several windows, or both an order and a bias.
        """
        if self.rpb is not None and order is not None and order != windows:
            raise ValueError(
                f'order must be None when rpb_window_size is set (the bias is for tokens row by row), but got {order}'
            )
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # (B, P + H * W, 3, heads, head_dim)
        angles = None if self.rope is None else self.rope(windows.largest)
        if self.rpb is None and varlen.takes(qkv, windows):
            q, k, v = split_qkv(qkv, angles, windows, order, packed=True)
            return self.proj(varlen.attend(q, k, v, windows, len(x)).view(x.shape))
        split = split_qkv(qkv, angles, windows, order)
        outs = []
        for (count, *window), q, k, v in zip(windows.groups, split[::3], split[1::3], split[2::3]):
            bias = None if self.rpb is None else self.rpb(window, q.dtype)
            out = _attend(q, k, v, bias)  # (B * count, heads, tokens, head_dim)
            outs.append(out.transpose(1, 2).flatten(2).unflatten(0, (len(x), count)).flatten(1, 2))
        return self.proj(torch.cat(outs, dim=1) if len(outs) > 1 else outs[0])

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
