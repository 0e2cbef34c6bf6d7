"""Plot the losses and metrics of a training, with all its parts if it was resumed, and print its results."""

from __future__ import annotations

import argparse
import json
from pathlib import Path, PureWindowsPath

from .cli import add_overwrite, check_output, print_table
from .errors import CommandError, errors_of

# What is drawn, by the last part of its name in the logs, and what a figure calls it; the most telling first.
METRICS = {
    'PQ': 'PQ (%)',
    'bbox_mAP': 'box mAP',
    'segm_mAP': 'mask mAP',
    'mIoU': 'mIoU (%)',
    'top1': 'top-1 accuracy (%)',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument('work_dir', type=Path, help='work dir of a training')
    parser.add_argument('--out', type=Path, help='image to write (default: WORK_DIR/curves.png)')
    add_overwrite(parser)
    parser.add_argument('--predictions', type=Path, help='drawn predictions, to list them in the table')


def run(args: argparse.Namespace) -> None:
    """Draw the curves and print the results."""
    from rich.table import Table

    out = args.out or args.work_dir / 'curves.png'
    if args.out is not None:  # the default file belongs to the training and is replaced
        check_output(out, args.overwrite)
    losses, metrics = read_history(args.work_dir)
    with errors_of('--out'):
        draw(losses, metrics, out)
    table = Table(show_header=False)
    for name, series in metrics.items():
        best = max(series, key=series.__getitem__)
        table.add_row(name, f'{series[max(series)]:.3f} (best {series[best]:.3f}, iteration {best})')
    table.add_row('training loss', f'{losses[max(losses)]:.4f}')
    table.add_row('iterations', str(max(max(series) for series in (losses, *metrics.values()))))
    for path in find_checkpoints(args.work_dir):
        table.add_row('checkpoint', str(path))
    table.add_row('curves', str(out))
    if args.predictions is not None:
        table.add_row('predictions', str(args.predictions))
    print_table(table)


def read_history(work_dir: Path) -> tuple[dict[int, float], dict[str, dict[int, float]]]:
    """Read the scalars of all parts of a training; a resumed part replaces the iterations that it repeats.

    Returns:
        The losses by iteration, and for each metric by name its values, each at the iteration of the validation, or at
        the last one that was logged before it if the log counts validations by epoch.

    Raises:
        CommandError: if the folder holds no training.
    """
    losses: dict[int, float] = {}
    metrics: dict[str, dict[int, float]] = {}
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        last = None
        lines = path.read_text().splitlines()
        for record in (
            json.loads(line) for line in lines if line.endswith('}')
        ):  # a killed process may cut its last line
            if 'loss' in record and 'iter' in record:
                if last is None:  # this part repeats what follows
                    losses = _before(record['iter'], losses)
                    metrics = {name: _before(record['iter'], series) for name, series in metrics.items()}
                last = record['iter']
                losses[last] = record['loss']
            elif last is not None:
                at = max(last, record.get('step', 0))  # an epoch has at least one iteration
                for key, value in record.items():
                    if key.rpartition('/')[2] in METRICS:
                        metrics.setdefault(key, {})[at] = value
    if not losses:
        raise CommandError(f'{work_dir} holds no training: there is no loss in its */vis_data/scalars.json')
    found = {key: series for key, series in sorted(metrics.items()) if series}
    last = [key.rpartition('/')[2] for key in found]
    # The full name, such as night/mIoU, where several evaluators give one metric.
    return losses, {key if last.count(name) > 1 else name: found[key] for key, name in zip(found, last, strict=True)}


def _before(iteration: int, series: dict[int, float]) -> dict[int, float]:
    return {key: value for key, value in series.items() if key < iteration}


def draw(losses: dict[int, float], metrics: dict[str, dict[int, float]], out: Path) -> None:
    """Draw the training loss, as logged and smoothed, and the validation metrics if there are any."""
    import numpy as np

    from ..analysis.plotting import COLOURS, STYLES, saved_figure

    values = np.array(list(losses.values()))
    reach = max(1, len(values) // 20)
    smooth = [values[max(0, i - reach) : i + reach + 1].mean() for i in range(len(values))]
    with saved_figure(out, 1, 2 if metrics else 1, (4.5, 3.4)) as axes:
        axes[0, 0].plot(list(losses), values, color=COLOURS[0], alpha=0.35, linewidth=1, label='logged')
        axes[0, 0].plot(list(losses), smooth, color=COLOURS[0], linewidth=2, label='smoothed')
        for (name, series), (colour, marker) in zip(metrics.items(), STYLES[1:], strict=False):
            points = list(series), list(series.values())
            axes[0, 1].plot(*points, color=colour, marker=marker, linewidth=2, label=label_of(name))
        for axis, label in zip(axes[0], ('training loss', 'validation'), strict=False):
            axis.set(xlabel='iteration', ylabel=label, xlim=(0, None))
            axis.grid(alpha=0.3)
            axis.legend(frameon=False, fontsize=9)
        if metrics:
            axes[0, 1].margins(y=0.15)
            axes[0, 1].set_ylim(bottom=0)


def label_of(name: str) -> str:
    """Return what a figure calls a metric."""
    prefix, _, last = name.rpartition('/')
    return f'{prefix}: {METRICS[last]}' if prefix else METRICS[last]


def find_checkpoints(work_dir: Path) -> list[Path]:
    """Find the last checkpoint of a work dir and the best ones."""
    note = work_dir / 'last_checkpoint'  # the work dir may have moved since it was written
    last = [work_dir / PureWindowsPath(note.read_text().strip()).name] if note.is_file() else []
    return [path for path in [*last, *sorted(work_dir.glob('best_*.pth'))] if path.is_file()]
