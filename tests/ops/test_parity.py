"""torchvision's and PyTorch's operators beside MMCV's compiled ones, both below MMCV's own Python code."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mmcv.ops
import operators
import pytest
import torch

from tests.helpers.operators import HAS_COMPILED, without_compiled

STAND_IN = operators.standing_in()
pytestmark = pytest.mark.skipif(not HAS_COMPILED, reason='MMCV has no compiled operators here to compare with')


def both(function: Callable, *args: Any) -> tuple[Any, Any]:
    """Call a function once with each set of operators."""
    first = function(*args)
    with operators.operators(STAND_IN):
        return first, function(*args)


def equal(first: Any, second: Any) -> None:
    if isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype
        assert torch.equal(torch.nan_to_num(first, 7), torch.nan_to_num(second, 7))
    else:
        assert len(first) == len(second)
        for one, other in zip(first, second):
            equal(one, other)


def some_rois(seed: int, dtype: torch.dtype) -> torch.Tensor:
    """Boxes of two images of 40 x 56: usual ones, without area, outside, larger than the image, tiny."""
    gen = torch.Generator().manual_seed(seed)
    corners = torch.rand(12, 2, generator=gen) * torch.tensor([56.0, 40.0])
    usual = torch.cat([corners, corners + torch.rand(12, 2, generator=gen) * 30], 1)
    odd = torch.tensor([[5, 5, 5, 5], [3, 4, 9, 4], [-30, -20, -4, -9], [70, 60, 90, 80], [-500, -400, 600, 500],
                        [7, 7, 7.001, 7.001], [0, 0, 56, 40]])  # fmt: skip
    boxes = torch.cat([usual, odd])
    return torch.cat([torch.arange(len(boxes))[:, None] % 2, boxes], 1).to(dtype)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 1, 2])
@pytest.mark.parametrize('scale', [1, 0.25])
def test_roi_align(dtype: torch.dtype, aligned: bool, ratio: int, scale: float) -> None:
    gen = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 3, 10, 14, generator=gen, dtype=dtype)
    for rois in (some_rois(1, dtype), some_rois(2, dtype)[:0]):
        grad = torch.randn(len(rois), 3, 7, 5, generator=gen, dtype=dtype)

        def run(rois: torch.Tensor = rois, grad: torch.Tensor = grad) -> tuple[torch.Tensor, torch.Tensor]:
            x = maps.clone().requires_grad_()
            out = mmcv.ops.roi_align(x, rois, (7, 5), scale, ratio, 'avg', aligned)
            out.backward(grad)
            return out.detach(), x.grad

        equal(*both(run))


def test_roi_align_refuses_inverted_boxes_as_the_compiled_one_does() -> None:
    rois = torch.tensor([[0, 9.0, 9, 4, 12]])

    def run() -> tuple:
        with pytest.raises((RuntimeError, ValueError)):
            mmcv.ops.roi_align(torch.ones(1, 1, 9, 9), rois, 2, 1.0, 0, 'avg', True)
        return ()

    both(run)


def some_boxes(gen: torch.Generator, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes and scores of few values, so that there are ties of both; some without area, one that is no number."""
    corners = torch.randint(0, 40, (count, 2), generator=gen).float()
    boxes = torch.cat([corners, corners + torch.randint(0, 20, (count, 2), generator=gen)], 1)
    boxes += torch.rand(1, generator=gen) * (torch.rand(count, 1, generator=gen) < 0.5)
    scores = torch.randint(0, 12, (count,), generator=gen) / 12
    scores[torch.rand(count, generator=gen) < 0.3] += 0.01
    if count > 3:
        boxes[3, 2] = float('nan')
    return boxes, scores


COUNTS = (0, 1, 2, 7, 60, 300)


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.1, 0.3, 0.5, 0.7, 1.0])
def test_nms(offset: int, threshold: float) -> None:
    gen = torch.Generator().manual_seed(3)
    for count in COUNTS * 6:
        boxes, scores = some_boxes(gen, count)
        for score_threshold, max_num in ((0, -1), (0.3, 5)):
            equal(*both(mmcv.ops.nms, boxes, scores, threshold, offset, score_threshold, max_num))


@pytest.mark.parametrize('agnostic', [True, False])
@pytest.mark.parametrize('split', [10000, 50])
def test_batched_nms(agnostic: bool, split: int) -> None:
    gen = torch.Generator().manual_seed(4)
    for count in (1, 7, 60, 300):
        boxes, scores = some_boxes(gen, count)
        boxes = boxes.nan_to_num(9)
        classes = torch.randint(0, 4, (count,), generator=gen)
        for kind in ('nms', 'soft_nms'):
            settings = dict(type=kind, iou_threshold=0.5, split_thr=split)
            equal(*both(mmcv.ops.batched_nms, boxes, scores, classes, settings, agnostic))


@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
@pytest.mark.parametrize('offset', [0, 1])
def test_soft_nms_in_the_same_order(method: str, offset: int) -> None:
    gen = torch.Generator().manual_seed(5)
    for count in COUNTS * 25:
        boxes, scores = some_boxes(gen, count)
        for min_score in (0.001, 0.4):
            (dets, kept), (dets_here, kept_here) = both(
                mmcv.ops.soft_nms, boxes, scores, 0.3, 0.5, min_score, method, offset
            )
            assert torch.equal(kept, kept_here)
            torch.testing.assert_close(dets, dets_here, rtol=1e-6, atol=0, equal_nan=True)


def test_nms_match() -> None:
    gen = torch.Generator().manual_seed(6)
    for count in COUNTS * 3:
        boxes, scores = some_boxes(gen, count)
        equal(*both(mmcv.ops.nms_match, torch.cat([boxes, scores[:, None]], 1), 0.4))


@pytest.mark.parametrize('modulated', [False, True])
@pytest.mark.parametrize('stride, padding, dilation', [(1, 1, 1), (2, 0, 1), (1, 2, 2)])
@pytest.mark.parametrize('groups, deform_groups, batch', [(1, 1, 2), (2, 4, 3)])
def test_deformable_convolution(
    modulated: bool, stride: int, padding: int, dilation: int, groups: int, deform_groups: int, batch: int
) -> None:
    gen = torch.Generator().manual_seed(7)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=gen, dtype=torch.float64)

    x, weight, bias = randn(batch, 8, 9, 11), randn(6, 8 // groups, 3, 3), randn(6)
    size = [(side + 2 * padding - 2 * dilation - 1) // stride + 1 for side in (9, 11)]
    offset, mask = 2 * randn(batch, 18 * deform_groups, *size), randn(batch, 9 * deform_groups, *size)
    grad = randn(batch, 6, *size)
    inputs = (x, offset, mask, weight, bias) if modulated else (x, offset, weight)
    function = mmcv.ops.modulated_deform_conv2d if modulated else mmcv.ops.deform_conv2d

    def run() -> list[torch.Tensor]:
        leaves = [value.clone().requires_grad_() for value in inputs]
        out = function(*leaves, stride, padding, dilation, groups, deform_groups)
        out.backward(grad)
        return [out.detach(), *(leaf.grad for leaf in leaves)]

    for one, other in zip(*both(run)):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


WHOLE = """
import hashlib, json, sys
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmdet.utils import register_all_modules
from mmengine.config import Config
import mmrope

torch.set_num_threads(1)
register_all_modules()
results = {}
for path in sys.argv[1:]:
    cfg = Config.fromfile(path)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    data = demo_mm_inputs(2, [[3, 96, 128]] * 2, num_classes=3, with_mask=True)
    torch.manual_seed(1)
    model.parse_losses(model(**model.data_preprocessor(data, True), mode='loss'))[0].backward()
    model.eval()
    with torch.no_grad():
        found = model(**model.data_preprocessor(data, False), mode='predict')
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(f'{name} {None if parameter.grad is None else parameter.grad.norm().item()!r}'.encode())
    for sample in found:
        for value in (sample.pred_instances.bboxes, sample.pred_instances.scores, sample.pred_instances.labels):
            digest.update(value.numpy().tobytes())
    results[path] = (digest.hexdigest(), sum(len(sample.pred_instances) for sample in found))
print(json.dumps([mmrope.ops.compiled(), results]))
"""


def whole(paths: list[str], env: dict[str, str] | None = None) -> Any:
    command = [sys.executable, '-W', 'ignore', '-c', 'import mmrope\n' + WHOLE, *paths]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_detector_trains_and_predicts_to_the_same_bits(tmp_path: Path) -> None:
    paths = ['configs/mask_rcnn_rope_mixed_vit_tiny_digits.py']
    (here, results), (there, results_there) = whole(paths), whole(paths, without_compiled(tmp_path))
    assert (here, there) == (True, False)
    assert results == results_there
    assert all(count for _, count in results.values())


def test_the_benchmark_has_a_ratio_for_each_row(capsys: pytest.CaptureFixture[str]) -> None:
    operators.main(['--rounds', '1'])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10 and all(float(line.split('|')[4]) > 0 for line in lines[2:])
