"""Multi-scale deformable attention (Zhu et al., *Deformable DETR*, ICLR 2021) from PyTorch's ``grid_sample``."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .casting import in_float32, reproducibly, without_autocast


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Return the weighted sum of the values that each query samples, ``(B, queries, heads * C)``.

    Args:
        value: tokens of all levels, ``(B, tokens, heads, C)``.
        value_spatial_shapes: heights and widths of the levels, ``(levels, 2)``; copied to the CPU.
        value_level_start_index: not used, since levels are stored one after another.
        sampling_locations: ``(B, queries, heads, levels, points, 2)`` as ``(x, y)`` from 0 to 1.
        attention_weights: ``(B, queries, heads, levels, points)``.
        im2col_step: not used.
    """
    with without_autocast(value):
        tensors = in_float32(value, sampling_locations, attention_weights)
        return _attend(value_spatial_shapes.tolist(), *tensors).to(value.dtype)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Fill the gradients of the values, the locations and the weights, sampling again."""
    sizes = value_spatial_shapes.tolist()

    def gradients(grad: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            leaves = [x.detach().requires_grad_() for x in tensors]
            return torch.autograd.grad(_attend(sizes, *leaves), leaves, grad)

    with without_autocast(value):
        grads = reproducibly(gradients, *in_float32(grad_output, value, sampling_locations, attention_weights))
    for filled, grad in zip((grad_value, grad_sampling_loc, grad_attn_weight), grads, strict=True):
        filled.copy_(grad)


def _attend(sizes: list[list[int]], value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    batch, queries, heads, _, points, _ = locations.shape
    grids = (2 * locations - 1).transpose(1, 2).flatten(0, 1)  # (B * heads, queries, levels, points, 2)
    weights = weights.transpose(1, 2).flatten(0, 1)  # (B * heads, queries, levels, points)
    levels = value.permute(0, 2, 3, 1).flatten(0, 1).split([height * width for height, width in sizes], -1)
    out = value.new_zeros(batch * heads, value.shape[-1], queries)
    for i, (level, size) in enumerate(zip(levels, sizes, strict=True)):
        sampled = F.grid_sample(level.unflatten(-1, size), grids[:, :, i], align_corners=False)
        out = out + (sampled * weights[:, None, :, i]).sum(-1)
    return out.unflatten(0, (batch, heads)).permute(0, 3, 1, 2).flatten(2)
