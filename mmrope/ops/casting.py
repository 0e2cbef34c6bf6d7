"""Precision and reproducibility of what torchvision and PyTorch compute for MMCV."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
import torchvision  # noqa: F401  its import registers torch.ops.torchvision
from torch import Tensor

HALVES = (torch.float16, torch.bfloat16)


def without_autocast(x: Tensor) -> AbstractContextManager:
    """Return a context in which the operators on the device of ``x`` take the precision that they are given."""
    return torch.autocast(x.device.type, enabled=False)


def in_float32(*tensors: Tensor) -> list[Tensor]:
    """Return the tensors as they are, or those of half precision in float32: torchvision's kernels take no bfloat16."""
    return [x.float() if x.dtype in HALVES else x for x in tensors]


def reproducibly(gradients: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> tuple[Tensor, ...]:
    """Call a function that computes gradients, on the CPU where deterministic algorithms are asked for.

    On an accelerator these gradients are summed in an order that changes from run to run. PyTorch raises for that in
    deterministic mode; on the CPU the order is fixed.
    """
    if not torch.are_deterministic_algorithms_enabled() or tensors[0].device.type == 'cpu':
        return gradients(*tensors)
    return tuple(x.to(tensors[0].device) for x in gradients(*(x.cpu() for x in tensors)))
