"""Execution of a call: traced or eager, with or without autocast, and with index tensors cached by size."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from threading import Lock

import torch
from torch import Tensor, nn

KEPT = 64  # tensors; a Swin needs about 40 per image size, 20 MB in total at 800 x 1333
_kept: OrderedDict[Hashable, Tensor] = OrderedDict()
_lock = Lock()


def is_tracing() -> bool:
    """Return whether a compiler, an exporter or ``torch.jit.trace`` is recording a graph."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def without_autocast(device: torch.device) -> AbstractContextManager:
    """Return a context that switches autocast off on a device; the meta device has none."""
    return nullcontext() if device.type == 'meta' else torch.autocast(device.type, enabled=False)


def once_per_size(make: Callable[..., Tensor], *key: Hashable, like: Tensor) -> Tensor:
    """Return ``make(*key, device)``, cached from an earlier call if there was one.

    Only for tensors that depend on nothing but ``key`` and the device: indexes and positions, never weights. Each
    traced graph and each ``FakeTensorMode`` gets its own.

    Args:
        make: a function that returns a tensor.
        key: its arguments before the device.
        like: a tensor on the wanted device.
    """
    if is_tracing():  # asked first: the compiler of PyTorch 2.4 cannot look for an attribute
        return make(*key, like.device)
    mode = getattr(like, 'fake_mode', None)
    if mode is None and type(like) not in (Tensor, nn.Parameter):
        return make(*key, like.device)
    name = make, key, like.device, mode
    with _lock:
        if name in _kept:
            _kept.move_to_end(name)
            return _kept[name]
    with torch.inference_mode(False), torch.no_grad():  # a training step could not use inference tensors
        made = make(*key, like.device)
    if type(made) is Tensor if mode is None else getattr(made, 'fake_mode', None) is mode:
        with _lock:
            _kept[name] = made
            while len(_kept) > KEPT:
                _kept.popitem(last=False)
    return made
