"""Comparison of MMCV's compiled operators with their stand-ins, in turns in one process: milliseconds and ratios.

    python benchmarks/operators.py [--rounds 11] [--models]

It needs an MMCV with compiled operators. ``--models`` also measures training iterations of Mask R-CNN.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import module_from_spec
from types import ModuleType
from unittest import mock

import mmcv.ops
import torch
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction, multi_scale_deformable_attn_pytorch

import mmrope
from mmrope.ops import OperatorsFinder, compiled

SIZES = [(80, 80), (40, 40), (20, 20), (10, 10)]


def standing_in() -> ModuleType:
    """Return the module that stands in for ``mmcv._ext`` if nothing is compiled."""
    spec = OperatorsFinder.find_spec('mmcv._ext')
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def operators(extension: ModuleType | None) -> Iterator[None]:
    """Make MMCV call another extension; ``None`` leaves its own."""
    modules = [m for name, m in sys.modules.items() if name.startswith('mmcv.ops.') and hasattr(m, 'ext_module')]
    patches = [mock.patch.object(module, 'ext_module', extension) for module in modules if extension]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


def some_boxes(count: int, side: float = 800) -> torch.Tensor:
    """Return random boxes ``(count, 4)`` with sides of up to a quarter of the image."""
    corners = torch.rand(count, 2) * side
    return torch.cat([corners, corners + torch.rand(count, 2) * side / 4], 1)


def operator_rows() -> Iterator[tuple[str, Callable[[], object], Callable[[], object]]]:
    """Yield a name, a call for the compiled operators, and a call for the stand-ins."""
    maps = torch.randn(2, 256, 64, 64, requires_grad=True)
    rois = torch.cat([torch.randint(0, 2, (256, 1)), some_boxes(256)], 1)

    def align(backward: bool) -> None:
        out = mmcv.ops.roi_align(maps, rois, 7, 1 / 16, 0, 'avg', True)
        if backward:
            out.sum().backward()

    yield 'RoIAlign, 256 boxes of 7 x 7, 256 channels', *[lambda: align(False)] * 2
    yield 'the same with backward', *[lambda: align(True)] * 2
    for count in (100, 1000, 4000):
        boxes, scores = some_boxes(count), torch.rand(count)
        yield f'NMS, {count} boxes', *[lambda boxes=boxes, scores=scores: mmcv.ops.nms(boxes, scores, 0.7)] * 2
    boxes, scores = some_boxes(1000), torch.rand(1000)
    yield 'soft-NMS, 1000 boxes', *[lambda: mmcv.ops.soft_nms(boxes, scores)] * 2
    x, weight, offset = (
        torch.randn(2, 64, 50, 50),
        torch.randn(64, 64, 3, 3, requires_grad=True),
        torch.randn(2, 18, 50, 50),
    )
    yield (
        'deformable convolution with backward',
        *[lambda: mmcv.ops.deform_conv2d(x, offset, weight, 1, 1).sum().backward()] * 2,
    )
    shapes = torch.tensor(SIZES)
    tokens = sum(height * width for height, width in SIZES)
    value = torch.randn(1, tokens, 8, 32, requires_grad=True)
    places, weights = torch.rand(1, tokens, 8, 4, 4, 2), torch.rand(1, tokens, 8, 4, 4)
    yield (
        f"deformable attention of {tokens} tokens with backward, MMCV's PyTorch function",
        lambda: multi_scale_deformable_attn_pytorch(value, shapes, places, weights).sum().backward(),
        lambda: MultiScaleDeformableAttnFunction.apply(value, shapes, shapes, places, weights, 64).sum().backward(),
    )


def model_rows() -> Iterator[tuple[str, Callable[[], object], Callable[[], object]]]:
    """Yield the same for training iterations of whole detectors."""
    from mmdet.registry import MODELS
    from mmdet.testing import demo_mm_inputs
    from mmdet.utils import register_all_modules
    from mmengine.config import Config

    register_all_modules()
    for name, size, batch in (
        ('mask_rcnn_rope_mixed_vit_tiny_digits.py', (128, 128), 8),
        ('mask_rcnn_rope_mixed_swin_t_coco.py', (800, 1333), 1),
    ):
        cfg = Config.fromfile(mmrope.config_path(name))
        cfg.model.backbone.pop('init_cfg', None)
        model = MODELS.build(cfg.model).train()
        data = demo_mm_inputs(batch, [[3, *size]] * batch, num_classes=10, with_mask=True)

        def train(model: torch.nn.Module = model, data: dict = data) -> None:
            torch.manual_seed(0)
            model.parse_losses(model(**model.data_preprocessor(data, True), mode='loss'))[0].backward()
            model.zero_grad(set_to_none=True)

        yield f'{name}, an iteration of {batch} at {size[0]} x {size[1]}', train, train


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=11)
    parser.add_argument('--models', action='store_true')
    args = parser.parse_args(arguments)
    if not compiled():
        parser.error('MMCV has no compiled operators here; `make setup OPS=compiled` builds them')
    torch.manual_seed(0)
    standin = standing_in()
    rows = [*operator_rows(), *(model_rows() if args.models else ())]
    print('| | compiled, ms | stand-in, ms | ratio |\n| --- | ---: | ---: | ---: |')
    for name, *functions in rows:
        times: list[list[float]] = [[], []]
        for turn in range(args.rounds + 1):
            for i in (0, 1) if turn % 2 else (1, 0):
                with operators(standin if i else None):
                    start = time.perf_counter()
                    functions[i]()
                    if turn:
                        times[i].append(time.perf_counter() - start)
        here, there = (1000 * statistics.median(x) for x in times)
        print(f'| {name} | {here:.3g} | {there:.3g} | {there / here:.2f} |', flush=True)


if __name__ == '__main__':
    main()
