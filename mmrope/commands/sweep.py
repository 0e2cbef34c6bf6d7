"""Test one or more models at many image sizes: print a table, write CSV and JSON, and plot metric and time."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cli import add_options, add_run, labels_of, pairs_of, parse_size, print_table
from .plot import METRICS

if TYPE_CHECKING:
    from .resolutions import Model
    from .skipping import Skips


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        'pairs',
        nargs='+',
        metavar='CONFIG CHECKPOINT',
        help='a config and a checkpoint (a file, a URL, hf-hub:OWNER/NAME); several pairs share one plot',
    )
    parser.add_argument(
        '--sizes',
        nargs='+',
        required=True,
        type=parse_size,
        metavar='SIZE',
        help='N: resize as the config does, with N as the shorter side; HxW: exactly this size; '
        'short:N: the shorter side N, the longer one without limit',
    )
    parser.add_argument('--labels', nargs='+', metavar='NAME', help='a name for each pair (default: the config)')
    parser.add_argument(
        '--metric', help=f'metric to plot (default: the first that a test gives of {", ".join(METRICS)})'
    )
    parser.add_argument(
        '--scale-windows', action='store_true', help="scale the backbone's window_size along with the image, rounded"
    )
    add_options(parser)
    add_run(parser, 'work_dirs/resolutions')


def run(args: argparse.Namespace) -> None:
    """Test, and report the results."""
    from mmengine.dist import is_main_process

    from .resolutions import plan, sweep
    from .runner import processes
    from .skipping import Skips

    pairs = pairs_of(args.pairs)
    labels = labels_of(pairs, args.labels)
    skips = Skips(args.prog, args.traceback)
    with processes(args.launcher):
        models = read_models(args, labels, pairs, skips)
        measurements = plan(models, args.sizes, Path(args.work_dir, 'results'), skips, args.scale_windows)
        skips.check(measurements)
        sweep(measurements, args.run, skips, args.metric)
        speaks = is_main_process()
    results = [measurement.result for measurement in measurements if measurement.result]
    if speaks and results:
        args.run.started = False  # an error from here on is not a test's
        report(results, Path(args.work_dir), args.metric)
    if speaks:
        skips.report(f'{len(results)} measured')


def read_models(
    args: argparse.Namespace, labels: Sequence[str], pairs: Sequence[tuple[str, str]], skips: Skips
) -> list[Model]:
    """Read the configs of the command line, and prepare each for a test of its checkpoint."""
    from .resolutions import Model
    from .runner import prepare_test, read_run_config

    models = []
    for label, (config, checkpoint) in zip(labels, pairs, strict=True):
        with skips.skipping(label):
            cfg = read_run_config(argparse.Namespace(**{**vars(args), 'config': config}))
            prepare_test(cfg, checkpoint, trust_checkpoint=args.trust_checkpoint)
            cfg.log_level = 'WARNING'  # leave the terminal to the progress bar
            models.append(Model(label, cfg, args.trust_checkpoint))
    return models


def report(results: list[dict[str, Any]], folder: Path, metric: str | None) -> None:
    """Print the table, write the files and plot the curves."""
    import json

    from ..analysis.plotting import add_tick, draw_panels
    from ..checkpoints.files import write_whole
    from .resolutions import check_metric, make_table, write_csv

    metric = check_metric(metric, results)
    print_table(make_table(results))
    write_csv(results, folder / 'resolutions.csv')
    with write_whole(folder / 'resolutions.json') as part:
        part.write_text(json.dumps(results, indent=2) + '\n')
    drawn = [result for result in results if metric in result['metrics']]
    ticks: dict[float, str] = {}
    label = METRICS.get(metric.rpartition('/')[2], metric)
    curves: dict[str, dict[str, list[tuple[float, float]]]] = {label: {}, 'time (ms / image)': {}}
    for result in drawn:
        add_tick(ticks, result['pixels'], result['size'])
        for axis, value in zip(curves, (result['metrics'][metric], result['ms_per_image']), strict=True):
            curves[axis].setdefault(result['label'], []).append((result['pixels'], value))
    draw_panels(curves, ticks, folder / 'resolutions.png')
    print(f'wrote {folder}/resolutions.csv, .json and .png')
