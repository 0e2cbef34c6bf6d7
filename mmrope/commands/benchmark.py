"""Compare time and memory of backbones at any image size, in inference and in training."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cli import add_out_dir, add_overwrite, check_device, check_output, name_of, parse_pixels, positive
from .errors import CommandError, errors_of
from .skipping import Skips

if TYPE_CHECKING:
    from ..analysis.benchmark import Measurement, Setting

ROUNDS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument('configs', nargs='*', metavar='CONFIG', help='model configs; ratios are to the first')
    parser.add_argument(
        '--suite', metavar='FILE', help='measure the rows of this file instead, such as benchmarks/cpu.py'
    )
    parser.add_argument('--rows', nargs='+', metavar='ROW', help='only these rows of the suite')
    parser.add_argument(
        '--sizes',
        nargs='+',
        type=parse_pixels,
        metavar='SIZE',
        help='image sizes, N or HxW (default: 512; a suite has its own)',
    )
    parser.add_argument(
        '--modes',
        nargs='+',
        choices=('inference', 'training'),
        help='what to measure (default: inference; a suite has its own)',
    )
    parser.add_argument('--batch', type=positive, help='batch size (default: 1, or as in the suite)')
    parser.add_argument('--rounds', type=positive, help=f'timed rounds (default: {ROUNDS}, or as in the suite)')
    parser.add_argument('--device', default='cpu', help='torch device, such as cuda (default: %(default)s)')
    parser.add_argument(
        '--dtype',
        choices=('float32', 'bfloat16', 'float16'),
        default='float32',
        help='autocast to this dtype; float32: no autocast (default: %(default)s)',
    )
    parser.add_argument('--compile', action='store_true', help='also measure each with torch.compile')
    parser.add_argument('--threads', type=positive, help="threads on the CPU (default: torch's choice)")
    parser.add_argument(
        '--no-memory', action='store_true', help='do not measure memory, which takes one more step each'
    )
    add_out_dir(parser, 'work_dirs/benchmark')
    add_overwrite(parser)


def run(args: argparse.Namespace) -> None:
    """Measure, and write after each setting, so that an interruption loses at most one."""
    if bool(args.configs) == bool(args.suite):
        raise CommandError('give either CONFIG or --suite, and not both')
    if args.rows and not args.suite:
        raise CommandError('--rows needs a --suite')
    if args.suite and (args.sizes or args.modes):
        raise CommandError('--sizes and --modes are those of the --suite')
    check_device(args.device)
    skips = Skips(args.prog, args.traceback)
    if args.suite:
        rows, modules = read_suite(args.suite, args.rows)
    else:
        rows, modules = read_configs(args, skips)
    for name, suffix in itertools.product(rows, ('.json', '.png')):
        check_output(args.out_dir / f'{name}{suffix}', args.overwrite)
    written = False
    for name, row in rows.items():
        done: list[Measurement] = []
        for setting in settings_of(row, args):
            if measurements := measure(name, row, setting, args, skips, partial(import_modules, modules)):
                done += measurements
                write(done, args, name)
                written = True
        if len({entry.setting.size for entry in done}) > 1:
            draw(done, args.out_dir / f'{name}.png')
        skips.check(done)
    if written:
        print(f'\nwrote the results to {args.out_dir}')
    skips.report('the rest was measured' if written else 'nothing was measured')


def import_modules(names: Sequence[str]) -> None:
    """Make the hosts importable, and import the modules that register candidates.

    Raises:
        ImportError: if a module cannot be imported.
    """
    from importlib import import_module

    from .hosts import leave_out_multimodal_models

    leave_out_multimodal_models()
    for name in names:
        import_module(name)


def read_configs(args: argparse.Namespace, skips: Skips) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Make one row of the configs of a command line; a config that cannot be read is skipped.

    Returns:
        The row by its name, and the modules that register its candidates.

    Raises:
        CommandError: if two configs have the same name.
    """
    from .config import load_config, prepare_process
    from .models import backbone_config

    names = [name_of(config) for config in args.configs]
    if len(set(names)) < len(names):
        raise CommandError(f'CONFIG must be files of different names, got {", ".join(args.configs)}')
    prepare_process()
    candidates, modules = {}, []
    for name, config in zip(names, args.configs, strict=True):
        with skips.skipping(config):
            cfg = load_config(config)
            candidates[name] = backbone_config(cfg)
            modules += modules_of(cfg)
    skips.check(candidates)
    sizes = args.sizes or [parse_pixels('512')]
    return {'configs': dict(candidates=candidates, sizes=sizes, modes=args.modes or ['inference'])}, modules


def read_suite(path: str, chosen: Sequence[str] | None = None) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Read the rows of a suite: each has candidates by name, sizes, modes and optionally rounds and batch.

    Args:
        path: path of the suite, such as ``benchmarks/cpu.py``; the modules that it imports may lie beside it.
        chosen: names of the rows; ``None`` for all.

    Returns:
        The rows by name, and the modules that register their candidates.

    Raises:
        CommandError: if the file lacks a part, a row or a candidate does not exist, or a size is invalid.
    """
    from mmengine.config import Config

    sys.path.insert(0, str(Path(path).resolve().parent))
    suite = Config.fromfile(path, import_custom_modules=False).to_dict()
    modules = modules_of(suite)
    import_modules(modules)
    for key in ('rows', 'candidates'):
        if key not in suite:
            raise CommandError(f'--suite {path} must hold rows and candidates, and has no {key}')
    rows = suite['rows']
    if unknown := sorted(set(chosen or ()) - set(rows)):
        raise CommandError(f'--rows must be among {", ".join(rows)}, got {", ".join(unknown)}')
    rows = {name: row for name, row in rows.items() if not chosen or name in chosen}
    for name, row in rows.items():
        if missing := [key for key in ('candidates', 'sizes', 'modes') if key not in row]:
            raise CommandError(f'--suite {path}: row {name} has no {" and no ".join(missing)}')
        if unknown := [key for key in row['candidates'] if key not in suite['candidates']]:
            allowed = ', '.join(suite['candidates'])
            raise CommandError(f'--suite {path}: candidates of a row must be among {allowed}, got {", ".join(unknown)}')
        row['candidates'] = {key: suite['candidates'][key] for key in row['candidates']}
        try:
            row['sizes'] = [parse_pixels(size) for size in row['sizes']]
        except argparse.ArgumentTypeError as error:
            raise CommandError(f'--suite {path}: {error}') from error
    return rows, modules


def modules_of(cfg: Any) -> list[str]:
    """List the modules that a config imports."""
    names = cfg.get('custom_imports', {}).get('imports', [])
    return [names] if isinstance(names, str) else list(names)


def settings_of(row: dict[str, Any], args: argparse.Namespace) -> list[Setting]:
    """List the settings of a row: each size in each mode.

    Raises:
        CommandError: if a mode is unknown.
    """
    from ..analysis.benchmark import Setting

    batch = args.batch or row.get('batch', 1)
    with errors_of('--suite'):
        return [
            Setting(tuple(size), batch, mode, args.device, args.dtype, args.threads)
            for mode, size in itertools.product(row['modes'], row['sizes'])
        ]


def measure(
    name: str,
    row: dict[str, Any],
    setting: Setting,
    args: argparse.Namespace,
    skips: Skips,
    prepare: partial[None],
) -> list[Measurement]:
    """Measure a row in one setting and print it; a candidate that fails is skipped."""
    from rich.console import Console

    from ..analysis.benchmark import compare

    candidates = row['candidates']
    if args.compile:
        candidates = candidates | {f'{key}, compiled': dict(cfg, compile=True) for key, cfg in candidates.items()}
    title = f'{name}, {setting.mode}, {setting.size[0]} x {setting.size[1]}: '
    with Console(stderr=True).status(title) as status:
        measurements = compare(
            candidates,
            setting,
            args.rounds or row.get('rounds', ROUNDS),
            not args.no_memory,
            progress=lambda text: status.update(title + text),
            skipping=lambda key: skips.skipping(title + key),
            prepare=prepare,
        )
    if measurements:
        print(f'\n{name}: {markdown(measurements)}', flush=True)
    return measurements


def markdown(measurements: Sequence[Measurement]) -> str:
    """Format the measurements of a setting as a Markdown table; ratios are to the first candidate."""
    first = measurements[0]
    setting = first.setting
    lines = [
        f'{setting.mode}, {setting.size[0]} x {setting.size[1]}, batch {setting.batch}, {setting.dtype}',
        '',
        '| | seconds | spread | images / s | time ratio | memory | memory ratio |',
        '| --- | ---: | ---: | ---: | ---: | ---: | ---: |',
    ]
    for entry in measurements:
        memory = '' if entry.memory is None else f'{entry.memory / 2**20:,.0f} MiB'
        ratio = f'{entry.memory / first.memory:.2f}' if entry.memory and first.memory else ''
        lines.append(
            f'| {entry.candidate} | {entry.median:.3f} | {entry.spread:.0%} | {entry.throughput:.2f} '
            f'| {entry.median / first.median:.3f} | {memory} | {ratio} |'
        )
    return '\n'.join(lines)


def write(done: Sequence[Measurement], args: argparse.Namespace, name: str) -> None:
    """Write the measurements of a row so far."""
    from ..analysis.benchmark import environment

    args.out_dir.mkdir(parents=True, exist_ok=True)
    result = dict(environment=environment(args.device, args.threads), measurements=[entry.as_dict() for entry in done])
    (args.out_dir / f'{name}.json').write_text(json.dumps(result, indent=1) + '\n')


def draw(measurements: Sequence[Measurement], out: Path) -> None:
    """Draw time and memory over the image size, a curve for each candidate and mode."""
    from ..analysis.plotting import add_tick, draw_panels

    panels: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
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
