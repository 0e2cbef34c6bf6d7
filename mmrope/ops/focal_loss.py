"""Sigmoid focal loss (Lin et al., *Focal Loss for Dense Object Detection*, ICCV 2017) with MMCV's arguments."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .casting import in_float32


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``output`` with the loss of each row and class.

    Args:
        input: logits, ``(N, classes)``.
        target: class of each row, ``(N,)``; the number of classes means background.
        weight: weight of each class, ``(classes,)``, or empty.
        output: filled with the loss, ``(N, classes)``.
        gamma: exponent that reduces the loss of easy rows.
        alpha: weight of a row's own class; other classes have ``1 - alpha``.
    """
    (x,), own = in_float32(input), _own_class(input, target)
    p = x.sigmoid()
    positive = -alpha * (1 - p) ** gamma * F.logsigmoid(x)
    negative = (alpha - 1) * p**gamma * F.logsigmoid(-x)
    output.copy_(torch.where(own, positive, negative) * _weights(weight, target))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``grad_input``, ``(N, classes)``, with the derivative of each loss by its logit."""
    (x,), own = in_float32(input), _own_class(input, target)
    p = x.sigmoid()
    q = (-x).sigmoid()
    positive = -alpha * q**gamma * (q - gamma * p * F.logsigmoid(x))
    negative = (alpha - 1) * p**gamma * (gamma * q * F.logsigmoid(-x) - p)
    grad_input.copy_(torch.where(own, positive, negative) * _weights(weight, target))


def _own_class(input: Tensor, target: Tensor) -> Tensor:
    return target[:, None] == torch.arange(input.shape[1], device=target.device)


def _weights(weight: Tensor, target: Tensor) -> Tensor | float:
    """Return the weight of each row by its class; background, undefined in MMCV's kernel, gets 1."""
    if not len(weight):
        return 1.0
    padded = torch.cat([weight, weight.new_ones(1)])
    return padded[target.clamp(max=len(weight))][:, None]
