"""Whole segmenters compared: parameters, FLOPs, and memory and seconds of an image and of a training step.

``python benchmarks/segmenters.py --out docs/benchmarks/segmenters.json``. Weights are random. Memory is what a call
adds to a new process. For time the models take turns in every round, so that a busy machine slows all of them alike.
"""

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData

from mmrope.analysis.benchmark import MODES, environment, peak_of
from mmrope.commands.cli import Size, parse_pixels
from mmrope.commands.config import load_config, prepare_process
from mmrope.commands.flops import count_config
from mmrope.commands.models import blank_batch, build_model

CONFIGS = (
    'eomt_rope_mixed_vit_b_ade20k',
    'upernet_rope_mixed_vit_b_ade20k',
    'mask2former_rope_mixed_swin_s_ade20k',
)
CLASSES = 10  # in a training image; matching and losses of queries take time for each


def prepare(name: str, size: Size, batch: int) -> tuple[dict[str, Any], dict[str, Callable[[], Any]]]:
    """Build a model; return its counts, and functions that predict an image and take a training step."""
    from mmseg.structures import SegDataSample

    cfg = load_config(name)
    cfg.model.test_cfg = dict(mode='whole')
    cost = count_config(cfg, size, 'cpu')
    model = build_model(cfg, 'cpu')
    shape = size.height, size.width
    blank = blank_batch(cfg, model, shape)
    pixels, classes = size.height * size.width, min(CLASSES, cfg.model.decode_head.num_classes)
    labels = torch.arange(classes).repeat_interleave(pixels // classes + 1)[:pixels]  # stripes
    sample = SegDataSample(metainfo=dict(img_shape=shape, ori_shape=shape, pad_shape=shape))
    sample.gt_sem_seg = PixelData(data=labels.view(1, *shape))
    inputs = torch.randn(batch, 3, *shape)

    def predict() -> None:
        model.eval()
        with torch.no_grad():
            model(**blank, mode='predict')

    def train() -> None:
        model.train()
        model.zero_grad()
        model.parse_losses(model(inputs, [sample] * batch, mode='loss'))[0].backward()

    counts = dict(parameters=cost.params['total'], flops=cost.flops['total'])
    return counts, {'inference': predict, 'training': train}


def measure_memory(name: str, size: Size, batch: int, mode: str) -> int:
    """Return the peak bytes of one call, in a process that has done nothing else."""
    prepare_process()
    with DefaultScope.overwrite_default_scope('mmseg'):
        _, functions = prepare(name, size, batch)
        return peak_of(functions[mode])


def main() -> None:
    """Measure in turns, and write the counts, the medians and the ratios to the first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--configs', nargs='+', default=CONFIGS, help='configs of segmenters; ratios are to the first')
    parser.add_argument('--size', type=parse_pixels, default=parse_pixels('512'), help='image size (default: 512)')
    parser.add_argument('--batch', type=int, default=2, help='images of a training step (default: 2)')
    parser.add_argument('--rounds', type=int, default=5, help='timed rounds (default: 5)')
    parser.add_argument('--out', type=Path, help='also write a JSON file')
    args = parser.parse_args()
    memory: dict[tuple[str, str], int] = {}
    for name in args.configs:
        for mode in MODES:
            with multiprocessing.get_context('spawn').Pool(1) as pool:
                memory[name, mode] = pool.apply(measure_memory, (name, args.size, args.batch, mode))
    prepare_process()
    with DefaultScope.overwrite_default_scope('mmseg'):
        models = {name: prepare(name, args.size, args.batch) for name in args.configs}
        seconds: dict[tuple[str, str], list[float]] = {}
        for timed in range(args.rounds + 1):  # the first is a warm-up
            for name, (_, functions) in models.items():
                for mode, function in functions.items():
                    start = time.perf_counter()
                    function()
                    if timed:
                        seconds.setdefault((name, mode), []).append(time.perf_counter() - start)
    rows = []
    for name, (counts, functions) in models.items():
        medians = {mode: statistics.median(seconds[name, mode]) for mode in functions}
        first = {mode: statistics.median(seconds[args.configs[0], mode]) for mode in functions}
        row = dict(config=name, **counts, memory={mode: memory[name, mode] for mode in functions}, seconds=medians)
        row['ratios'] = {mode: medians[mode] / first[mode] for mode in functions}
        rows.append(row | dict(rounds={mode: seconds[name, mode] for mode in functions}))
        cells = [f'{counts["parameters"] / 1e6:.1f}', f'{counts["flops"] / 1e9:.0f}']
        for mode in functions:
            cells += [f'{medians[mode]:.2f}', f'{row["ratios"][mode]:.2f}', f'{memory[name, mode] / 2**30:.2f}']
        print(f'| `{name}` | {" | ".join(cells)} |', flush=True)
    if args.out is not None:
        about = dict(size=args.size.text, batch=args.batch, classes=CLASSES, environment=environment('cpu'))
        args.out.write_text(json.dumps(dict(**about, rows=rows), indent=2) + '\n')


if __name__ == '__main__':
    main()
