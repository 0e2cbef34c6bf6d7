"""Draw the curves of a training run and print its results."""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path, PureWindowsPath
from typing import Any

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.table import Table

from mmrope.commands.outputs import add_overwrite, check_output

METRICS = ('bbox_mAP', 'segm_mAP', 'mIoU')
# Okabe and Ito's colours, and a marker each, for readers who do not see colours alike.
LOSS_COLOUR = '#0072B2'
METRIC_STYLES = (('#D55E00', 'o'), ('#009E73', 's'), ('#CC79A7', '^'))


@dataclass
class History:
    """What a work dir says about a training run, over all its parts when it was resumed.

    ``losses`` and ``epochs`` are keyed by the iteration. A validation is kept with the last logged iteration before it.
    """

    losses: dict[int, float] = field(default_factory=dict)
    epochs: dict[int, int] = field(default_factory=dict)
    validations: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    duration: timedelta = timedelta()

    def forget_from(self, iteration: int) -> None:
        """Drop what a resumed part has done again."""
        self.losses = {key: value for key, value in self.losses.items() if key < iteration}
        self.epochs = {key: value for key, value in self.epochs.items() if key < iteration}
        self.validations = [(last, record) for last, record in self.validations if last < iteration]

    def metrics(self) -> dict[str, dict[int, float]]:
        """Return the values of each metric by iteration."""
        metrics: dict[str, dict[int, float]] = {}
        length = epoch_length(self.epochs)
        for last, record in self.validations:
            iteration = self.epochs[last] * length if length and last in self.epochs else max(last, record['step'])
            for key, value in record.items():
                if (name := key.rpartition('/')[2]) in METRICS:
                    metrics.setdefault(name, {})[iteration] = value
        return metrics


def epoch_length(epochs: dict[int, int]) -> int | None:
    """Find how many iterations an epoch has from the epochs of the logged ones, if there are two in a row.

    Losses are logged every few iterations of an epoch, so that the first ones of two epochs are an epoch apart. The
    step of a validation does not tell: it counts iterations, epochs, or nothing, as the config wants it.
    """
    firsts: dict[int, int] = {}
    for iteration, epoch in sorted(epochs.items()):
        firsts.setdefault(epoch, iteration)
    return next((firsts[epoch + 1] - first for epoch, first in firsts.items() if epoch + 1 in firsts), None)


def read_history(work_dir: Path) -> History:
    """Read the scalars of every part of a run, the later ones over the earlier ones.

    Raises:
        ValueError: If the folder holds no training run.
    """
    if not work_dir.is_dir():
        raise ValueError(f'there is no folder {work_dir}')
    history = History()
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        records = list(read_records(path))
        iterations = [record['iter'] for record in records if 'loss' in record and 'iter' in record]
        if iterations:
            history.forget_from(min(iterations))
            add_records(history, records)
            history.duration += log_duration(path.parents[1])
    if not history.losses:
        raise ValueError(f'{work_dir} holds no training run: no */vis_data/scalars.json in it has a loss')
    return history


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a scalars file; the last line of a killed process may be cut off."""
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def add_records(history: History, records: list[dict[str, Any]]) -> None:
    """Add the records of one part, which are in the order of time."""
    last = 0
    for record in records:
        if 'loss' in record and 'iter' in record:
            last = record['iter']
            history.losses[last] = record['loss']
            if 'epoch' in record:
                history.epochs[last] = record['epoch']
        elif last:
            history.validations.append((last, record))


def log_duration(run_dir: Path) -> timedelta:
    """Measure from the first to the last line of a part's text log."""
    times = [
        datetime.strptime(match[0], '%Y/%m/%d %H:%M:%S')
        for path in run_dir.glob('*.log')
        for match in re.finditer(r'^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d', path.read_text(), re.MULTILINE)
    ]
    return max(times) - min(times) if times else timedelta()


def smooth(values: np.ndarray) -> np.ndarray:
    """Average over a centred window of a tenth of the points, which is cut at the ends."""
    reach = max(1, len(values) // 20)
    return np.array([values[max(0, i - reach) : i + reach + 1].mean() for i in range(len(values))])


def draw(history: History, out: Path) -> None:
    """Draw the training loss, and beside it the validation metrics if there are any."""
    metrics = history.metrics()
    columns = 2 if metrics else 1
    with plt.rc_context({'font.size': 11, 'axes.spines.top': False, 'axes.spines.right': False}):
        figure, axes = plt.subplots(1, columns, figsize=(4.5 * columns, 3.4), squeeze=False, layout='constrained')
        draw_losses(axes[0][0], history.losses)
        if metrics:
            draw_metrics(axes[0][1], metrics)
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=150)
        plt.close(figure)


def draw_losses(axis: plt.Axes, losses: dict[int, float]) -> None:
    """Draw the loss as it was logged, and smoothed."""
    iterations, values = np.array(sorted(losses.items())).T
    axis.plot(iterations, values, color=LOSS_COLOUR, alpha=0.35, linewidth=1, label='logged')
    axis.plot(iterations, smooth(values), color=LOSS_COLOUR, linewidth=2, label='smoothed')
    axis.set(xlabel='iteration', ylabel='training loss')
    finish(axis)


def draw_metrics(axis: plt.Axes, metrics: dict[str, dict[int, float]]) -> None:
    """Draw a line for each metric."""
    for (name, series), (colour, marker) in zip(sorted(metrics.items()), METRIC_STYLES, strict=False):
        iterations, values = np.array(sorted(series.items())).T
        axis.plot(iterations, values, color=colour, marker=marker, markersize=5, linewidth=2, label=name)
    axis.set(xlabel='iteration', ylabel='validation')
    axis.set_ylim(bottom=0)
    finish(axis)


def finish(axis: plt.Axes) -> None:
    """Add what both panels have."""
    axis.grid(alpha=0.3)
    axis.set_xlim(left=0)
    axis.legend(frameon=False)
    axis.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5, integer=True))


def summarise(history: History, rows: list[tuple[str, str]]) -> Table:
    """Make a table of the results and the given rows."""
    table = Table(show_header=False)
    table.add_column(overflow='fold')
    table.add_column(overflow='fold')
    metrics = history.metrics()
    for name, series in sorted(metrics.items()):
        final, best = max(series), max(series, key=lambda iteration: series[iteration])
        table.add_row(name, f'{series[final]:.3f} (best {series[best]:.3f}, iteration {best})')
    last = max(history.losses)
    table.add_row('training loss', f'{history.losses[last]:.4f}')
    table.add_row('iterations', str(max([last, *(iteration for series in metrics.values() for iteration in series)])))
    table.add_row('wall time', str(history.duration) if history.duration else 'unknown: no text log')
    for row in rows:
        table.add_row(*row)
    return table


def find_checkpoints(work_dir: Path) -> list[Path]:
    """Find the last checkpoint of a work dir and those that are called best."""
    note = work_dir / 'last_checkpoint'  # holds the path of the time when it was written
    last = [work_dir / PureWindowsPath(note.read_text().strip()).name] if note.is_file() else []
    return [path for path in [*last, *sorted(work_dir.glob('best_*.pth'))] if path.is_file()]


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog='plot_training.py', description=__doc__)
    parser.add_argument('work_dir', type=Path, help='work dir of a training run')
    parser.add_argument('--out', type=Path, help='image to write (default: WORK_DIR/curves.png)')
    add_overwrite(parser)
    parser.add_argument('--predictions', type=Path, help='predictions of the run, to name them in the table')
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw and print as the command line says."""
    args = parse_arguments(arguments)
    out = args.out or args.work_dir / 'curves.png'
    try:
        if args.out is not None:  # the default belongs to the run, and follows it
            check_output(out, args.overwrite)
        history = read_history(args.work_dir)
        draw(history, out)
    except (OSError, ValueError) as error:
        sys.exit(f'plot_training.py: error: {error}')
    rows = [('checkpoint', str(path)) for path in find_checkpoints(args.work_dir)] + [('curves', str(out))]
    if args.predictions is not None:
        rows.append(('predictions', str(args.predictions)))
    Console().print(summarise(history, rows))


if __name__ == '__main__':
    main()
