"""RoIAlign: torchvision's operator behind the arguments of MMCV's."""

import torch
from torch import Tensor

from .casting import in_float32, reproducibly, without_autocast


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill ``output`` with the average of what bilinear interpolation finds in each cell of each box.

    Args:
        input: maps, ``(B, C, H, W)``.
        rois: boxes ``(index of the image, x1, y1, x2, y2)``, ``(N, 5)``.
        output: ``(N, C, aligned_height, aligned_width)``; it is changed.
        argmax_y: not used.
        argmax_x: not used.
        aligned_height: cells of a box.
        aligned_width: cells of a box.
        spatial_scale: from the coordinates of boxes to those of the maps.
        sampling_ratio: samples along a side of a cell; 0 for one a pixel, rounded up.
        pool_mode: 1 for the average.
        aligned: whether coordinates are shifted by half a pixel.

    Raises:
        NotImplementedError: if ``pool_mode`` is 0, the maximum.
        ValueError: on the CPU, if a coordinate is infinite or not a number, or if a box of ``aligned`` ends before it
            begins; torchvision's kernel would read outside the maps.
    """
    if pool_mode != 1:
        raise NotImplementedError(
            "RoIAlign with pool_mode='max' exists only in MMCV with compiled operators, and this environment has none; "
            "pool_mode='avg' works"
        )
    if rois.device.type == 'cpu':
        _check(rois, aligned)
    with without_autocast(input):
        maps, boxes = in_float32(input, rois)
        pooled = torch.ops.torchvision.roi_align(
            maps, boxes.to(maps), spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned
        )
    output.copy_(pooled)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill ``grad_input``, ``(B, C, H, W)``, from ``grad_output``, ``(N, C, aligned_height, aligned_width)``."""

    def gradients(grad: Tensor, boxes: Tensor) -> tuple[Tensor]:
        return (
            torch.ops.torchvision._roi_align_backward(
                grad, boxes, spatial_scale, aligned_height, aligned_width, *grad_input.shape, sampling_ratio, aligned
            ),
        )

    with without_autocast(grad_output):
        grad, boxes = in_float32(grad_output, rois)
        grad_input.copy_(reproducibly(gradients, grad, boxes.to(grad))[0])


def _check(rois: Tensor, aligned: bool) -> None:
    wrong = ~rois.isfinite().all(1)
    if aligned:
        wrong |= (rois[:, 3:] < rois[:, 1:3]).any(1)
    if wrong.any():
        rule = 'finite, with x1 <= x2 and y1 <= y2' if aligned else 'finite'
        raise ValueError(f'rois must be {rule}, but got {rois[wrong][0, 1:].tolist()} as (x1, y1, x2, y2)')
