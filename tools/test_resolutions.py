"""Test one or more models at many image sizes: a table, a CSV and a JSON file, and curves of metric and time."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from mmengine.dist import is_main_process
from rich.console import Console

from mmrope.checkpoints.files import write_whole
from mmrope.commands.resolutions import check_metric, make_table, plan, sweep, write_csv
from mmrope.commands.runner import ToolParser, add_arguments, errors_in_one_sentence
from mmrope.commands.sizes import parse_size
from mmrope.commands.skipping import Skips


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = ToolParser(prog='test_resolutions.py', description=__doc__)
    parser.add_argument(
        'pairs',
        nargs='+',
        metavar='CONFIG CHECKPOINT',
        help='a config file and a checkpoint (a file, a URL, hf-hub:OWNER/NAME), and more of these for one plot',
    )
    parser.add_argument(
        '--sizes',
        nargs='+',
        required=True,
        type=_size,
        metavar='SIZE',
        help="N: the config's way to resize, its shorter side made N; HEIGHTxWIDTH: exactly this; "
        'short:N: the shorter side N, the longer one without limit',
    )
    parser.add_argument('--labels', nargs='+', metavar='NAME', help='a name for each pair (default: the config)')
    parser.add_argument('--metric', help='what to draw (default: the first of box mAP, mask mAP, mIoU, top-1)')
    parser.add_argument(
        '--scale-windows', action='store_true', help="scale the backbone's window_size along with the image, rounded"
    )
    add_arguments(parser)
    parser.set_defaults(work_dir='work_dirs/resolutions')
    args = parser.parse_args(arguments)
    if len(args.pairs) % 2:
        parser.error(f'each CONFIG needs a CHECKPOINT, and these are {len(args.pairs)}: {" ".join(args.pairs)}')
    args.pairs = list(zip(args.pairs[::2], args.pairs[1::2], strict=True))
    if args.labels is not None and len(set(args.labels)) != len(args.pairs):
        parser.error(f'--labels: {len(args.pairs)} models need as many different names, not {" ".join(args.labels)}')
    return args


def _size(text: str):
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Test as the command line says."""
    args = parse_arguments(arguments)
    skips = Skips('test_resolutions.py', args.traceback)
    with errors_in_one_sentence('test_resolutions.py', args) as run:
        measurements = plan(args, args.pairs, args.sizes, skips, args.labels, args.scale_windows)
        sweep(measurements, run, skips)
        speaks = is_main_process()
        results = [measurement.result for measurement in measurements if measurement.result]
        if speaks and results:
            run.started = False  # what goes wrong from here on is the tool's
            report(results, args)
    if speaks:
        skips.report(f'{len(results)} measured')


def report(results: list[dict], args: argparse.Namespace) -> None:
    """Print the table and write the files."""
    from mmrope.analysis.plotting import add_tick, draw_panels

    folder = Path(args.work_dir)
    metric = check_metric(args.metric, results)
    Console().print(make_table(results))
    write_csv(results, folder / 'resolutions.csv')
    with write_whole(folder / 'resolutions.json') as part:
        part.write_text(json.dumps(results, indent=2) + '\n')
    drawn = [result for result in results if metric in result['metrics']]
    ticks: dict[float, str] = {}
    curves: dict[str, dict[str, list[tuple[float, float]]]] = {metric: {}, 'time (ms / image)': {}}
    for result in drawn:
        add_tick(ticks, result['pixels'], result['size'])
        for axis, value in zip(curves, (result['metrics'][metric], result['ms_per_image']), strict=True):
            curves[axis].setdefault(result['label'], []).append((result['pixels'], value))
    draw_panels(curves, ticks, folder / 'resolutions.png')
    print(f'{folder}/resolutions.csv, .json and .png are written')


if __name__ == '__main__':
    main()
