#!/usr/bin/env python
"""Measure time and memory of backbones side by side, at any size, in inference and in training."""

import argparse
import itertools
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmrope.commands.outputs import add_overwrite, check_output
from rich.console import Console
from rich.status import Status

from mmrope.commands.measuring import (
    DTYPES,
    MODES,
    Measurement,
    Setting,
    compare,
    environment,
    import_modules,
    load_backbone,
)
from mmrope.commands.runner import errors_in_one_sentence
from mmrope.commands.skipping import Skips

DEFAULT_ROUNDS = 5


def parse_size(text: str) -> tuple[int, int]:
    """'512' or 'HEIGHTxWIDTH' to pixels."""
    sides = text.lower().split('x')
    if len(sides) > 2 or not all(side.isascii() and side.isdigit() and int(side) for side in sides):
        raise argparse.ArgumentTypeError(
            f'a size is N or HEIGHTxWIDTH in pixels, as 512 or 800x1333, and {text!r} is not'
        )
    return int(sides[0]), int(sides[-1])


def positive(text: str) -> int:
    """A number of at least 1."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f'must be a whole number of at least 1, but got {text!r}')
    return int(text)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog='benchmark.py', description=__doc__)
    parser.add_argument(
        'configs', nargs='*', metavar='CONFIG', help='model configs; the first is the measure of the others'
    )
    parser.add_argument('--suite', metavar='FILE', help='measure the rows of this file instead, as benchmarks/cpu.py')
    parser.add_argument('--rows', nargs='+', metavar='ROW', help='only these rows of the suite')
    parser.add_argument('--sizes', nargs='+', type=parse_size, default=[(512, 512)], metavar='SIZE', help='N or HxW')
    parser.add_argument('--modes', nargs='+', choices=MODES, default=['inference'])
    parser.add_argument('--batch', type=positive, help='images at a time (default: 1, or as the suite has it)')
    parser.add_argument(
        '--rounds', type=positive, help=f'timed rounds (default: {DEFAULT_ROUNDS}, or as the suite has it)'
    )
    parser.add_argument('--device', default='cpu', help="as torch names it, 'cuda' (default: %(default)s)")
    parser.add_argument('--dtype', choices=DTYPES, default='float32', help='what to autocast to (default: %(default)s)')
    parser.add_argument('--compile', action='store_true', help='measure each with torch.compile besides')
    parser.add_argument('--threads', type=positive, help="on the CPU (default: torch's choice)")
    parser.add_argument('--no-memory', action='store_true', help='do not measure memory, which takes a step more each')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmark'), help='folder (default: %(default)s)')
    add_overwrite(parser)
    parser.add_argument('--traceback', action='store_true', help='show the frames of an error, not only its message')
    parser.set_defaults(launcher='none')
    args = parser.parse_args(arguments)
    if bool(args.configs) == bool(args.suite):
        parser.error('give either configs or --suite')
    if args.rows and not args.suite:
        parser.error('--rows chooses from a --suite')
    try:
        torch.empty(1, device=args.device)
    except (RuntimeError, AssertionError) as error:
        parser.error(f'--device {args.device}: {str(error).splitlines()[0]}')
    return args


def read_rows(args: argparse.Namespace, skips: Skips) -> dict[str, dict[str, Any]]:
    """Rows by name: each has candidates by name, sizes and modes; configs that cannot be read are skipped."""
    if args.configs:
        names = [Path(config).stem for config in args.configs]
        if len(set(names)) < len(names):
            raise ValueError(f'configs must have different names, but got {", ".join(args.configs)}')
        candidates = {}
        for name, config in zip(names, args.configs):
            with skips.skipping(config):
                candidates[name] = load_backbone(config)
        skips.check(candidates)
        return {'configs': dict(candidates=candidates, sizes=args.sizes, modes=args.modes)}
    sys.path.insert(0, str(Path(args.suite).resolve().parent))
    suite = Config.fromfile(args.suite, import_custom_modules=False).to_dict()
    import_modules(suite.get('custom_imports', {}).get('imports', ()))
    unknown = set(args.rows or ()) - set(suite['rows'])
    if unknown:
        raise ValueError(f'--rows must be of {", ".join(suite["rows"])}, but got {", ".join(sorted(unknown))}')
    return {
        name: dict(
            candidates={key: suite['candidates'][key] for key in row['candidates']},
            sizes=[parse_size(size) for size in row['sizes']],
            modes=row['modes'],
            rounds=row.get('rounds', DEFAULT_ROUNDS),
            batch=row.get('batch', 1),
        )
        for name, row in suite['rows'].items()
        if not args.rows or name in args.rows
    }


def settings_of(row: dict[str, Any], args: argparse.Namespace) -> Iterator[Setting]:
    """Each size in each mode."""
    for mode, size in itertools.product(row['modes'], row['sizes']):
        yield Setting(size, args.batch or row.get('batch', 1), mode, args.device, args.dtype, args.threads)


def table_of(measurements: list[Measurement]) -> str:
    """A Markdown table; ratios are to the first candidate."""
    first = measurements[0]
    setting = first.setting
    lines = [
        f'{setting.mode}, {setting.size[0]} x {setting.size[1]}, batch {setting.batch}, {setting.dtype}',
        '',
        '| | seconds | spread | images / s | time ratio | memory | memory ratio |',
        '| --- | ---: | ---: | ---: | ---: | ---: | ---: |',
    ]
    for entry in measurements:
        memory, ratio = '', ''
        if entry.memory is not None:
            memory, ratio = f'{entry.memory / 2**20:,.0f} MiB', f'{entry.memory / first.memory:.2f}'
        lines.append(
            f'| {entry.candidate} | {entry.median:.3f} | {entry.spread:.0%} | {entry.throughput:.2f} '
            f'| {entry.median / first.median:.3f} | {memory} | {ratio} |'
        )
    return '\n'.join(lines)


def draw(measurements: list[Measurement], out: Path) -> None:
    """Time and memory against the image size, a curve for each candidate and mode."""
    from mmrope.analysis.plotting import add_tick, draw_panels  # here: a machine without matplotlib can measure

    panels = defaultdict(lambda: defaultdict(list))
    ticks: dict[float, str] = {}
    for entry in measurements:
        height, width = entry.setting.size
        pixels = (height * width) ** 0.5
        name = f'{entry.candidate}, {entry.setting.mode}'
        add_tick(ticks, pixels, str(height) if height == width else f'{height}x{width}')
        panels['time (s)'][name].append((pixels, entry.median))
        if entry.memory is not None:
            panels['memory (GiB)'][name].append((pixels, entry.memory / 2**30))
    draw_panels(panels, ticks, out)


def run(args: argparse.Namespace, skips: Skips) -> None:
    """Measure and write after each setting, so that an interruption loses one at most."""
    rows = read_rows(args, skips)
    for name in rows:
        check_output(args.out / f'{name}.json', args.overwrite)
    for name, row in rows.items():
        candidates = row['candidates']
        if args.compile:
            candidates = candidates | {f'{key}, compiled': dict(cfg, compile=True) for key, cfg in candidates.items()}
        done: list[Measurement] = []
        for setting in settings_of(row, args):
            measurements = measure(
                name, candidates, setting, args.rounds or row.get('rounds', DEFAULT_ROUNDS), args, skips
            )
            if measurements:
                done += measurements
                write(done, args, name)
        if len({entry.setting.size for entry in done}) > 1:
            draw(done, args.out / f'{name}.png')
        skips.check(done)


def measure(
    name: str,
    candidates: dict[str, dict],
    setting: Setting,
    rounds: int,
    args: argparse.Namespace,
    skips: Skips,
) -> list[Measurement]:
    """Measure one setting and print it; a candidate that fails in it is skipped."""
    title = f'{name}, {setting.mode}, {setting.size[0]} x {setting.size[1]}: '
    with Console(stderr=True).status(title) as status:
        progress = partial(_show, status, title)
        measurements = compare(
            candidates, setting, rounds, not args.no_memory, progress, lambda key: skips.skipping(title + key)
        )
    if measurements:
        print(f'\n{name}: {table_of(measurements)}', flush=True)
    return measurements


def write(done: Sequence[Measurement], args: argparse.Namespace, name: str) -> None:
    """Write what there is of a row."""
    args.out.mkdir(parents=True, exist_ok=True)
    result = dict(environment=environment(args.device, args.threads), measurements=[entry.as_dict() for entry in done])
    (args.out / f'{name}.json').write_text(json.dumps(result, indent=1) + '\n')


def _show(status: Status, title: str, text: str) -> None:
    status.update(title + text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure as the command line says."""
    args = parse_arguments(arguments)
    skips = Skips('benchmark.py', args.traceback)
    with errors_in_one_sentence('benchmark.py', args):
        run(args, skips)
        print(f'\nwritten to {args.out}')
    skips.report('the rest is measured')


if __name__ == '__main__':
    main()
