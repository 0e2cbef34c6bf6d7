"""Attention in all windows of a block with one call of PyTorch's variable-length attention (flash attention on CUDA).

The call takes the windows in place: no copies, and no separate execution plan for each window shape.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from .tracing import is_tracing, once_per_size
from .windows import Windows

MOST_SEQUENCES = 65_535  # limit of one launch
HALF = (torch.float16, torch.bfloat16)
_off: ContextVar[bool] = ContextVar('_off', default=False)


def takes(qkv: Tensor, windows: Windows) -> bool:
    """Return whether the windows of ``qkv``, ``(B, N, 3, heads, head_dim)``, attend in one call.

    This takes several windows, half precision, an Ampere GPU or later, and a PyTorch that has the call. A single long
    window is faster without it.
    """
    if is_tracing() or not qkv.is_cuda or qkv.dtype not in HALF or qkv.numel() == 0 or _off.get():
        return False
    count = sum(group.number for group in windows.groups)
    fits = 1 < count and len(qkv) * count <= MOST_SEQUENCES and qkv.shape[-1] <= 256 and qkv.shape[-1] % 8 == 0
    return fits and _varlen() is not None and _has_flash_attention(qkv.device)


@contextmanager
def switched_off() -> Iterator[None]:
    """Make each group of windows call ``F.scaled_dot_product_attention``, for tools that watch these calls."""
    token = _off.set(True)
    try:
        yield
    finally:
        _off.reset(token)


def attend(q: Tensor, k: Tensor, v: Tensor, windows: Windows, batch: int) -> Tensor:
    """Attend within each window.

    Args:
        q: queries of all images, window by window, ``(batch * H * W, heads, head_dim)``.
        k: keys, shaped as ``q``.
        v: values, shaped as ``q``.
        windows: how the grid is cut.
        batch: number of images.

    Returns:
        The result, shaped as ``q``.
    """
    ends = once_per_size(_ends, windows, batch, like=q)
    longest = max(height * width for _, height, width in windows.groups)
    varlen = _varlen()
    assert varlen is not None  # `takes` has checked it
    return varlen.varlen_attn(q, k, v, ends, ends, longest, longest)


def _ends(windows: Windows, batch: int, device: torch.device) -> Tensor:
    """Return 0 and the end of each window of each image, ``(1 + batch * windows,)``, int32."""
    lengths = [height * width for count, height, width in windows.groups for _ in range(count)]
    return torch.tensor([0, *lengths * batch], device=device).cumsum(0).to(torch.int32)


@cache
def _varlen() -> ModuleType | None:
    """Import PyTorch's variable-length attention; ``None`` before PyTorch 2.10."""
    try:
        from torch.nn.attention import varlen
    except ImportError:
        return None
    return varlen


@cache
def _has_flash_attention(device: torch.device) -> bool:
    """Return whether a GPU has the kernels; without a GPU, tensors are fake and stand for one that has."""
    return not torch.cuda.is_available() or torch.cuda.get_device_capability(device) >= (8, 0)
