"""Tests of models at many image sizes: metrics and time by size. Each result is kept as soon as it is known."""

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

import numpy as np
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
from .runner import build_runner, trust
from .sizes import size_overrides
from .skipping import Skips

# Parts of a config that a measurement depends on.
MEASURED = ('model', 'test_dataloader', 'test_evaluator', 'test_cfg')
WINDOW = 'model.backbone.window_size'


@dataclass(frozen=True)
class Model:
    """A config and a checkpoint.

    Attributes:
        label: unique name of the model.
        cfg: config after :func:`mmrope.commands.runner.prepare_test`, ready for a test at its own size.
        trusted: whether the checkpoint may run code while it loads.
    """

    label: str
    cfg: Config
    trusted: bool = False


@dataclass
class Measurement:
    """One model at one size: ``cfg`` is the model's with ``overrides``, and the file ``path`` keeps the ``result``.

    The file is named by all that the result depends on: the measured parts of the config, the content of the checkpoint
    and, because of the time, the kind of device.
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
    """List the measurements of each model at each size, with the results of earlier calls.

    Args:
        models: models to test.
        sizes: image sizes.
        folder: folder of the results.
        skips: collects the sizes at which a model cannot be tested.
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
    """Read a result and give it its present names; ``None`` if there is none, or it is of a version without pixels."""
    result = json.loads(path.read_text()) if path.is_file() else {}
    return {**result, **present} if 'pixels' in result else None


def sweep(measurements: Sequence[Measurement], run: Run, skips: Skips, metric: str | None = None) -> None:
    """Make the measurements that have no result yet.

    Args:
        measurements: from :func:`plan`; those of one model follow each other.
        run: notes when a test starts.
        skips: collects the measurements that fail, which keep no result. With several processes an error ends the
            sweep instead: one process may fail alone, and the others would wait for it.
        metric: metric to plot, checked once each evaluator has given a result.

    Raises:
        CommandError: if no test gives the metric; the results so far are kept.
    """
    check_metric_early(measurements, metric)
    todo = [measurement for measurement in measurements if measurement.result is None]
    plans = torch.backends.cuda.cudnn_sdp_enabled()
    columns = TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, TimeRemainingColumn(), disable=not is_main_process()) as progress:
        bar = progress.add_task('sizes', total=len(measurements), completed=len(measurements) - len(todo))
        for _, group in groupby(todo, key=lambda measurement: measurement.model.label):
            torch.backends.cuda.enable_cudnn_sdp(plans)  # the runner of each model decides anew
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
                    run.started = False  # an error between two tests is not a test's
                    check_metric_early(measurements, metric)
    skips.check([measurement for measurement in measurements if measurement.result])


class SizedTest(Hook):
    """A model, its checkpoint read once, tested at one size after the other.

    Args:
        model: model to test.
        run: notes when a test starts.
        advance: called after each batch with its share of the test.
    """

    seconds: list[float]
    sides: list[float]
    priority = 'HIGH'  # after the check of the checkpoint, before the hooks whose time does not count

    def __init__(self, model: Model, run: Run, advance: Callable[[float], None]) -> None:
        run.started = False
        if model.trusted:
            trust(model.cfg)  # one checkpoint at a time
        self.advance = advance
        self.applied = self.wanted = model.cfg
        cfg = copy.deepcopy(model.cfg)
        cfg.experiment_name = f'{model.label}_{time.time_ns()}'  # MMEngine keeps one runner per name
        self.runner = build_runner(cfg, run, training=False)
        self.complete = CompleteCheckpoint(model.cfg.load_from)
        self.weights: dict[str, torch.Tensor] = {}
        for hook in (self.complete, self):
            self.runner.register_hook(hook)

    def run(self, measurement: Measurement) -> dict[str, Any]:
        """Test at a size and return the result to keep."""
        runner, cfg = self.runner, measurement.cfg
        self.wanted, self.seconds, self.sides = cfg, [], []
        # MMEngine builds its test loop from these
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
            'metrics': {name: float(value) for name, value in metrics.items() if np.ndim(value) == 0},
            'ms_per_image': 1000 * median(self.seconds[1:] or self.seconds),  # the first batch is the warm-up
            'images': len(runner.test_dataloader.dataset),
            'device': get_device(),
            'overrides': measurement.overrides,
        }

    def before_test(self, runner: Runner) -> None:
        """Give the model the windows and the padding of the size, and keep its weights."""
        model, before, after = unwrapped(runner.model), self.applied.model, self.wanted.model
        self.complete.versions.clear()  # checked once: a replaced part would count as not loaded
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
        """Note the seconds per image and the sizes, and move the progress bar."""
        self.seconds.append((_now() - self.began) / len(outputs))
        self.sides += [
            sqrt(prod(image.shape[-2:])) for image in data_batch['inputs']
        ]  # sides of squares of the same area
        self.advance(1 / len(runner.test_dataloader))


def shown_metrics(results: Sequence[dict[str, Any]]) -> list[str]:
    """List the metrics for the table: those of ``METRICS`` that a result has, or all if none has one."""
    names = list(dict.fromkeys(name for result in results for name in result['metrics']))
    return [name for key in METRICS for name in names if name.rpartition('/')[2] == key] or names


def check_metric(name: str | None, results: Sequence[dict[str, Any]]) -> str:
    """Return the full name of the metric to plot: ``name`` may be its last part, ``None`` is the first of the table.

    Raises:
        CommandError: if no result has it.
    """
    names = list(dict.fromkeys(other for result in results for other in result['metrics']))
    if not names:
        raise CommandError('no test_evaluator gives a metric that is one number; format_only gives none')
    if name is None:
        return shown_metrics(results)[0]
    found = [other for other in names if name in (other, other.rpartition('/')[2])]
    if not found:
        raise CommandError(f'--metric must be one of {", ".join(names)}, got {name!r}')
    return found[0]


def check_metric_early(measurements: Sequence[Measurement], name: str | None) -> None:
    """Check the metric to plot once each evaluator has given a result, which alone tells its metrics.

    Raises:
        CommandError: if no evaluator gives it.
    """
    results = [measurement.result for measurement in measurements if measurement.result]
    evaluators = [measurement.cfg.test_evaluator for measurement in measurements if measurement.result]
    if (
        results
        and is_main_process()
        and all(measurement.cfg.test_evaluator in evaluators for measurement in measurements)
    ):
        check_metric(name, results)


def make_table(results: Sequence[dict[str, Any]]) -> Table:
    """Make a table with a line for each model and size."""
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
    """Name a measurement by a hash of all that it depends on, which the number of loader workers is not."""
    parts = {key: cfg._cfg_dict.get(key) for key in MEASURED}
    loader = {key: value for key, value in parts['test_dataloader'].items() if 'workers' not in key}
    described = json.dumps([{**parts, 'test_dataloader': loader}, digest, get_device()], sort_keys=True, default=str)
    return hashlib.sha256(described.encode()).hexdigest()[:16]


def _now() -> float:
    """Return the time in seconds, once the device has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
