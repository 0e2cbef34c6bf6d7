"""Test models at many image sizes: metric and time by size, each result kept as soon as it is there."""

import copy
import csv
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby
from math import prod, sqrt
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from ..checkpoints.files import sha256, write_whole
from ..checkpoints.sources import fetch
from ..engine.complete_checkpoint_hook import CompleteCheckpoint, unwrapped
from .cli import Size
from .errors import CommandError, Run
from .hosts import scope_of
from .plot import METRICS
from .runner import build_runner
from .sizes import size_overrides
from .skipping import Skips

# The parts of a config that a measurement depends on.
MEASURED = ('model', 'test_dataloader', 'test_evaluator', 'test_cfg')
WINDOW = 'model.backbone.window_size'


@dataclass(frozen=True)
class Model:
    """A config and a checkpoint.

    Attributes:
        label: name of the model, of which there is no other.
        cfg: ready for a test at its own size, after :func:`mmrope.commands.runner.prepare_test`.
    """

    label: str
    cfg: Config


@dataclass
class Measurement:
    """One model at one size: ``cfg`` is the model's with ``overrides``, and ``path`` keeps the ``result``.

    The name of the file is made of all that the result depends on: what the config measures, the content of the
    checkpoint, and the kind of device, for the time.
    """

    model: Model
    size: Size
    cfg: Config
    overrides: dict[str, Any]
    path: Path
    result: dict[str, Any] | None = None


def plan(
    models: Sequence[Model], sizes: Sequence[Size], folder: Path, skips: Skips, scale_windows: bool = False
) -> list[Measurement]:
    """List the measurements of each model at each size, with the results that are there already.

    Args:
        models: to test.
        sizes: of the images.
        folder: where results are kept.
        skips: takes in the sizes that a model cannot be tested at.
        scale_windows: whether the ``window_size`` of a backbone grows along with the image.
    """
    measurements = []
    for model in models:
        with skips.skipping(model.label):
            digest = sha256(fetch(model.cfg.load_from))
            for size in sizes:
                with skips.skipping(f'{model.label} at {size.text}'):
                    overrides = size_overrides(model.cfg, size, scale_windows)
                    cfg = copy.deepcopy(model.cfg)
                    cfg.merge_from_dict(overrides)
                    path = folder / f'{_name(cfg, digest)}.json'
                    present = dict(label=model.label, config=cfg.filename, checkpoint=cfg.load_from)
                    measurements.append(Measurement(model, size, cfg, overrides, path, _kept(path, present)))
    return measurements


def _kept(path: Path, present: Mapping[str, str]) -> dict[str, Any] | None:
    """Read the result that a file keeps, with what it is called now; ``None`` for one of a version without pixels."""
    result = json.loads(path.read_text()) if path.is_file() else {}
    return {**result, **present} if 'pixels' in result else None


def sweep(measurements: Sequence[Measurement], run: Run, skips: Skips) -> None:
    """Make the measurements that have no result yet.

    Args:
        measurements: from :func:`plan`; those of one model lie next to each other.
        run: is told when a test starts.
        skips: takes in the measurements that fail, which keep no result. Of several processes one may fail alone, and
            the others would wait for it: there an error ends the sweep.
    """
    todo = [measurement for measurement in measurements if measurement.result is None]
    columns = TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, TimeRemainingColumn(), disable=not is_main_process()) as progress:
        bar = progress.add_task('sizes', total=len(measurements), completed=len(measurements) - len(todo))
        for _, group in groupby(todo, key=lambda measurement: measurement.model.label):
            test = None
            for measurement in group:
                name = f'{measurement.model.label} at {measurement.size.text}'
                progress.update(bar, description=name)
                with skips.skipping(name) if measurement.cfg.launcher == 'none' else nullcontext():
                    test = test or SizedTest(measurement.model, run, lambda share: progress.advance(bar, share))
                    measurement.result = test.run(measurement)
                if measurement.result is None:
                    test = None  # the model may be left in the middle of a change
                elif is_main_process():
                    with write_whole(measurement.path) as part:
                        part.write_text(json.dumps(measurement.result, indent=2) + '\n')
    skips.check([measurement for measurement in measurements if measurement.result])


class SizedTest(Hook):
    """A model, its checkpoint read once, tested at one size after the other.

    Args:
        model: to test.
        run: is told when a test starts.
        advance: called after each batch with its share of the test.
    """

    seconds: list[float]
    sides: list[float]
    priority = 'HIGH'  # after the checkpoint has been checked, before the hooks that are no part of the time

    def __init__(self, model: Model, run: Run, advance: Callable[[float], None]) -> None:
        run.started = False
        self.advance = advance
        self.applied = self.wanted = model.cfg
        cfg = copy.deepcopy(model.cfg)
        cfg.experiment_name = f'{model.label}_{time.time_ns()}'  # MMEngine keeps one runner a name
        self.runner = build_runner(cfg, run, training=False)
        self.complete = CompleteCheckpoint(model.cfg.load_from)
        self.weights: dict[str, torch.Tensor] = {}
        for hook in (self.complete, self):
            self.runner.register_hook(hook)

    def run(self, measurement: Measurement) -> dict[str, Any]:
        """Test at a size and return the result to keep."""
        runner, cfg = self.runner, measurement.cfg
        self.wanted, self.seconds, self.sides = cfg, [], []
        # what MMEngine makes its test loop of
        runner._test_dataloader, runner._test_evaluator, runner._test_loop = (
            copy.deepcopy(part) for part in (cfg.test_dataloader, cfg.test_evaluator, cfg.test_cfg)
        )
        metrics = runner.test()
        return {
            'label': measurement.model.label,
            'config': cfg.filename,
            'checkpoint': cfg.load_from,
            'size': measurement.size.text,
            'pixels': mean(self.sides),
            'metrics': {name: float(value) for name, value in metrics.items()},
            'ms_per_image': 1000 * median(self.seconds[1:] or self.seconds),  # the first batch is the warm-up
            'images': len(runner.test_dataloader.dataset),
            'device': get_device(),
            'overrides': measurement.overrides,
        }

    def before_test(self, runner: Runner) -> None:
        """Give the model the windows and the padding of the size; the weights keep theirs."""
        model, before, after = unwrapped(runner.model), self.applied.model, self.wanted.model
        self.complete.versions.clear()  # checked once: parts that are replaced count anew
        if not self.weights and 'backbone' in after:
            self.weights = copy.deepcopy(model.backbone.state_dict())
        with DefaultScope.overwrite_default_scope(scope_of(self.wanted)):
            if before.get('backbone') != after.get('backbone'):
                device = next(model.parameters()).device
                model.backbone = MODELS.build({**after.backbone, 'init_cfg': None}).to(device)
                model.backbone.load_state_dict(self.weights)
            if before.get('data_preprocessor') != after.get('data_preprocessor'):
                device = model.data_preprocessor.device
                model.data_preprocessor = MODELS.build(after.data_preprocessor).to(device)
        self.applied = self.wanted

    def before_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Note the time."""
        self.began = _now()

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Note the seconds an image and the sizes, and move the progress bar."""
        self.seconds.append((_now() - self.began) / len(outputs))
        self.sides += [sqrt(prod(image.shape[-2:])) for image in data_batch['inputs']]  # of squares of the same area
        self.advance(1 / len(runner.test_dataloader))


def shown_metrics(results: Sequence[dict[str, Any]]) -> list[str]:
    """Name the metrics that belong in a table: those of ``METRICS`` that a result has, or all."""
    names = list(dict.fromkeys(name for result in results for name in result['metrics']))
    return [name for key in METRICS for name in names if name.rpartition('/')[2] == key] or names


def check_metric(name: str | None, results: Sequence[dict[str, Any]]) -> str:
    """Return the metric to draw: the one asked for by its name or the last part of it, or the first one shown.

    Raises:
        CommandError: if no result has it.
    """
    if name is None:
        return shown_metrics(results)[0]
    names = list(dict.fromkeys(other for result in results for other in result['metrics']))
    found = [other for other in names if name in (other, other.rpartition('/')[2])]
    if not found:
        raise CommandError(f'--metric: no test gives {name!r}; there are {", ".join(names)}')
    return found[0]


def make_table(results: Sequence[dict[str, Any]]) -> Table:
    """Make a table of a line for each model and size."""
    metrics = shown_metrics(results)
    table = Table('model', 'size', *metrics, 'ms / image')
    for result in results:
        values = [result['metrics'].get(name) for name in metrics]
        cells = ['' if value is None else f'{value:.4g}' for value in values]
        table.add_row(result['label'], result['size'], *cells, f'{result["ms_per_image"]:.3g}')
    return table


def write_csv(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Write a row for each model and size, with all metrics."""
    metrics = list(dict.fromkeys(name for result in results for name in result['metrics']))
    columns = ['label', 'config', 'checkpoint', 'size', 'images', 'device', 'ms_per_image']
    with path.open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow([*columns, *metrics])
        for result in results:
            writer.writerow([*(result[key] for key in columns), *(result['metrics'].get(key, '') for key in metrics)])


def _name(cfg: Config, digest: str) -> str:
    """Name a measurement by what it depends on; how many processes load the images is no part of that."""
    parts = {key: cfg._cfg_dict.get(key) for key in MEASURED}
    loader = {key: value for key, value in parts['test_dataloader'].items() if 'workers' not in key}
    described = json.dumps([{**parts, 'test_dataloader': loader}, digest, get_device()], sort_keys=True, default=str)
    return hashlib.sha256(described.encode()).hexdigest()[:16]


def _now() -> float:
    """Return the time in seconds, once the device has finished what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
