"""Repeat the paper's experiment with image sizes on single digits: small models, all variants, several seeds.

``make reproduce-resolution`` runs it from a checkout; it writes docs/resolution.md and its plot. The tools train and
test each run in separate processes of one thread. The files in the folder of a run tell how far it is, so an experiment
that was stopped goes on without repeating anything: a training at its last checkpoint, a test at the next size.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.progress import Progress

from mmrope.analysis.plotting import draw_panels
from mmrope.datasets.single_digits import make_single_digits

ROOT = Path(__file__).parents[2]
CONFIGS = {name: f'classifier_rope_mixed_{name.lower()}_tiny_single_digits' for name in ('ViT', 'Swin')}
# The only differences between the variants.
VARIANTS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    'ViT': {
        'APE': dict(rope=None, ape=True),
        'RoPE-Axial': dict(rope='axial'),
        'RoPE-Mixed': dict(rope='mixed'),
        'RoPE-Mixed + APE': dict(rope='mixed', ape=True),
    },
    'Swin': {
        'RPB': dict(rope=None, rpb=True),
        'RoPE-Axial': dict(rope='axial'),
        'RoPE-Mixed': dict(rope='mixed'),
    },
}
SEEDS = (0, 1, 2)
TRAINED_AT = 48  # pixels
SIZES = (36, 48, 72, 96, 144)  # 0.75 x to 3 x
METRIC = 'accuracy/top1'
BEGIN, END = '<!-- measured: begin -->', '<!-- measured: end -->'


@dataclass(frozen=True)
class Run:
    """One training and its tests, in ``folder``."""

    model: str
    variant: str
    seed: int
    work_dir: Path

    @property
    def folder(self) -> Path:
        """Folder of the run below ``work_dir``."""
        name = self.variant.lower().replace(' + ', '_').replace('-', '_')
        return self.work_dir / f'{self.model.lower()}_{name}' / f'seed_{self.seed}'

    @property
    def trained(self) -> Path:
        """File that exists once the training has ended."""
        return self.folder / 'trained'

    @property
    def tested(self) -> Path:
        """File that exists once all sizes have been tested."""
        return self.folder / 'sizes' / 'resolutions.json'

    def accuracies(self) -> dict[int, float]:
        """Return the top-1 accuracy in percent by image size."""
        return {int(result['size']): result['metrics'][METRIC] for result in json.loads(self.tested.read_text())}

    def share(self, size: int) -> float:
        """Return the accuracy at a size in percent of the accuracy at the training size."""
        return 100 * self.accuracies()[size] / self.accuracies()[TRAINED_AT]

    def commands(self) -> Iterator[list[str]]:
        """Yield the commands left to do, each once the one before has ended."""
        config = f'{CONFIGS[self.model]}.py'
        if not self.trained.is_file():
            options = [f'model.backbone.{key}={value}' for key, value in VARIANTS[self.model][self.variant].items()]
            resume = ['--resume'] if (self.folder / 'last_checkpoint').is_file() else []
            yield [
                *(str(ROOT / 'tools/train.py'), str(ROOT / 'configs' / config), '--work-dir', str(self.folder)),
                *(*resume, '--cfg-options', *options, f'randomness.seed={self.seed}'),
            ]
            self.trained.touch()
        if not self.tested.is_file():
            checkpoint = Path((self.folder / 'last_checkpoint').read_text()).name
            yield [
                *(str(ROOT / 'tools/test_resolutions.py'), str(self.folder / config), str(self.folder / checkpoint)),
                *('--sizes', *map(str, SIZES), '--scale-windows', '--work-dir', str(self.tested.parent)),
            ]


def all_runs(work_dir: Path, seeds: Sequence[int] = SEEDS) -> list[Run]:
    """List the runs: all variants with one seed, then with the next."""
    variants = [(model, variant) for model, named in VARIANTS.items() for variant in named]
    return [Run(model, variant, seed, work_dir) for seed, (model, variant) in product(seeds, variants)]


def carry_out(runs: Sequence[Run], jobs: int) -> None:
    """Do the rest of the runs, several in parallel.

    Raises:
        RuntimeError: if a command fails; the message names its log.
    """
    processes: list[subprocess.Popen] = []

    def finish(run: Run) -> None:
        run.folder.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1'}
        for command in run.commands():
            log = run.folder / f'{Path(command[0]).stem}.log'
            with log.open('a') as file:
                process = subprocess.Popen([sys.executable, *command], env=environment, stdout=file, stderr=file)
                processes.append(process)
                if process.wait():
                    raise RuntimeError(f'{Path(command[0]).name} failed: see {log}')

    with Progress() as progress, ThreadPoolExecutor(jobs) as pool:
        left = [run for run in runs if not run.tested.is_file()]
        bar = progress.add_task('runs', total=len(runs), completed=len(runs) - len(left))
        futures = {pool.submit(finish, run): run for run in left}
        try:
            for future in as_completed(futures):
                future.result()
                run = futures[future]
                progress.advance(bar)
                accuracies = ', '.join(f'{value:.1f} % at {size}' for size, value in run.accuracies().items())
                progress.console.print(f'{run.model}, {run.variant}, seed {run.seed}: {accuracies}')
        finally:  # stop all when one fails or the user interrupts
            for future in futures:
                future.cancel()
            for process in processes:
                if process.poll() is None:
                    process.terminate()


def report(runs: Sequence[Run]) -> str:
    """Format Markdown tables of the finished runs: accuracy, its share of that at training size, and every seed."""
    done = [run for run in runs if run.tested.is_file()]
    lines = [f'{len(done)} of {len(runs)} runs; top-1 accuracy in percent on {_images(done)} images.', '']
    header = ' | '.join(f'{size} ({size / TRAINED_AT:g} x)' for size in SIZES)
    lines += [f'| mean ± standard deviation | {header} |', '|---|' + '---|' * len(SIZES)]
    groups: dict[str, list[Run]] = {}
    for run in done:
        groups.setdefault(f'{run.model}, {run.variant}', []).append(run)
    names = [f'{model}, {variant}' for model, named in VARIANTS.items() for variant in named]
    for name in filter(groups.get, names):
        lines.append(_row(name, [[run.accuracies()[size] for run in groups[name]] for size in SIZES]))
    lines += ['', f'In percent of what the same run reaches at {TRAINED_AT} pixels:', '']
    lines += [f'| mean ± standard deviation | {header} |', '|---|' + '---|' * len(SIZES)]
    for name in filter(groups.get, names):
        lines.append(_row(name, [[run.share(size) for run in groups[name]] for size in SIZES]))
    lines += ['', f'| each seed | {header} |', '|---|' + '---|' * len(SIZES)]
    for name in names:
        for run in groups.get(name, []):
            values = [[run.accuracies()[size]] for size in SIZES]
            lines.append(_row(f'{name}, seed {run.seed}', values))
    return '\n'.join(lines)


def _row(name: str, values: Sequence[Sequence[float]]) -> str:
    cells = [f'{mean(several):.1f}' + (f' ± {stdev(several):.1f}' if len(several) > 1 else '') for several in values]
    return f'| {name} | {" | ".join(cells)} |'


def _images(runs: Sequence[Run]) -> str:
    counts = {result['images'] for run in runs for result in json.loads(run.tested.read_text())}
    return ' or '.join(map(str, sorted(counts))) or 'no'


def draw(runs: Sequence[Run], out: Path) -> None:
    """Draw accuracy over size, one panel per model: the means, and each seed as a dot."""
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for run in runs:
        if run.tested.is_file():
            curves = panels.setdefault(run.model, {})
            curves.setdefault(run.variant, []).extend(run.accuracies().items())
    draw_panels(panels, {size: str(size) for size in SIZES}, out, 'top-1 accuracy (%)', TRAINED_AT)


def write_measured(page: Path, text: str) -> None:
    """Replace the text between the two marks of a page.

    Raises:
        ValueError: if the page has no such marks.
    """
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f'{page} must have {BEGIN} with {END} after it')
    page.write_text(f'{before}{BEGIN}\n\n{text}\n\n{END}{after}')


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/resolution'), help='folder of the runs (default: %(default)s)'
    )
    parser.add_argument(
        '--jobs',
        type=int,
        default=len(os.sched_getaffinity(0)),
        help='parallel runs of one core each (default: the number of cores)',
    )
    parser.add_argument('--seeds', type=int, nargs='+', default=SEEDS, help='seeds to run (default: 0 1 2)')
    parser.add_argument(
        '--page',
        type=Path,
        default=ROOT / 'docs/resolution.md',
        help='page whose tables are replaced (default: %(default)s)',
    )
    parser.add_argument(
        '--picture', type=Path, default=ROOT / 'docs/images/resolution.png', help='plot to write (default: %(default)s)'
    )
    parser.add_argument(
        '--report-only', action='store_true', help='only write the tables and the plot of the finished runs'
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the rest of the experiment, and write the results."""
    args = parse_arguments(arguments)
    runs = all_runs(args.work_dir, args.seeds)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit('terminated; run it again to go on'))
    try:
        if not args.report_only:
            make_single_digits('data/single_digits')
            carry_out(runs, args.jobs)
        draw(runs, args.picture)
        write_measured(args.page, report(runs))
    except (ValueError, ImportError, OSError, RuntimeError) as error:
        sys.exit(f'error: {error}')
    except KeyboardInterrupt:
        sys.exit('interrupted; run it again to go on')
    print(f'wrote {args.page} and {args.picture}')


if __name__ == '__main__':
    main()
