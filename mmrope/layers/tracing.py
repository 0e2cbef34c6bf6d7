"""How a call runs: traced or eager, under autocast, with index tensors that its size has made before."""

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

KEPT = 64  # a Swin takes about 40 for one size of image, 20 MB of them for 800 x 1333


def is_tracing() -> bool:
    """Say whether a graph is being recorded, by a compiler, an exporter or ``torch.jit.trace``."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def without_autocast(device: torch.device) -> AbstractContextManager:
    """Switch autocast off on a device; the meta device has none."""
    return nullcontext() if device.type == 'meta' else torch.autocast(device.type, enabled=False)


def once_per_size(make: Callable[..., Any], *key: Hashable, like: Tensor) -> Any:
    """Return ``make(*key, device)``, kept from an earlier call where there was one.

    Only for what depends on nothing but ``key`` and the device: indexes and positions, never weights. A traced graph
    gets its own, and so does each ``FakeTensorMode``.

    Args:
        make: a function that returns tensors.
        key: its arguments before the device.
        like: a tensor on the device.
    """
    if is_tracing():
        return make(*key, like.device)
    return _kept(make, key, like.device, getattr(like, 'fake_mode', None))


@lru_cache(maxsize=KEPT)
def _kept(make: Callable[..., Any], key: tuple[Hashable, ...], device: torch.device, fake_mode: Any) -> Any:
    with torch.inference_mode(False), torch.no_grad():  # tensors of inference mode could not serve a training step
        return make(*key, device)
