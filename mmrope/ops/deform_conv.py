"""Deformable convolution, versions 1 and 2: torchvision's operator with MMCV's arguments."""

from typing import Any

import torch
from torch import Tensor

from .casting import in_float32, reproducibly, without_autocast


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    **settings: int,
) -> None:
    """Fill ``output`` with a convolution whose taps are shifted by ``offset``."""
    output.copy_(_convolve(input, weight, offset, None, None, *_version_1(settings)))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **settings: int,
) -> None:
    """Fill the gradients of the input and of the offsets."""
    grads = _gradients(grad_output, input, weight, offset, None, None, *_version_1(settings))
    grad_input.copy_(grads[0])
    grad_offset.copy_(grads[2])


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    **settings: int,
) -> None:
    """Fill the gradient of the weights."""
    grads = _gradients(grad_output, input, torch.zeros_like(grad_weight), offset, None, None, *_version_1(settings))
    grad_weight.copy_(grads[1])


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    with_bias: bool,
    **settings: int,
) -> None:
    """Fill ``output`` with a convolution whose taps are shifted by ``offset`` and weighted by ``mask``."""
    output.copy_(_convolve(input, weight, offset, mask, bias if with_bias else None, *_version_2(settings)))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    with_bias: bool,
    **settings: int,
) -> None:
    """Fill all gradients."""
    kept_bias = bias if with_bias else None
    grads = _gradients(grad_output, input, weight, offset, mask, kept_bias, *_version_2(settings))
    for filled, grad in zip((grad_input, grad_weight, grad_offset, grad_mask), grads, strict=False):
        filled.copy_(grad)
    if with_bias:
        grad_bias.copy_(grads[4])


def _version_1(settings: dict[str, int]) -> list[int]:
    names = ('dH', 'dW', 'padH', 'padW', 'dilationH', 'dilationW', 'group', 'deformable_group')
    return [settings[name] for name in names]


def _version_2(settings: dict[str, int]) -> list[int]:
    sides = ('stride_h', 'stride_w', 'pad_h', 'pad_w', 'dilation_h', 'dilation_w')
    return [settings[name] for name in (*sides, 'group', 'deformable_group')]


def _whole(input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None) -> list[Tensor]:
    """Return the tensors for torchvision's operator, which always needs a mask and a bias."""
    mask = input.new_zeros(len(input), 1) if mask is None else mask
    bias = input.new_zeros(len(weight)) if bias is None else bias
    return in_float32(input, weight, offset, mask, bias)


def _convolve(
    input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None, *settings: int
) -> Tensor:
    with without_autocast(input):
        tensors = _whole(input, weight, offset, mask, bias)
        return torch.ops.torchvision.deform_conv2d(*tensors, *settings, mask is not None)


def _gradients(
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    *settings: int,
) -> tuple[Tensor, ...]:
    """Return the gradients of the input, the weight, the offsets, the mask and the bias."""

    def gradients(*tensors: Tensor) -> Any:
        return torch.ops.torchvision._deform_conv2d_backward(*tensors, *settings, mask is not None)

    with without_autocast(input):
        return reproducibly(gradients, *in_float32(grad), *_whole(input, weight, offset, mask, bias))
