"""Precision and reproducibility of the operators that torchvision and PyTorch run for MMCV."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
import torchvision  # noqa: F401  its import registers torch.ops.torchvision
from torch import Tensor

HALVES = (torch.float16, torch.bfloat16)


def without_autocast(x: Tensor) -> AbstractContextManager:
    """Return a context that disables autocast on the device of ``x``."""
    return torch.autocast(x.device.type, enabled=False)


def in_float32(*tensors: Tensor) -> list[Tensor]:
    """Return the tensors, half-precision ones in float32, since torchvision's kernels do not support bfloat16."""
    return [x.float() if x.dtype in HALVES else x for x in tensors]


def reproducibly(gradients: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> tuple[Tensor, ...]:
    """Compute gradients, on the CPU if PyTorch is set to deterministic algorithms.

    An accelerator sums these gradients in an order that changes from run to run, for which PyTorch raises in
    deterministic mode. On the CPU the order is fixed.
    """
    if not torch.are_deterministic_algorithms_enabled() or tensors[0].device.type == 'cpu':
        return gradients(*tensors)
    return tuple(x.to(tensors[0].device) for x in gradients(*(x.cpu() for x in tensors)))
