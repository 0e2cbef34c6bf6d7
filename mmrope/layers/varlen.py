"""All windows of a block in one call: PyTorch's attention over sequences of unequal length, flash attention on CUDA.

It takes windows as they lie, without copies and without an execution plan for each shape of window.
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

MOST_SEQUENCES = 65_535  # in one launch
HALF = (torch.float16, torch.bfloat16)
_off: ContextVar[bool] = ContextVar('_off', default=False)


def takes(qkv: Tensor, windows: Windows) -> bool:
    """Say whether windows of ``qkv``, ``(B, N, 3, heads, head_dim)``, are attended to in one call.

    Several windows in half precision are, on an Ampere GPU or later and with a PyTorch that has it. One long window is
    faster by itself.
    """
    if is_tracing() or not qkv.is_cuda or qkv.dtype not in HALF or qkv.numel() == 0 or _off.get():
        return False
    count = sum(group.number for group in windows.groups)
    fits = 1 < count and len(qkv) * count <= MOST_SEQUENCES and qkv.shape[-1] <= 256 and qkv.shape[-1] % 8 == 0
    return fits and _varlen() is not None and _has_flash_attention(qkv.device)


@contextmanager
def switched_off() -> Iterator[None]:
    """Have each group of windows attend in a call of ``F.scaled_dot_product_attention``, for who watches the calls."""
    token = _off.set(True)
    try:
        yield
    finally:
        _off.reset(token)


def attend(q: Tensor, k: Tensor, v: Tensor, windows: Windows, batch: int) -> Tensor:
    """Attend within each window.

    Args:
        q: queries of all images, window by window, ``(batch * H * W, heads, head_dim)``.
        k: keys, as ``q``.
        v: values, as ``q``.
        windows: how the grid is cut.
        batch: images.

    Returns:
        As ``q``.
    """
    ends = once_per_size(_ends, windows, batch, like=q)
    longest = max(height * width for _, height, width in windows.groups)
    varlen = _varlen()
    assert varlen is not None  # `takes` has seen it
    return varlen.varlen_attn(q, k, v, ends, ends, longest, longest)


def _ends(windows: Windows, batch: int, device: torch.device) -> Tensor:
    """Return the end of each window of each image, 0 first, ``(1 + batch * windows,)``, int32."""
    lengths = [height * width for count, height, width in windows.groups for _ in range(count)]
    return torch.tensor([0, *lengths * batch], device=device).cumsum(0).to(torch.int32)


@cache
def _varlen() -> ModuleType | None:
    """Import PyTorch's attention over sequences of unequal length, which it has from 2.10 on."""
    try:
        from torch.nn.attention import varlen
    except ImportError:
        return None
    return varlen


@cache
def _has_flash_attention(device: torch.device) -> bool:
    """Say whether a GPU has the kernels; where there is none, tensors are fake and stand for one that has."""
    return not torch.cuda.is_available() or torch.cuda.get_device_capability(device) >= (8, 0)
