"""Non-maximum suppression in MMCV's variants; boxes of equal score come in MMCV's order."""

import numpy as np
import torch
from torch import Tensor

from .casting import in_float32


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return the indexes of the boxes to keep, ``(K,)``, by descending score.

    Args:
        boxes: ``(N, 4)`` as ``(x1, y1, x2, y2)``.
        scores: ``(N,)``.
        iou_threshold: boxes whose IoU with a kept box is above it are dropped.
        offset: 1 where ``x2`` and ``y2`` are the last pixels of a box, else 0.
    """
    boxes, scores = in_float32(boxes, scores)
    order = scores.sort(0, descending=True).indices  # as MMCV sorts; torchvision orders equal scores differently
    boxes = boxes[order]
    if offset:
        boxes = torch.cat([boxes[:, :2], boxes[:, 2:] + offset], 1)
    ranks = torch.arange(len(order), 0, -1, dtype=boxes.dtype, device=boxes.device)
    # MMCV compares with the threshold in float32.
    return order[torch.ops.torchvision.nms(boxes, ranks, float(np.float32(iou_threshold)))]


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Lower the scores of overlapping boxes, and return the indexes of those that stay above ``min_score``, ``(K,)``.

    Bodla et al., *Soft-NMS: Improving Object Detection With One Line of Code*, ICCV 2017. As in MMCV, the
    last boxes replace those that are dropped, so that boxes of equal score come in the same order.

    Args:
        boxes: ``(N, 4)`` on the CPU.
        scores: ``(N,)``.
        dets: ``(N, 5)``; its first ``K`` rows become the boxes and the lowered scores.
        iou_threshold: IoU from which methods 0 and 1 lower a score.
        sigma: width of the Gaussian of method 2.
        min_score: boxes with a score below it are dropped.
        method: 0 drops as NMS does, 1 lowers by ``1 - IoU``, 2 by ``exp(-IoU**2 / sigma)``.
        offset: as for :func:`nms`.
    """
    corners = boxes.detach().float().numpy()
    areas = (corners[:, 2] - corners[:, 0] + offset) * (corners[:, 3] - corners[:, 1] + offset)
    rows = np.column_stack([corners, scores.detach().float().numpy(), areas])  # of the remaining boxes
    indexes = np.arange(len(rows))
    i, left = 0, len(rows)
    while i < left:
        best = i + _first_best(rows[i:left, 4])
        rows[[i, best]], indexes[[i, best]] = rows[[best, i]], indexes[[best, i]]
        rest = rows[i + 1 : left]
        iou = _iou(rows[i, :4], rest[:, :4], rows[i, 5], rest[:, 5], offset)
        if method == 2:
            rest[:, 4] *= np.exp((-(iou * iou) / sigma).astype(np.float64)).astype(np.float32)  # rounded as C's expf
        elif method == 1:
            rest[:, 4] *= np.where(iou >= iou_threshold, 1 - iou, 1)
        else:
            rest[:, 4] *= ~(iou >= iou_threshold)
        stays = ~(rest[:, 4] < min_score)
        count = int(stays.sum())
        if count < len(rest):
            gaps = np.flatnonzero(~stays[:count])
            fillers = count + np.flatnonzero(stays[count:])[::-1]
            rest[gaps] = rest[fillers]
            indexes[i + 1 + gaps] = indexes[i + 1 + fillers]
            left = i + 1 + count
        i += 1
    dets[:left] = torch.from_numpy(rows[:left, :5])
    return torch.from_numpy(indexes[:left])


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Return, for each box that NMS keeps, its index and those of the boxes it suppresses, by descending score.

    Args:
        dets: boxes and scores, ``(N, 5)`` on the CPU.
        iou_threshold: IoU from which a box is suppressed.
    """
    order = dets[:, 4].sort(0, descending=True).indices.numpy()
    left = dets[:, :4].detach().float().numpy()[order]
    areas = (left[:, 2] - left[:, 0]) * (left[:, 3] - left[:, 1])
    groups = []
    while len(left):
        matched = _iou(left[0], left[1:], areas[0], areas[1:], 0) >= iou_threshold
        groups.append([int(order[0]), *order[1:][matched].tolist()])
        left, areas, order = left[1:][~matched], areas[1:][~matched], order[1:][~matched]
    return groups


def _iou(box: np.ndarray, others: np.ndarray, area: np.ndarray, areas: np.ndarray, offset: int) -> np.ndarray:
    """Return the IoU of a box with each of the others; NaN loses every comparison, as in C++."""
    low = np.where(box[:2] < others[:, :2], others[:, :2], box[:2])
    high = np.where(others[:, 2:] < box[2:], others[:, 2:], box[2:])
    sides = high - low + offset
    sides = np.where(sides > 0, sides, 0)
    shared = sides[:, 0] * sides[:, 1]
    with np.errstate(divide='ignore', invalid='ignore'):
        return shared / (area + areas - shared)


def _first_best(scores: np.ndarray) -> int:
    """Return the index of the first highest score; NaN counts as highest at index 0, else as lowest."""
    best = int(scores.argmax())
    if np.isnan(scores[best]):
        best = 0 if np.isnan(scores[0]) else int(np.nanargmax(scores))
    return best
