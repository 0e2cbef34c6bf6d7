"""RoIAlign: torchvision's operator with MMCV's arguments."""

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
    """Fill ``output`` with the average of bilinear samples in each cell of each box.

    Args:
        input: maps, ``(B, C, H, W)``.
        rois: boxes ``(index of the image, x1, y1, x2, y2)``, ``(N, 5)``.
        output: filled, ``(N, C, aligned_height, aligned_width)``.
        argmax_y: not used.
        argmax_x: not used.
        aligned_height: rows of cells per box.
        aligned_width: columns of cells per box.
        spatial_scale: factor from box coordinates to map coordinates.
        sampling_ratio: samples along each side of a cell; 0 for one per pixel, rounded up.
        pool_mode: 1 for the average.
        aligned: whether coordinates are shifted by half a pixel.

    Raises:
        NotImplementedError: if ``pool_mode`` is 0, the maximum.
        ValueError: on the CPU, where torchvision's kernel would read outside the maps: if the index of an image is out
            of range, a coordinate is infinite or NaN, or, with ``aligned``, a box ends before it begins.
    """
    if pool_mode != 1:
        raise NotImplementedError(
            "RoIAlign with pool_mode='max' needs an MMCV with compiled operators, which this environment does not "
            "have; set pool_mode='avg'"
        )
    with without_autocast(input):
        (maps,) = in_float32(input)
        boxes = rois.to(maps)
        if maps.device.type == 'cpu':
            _check(boxes, len(maps), spatial_scale, aligned)
        pooled = torch.ops.torchvision.roi_align(
            maps, boxes, spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned
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


def _check(rois: Tensor, images: int, scale: float, aligned: bool) -> None:
    index, corners = rois[:, 0], rois[:, 1:] * scale
    wrong = ~((index >= 0) & (index < images) & corners.isfinite().all(1))
    if aligned:
        wrong |= (corners[:, 2:] < corners[:, :2]).any(1)
    if wrong.any():
        order = ', x1 <= x2 and y1 <= y2' if aligned else ''
        raise ValueError(
            f'rois must be (index below {images}, x1, y1, x2, y2), finite at a scale of {scale}{order}, '
            f'but got {rois[wrong][0].tolist()}'
        )
