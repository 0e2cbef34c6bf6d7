"""Repeat the paper's experiment with image sizes on single digits: train, test at other sizes, write docs/."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from mmrope.analysis.reproduction import ROOT, SEEDS, all_runs, carry_out, draw, report, write_measured
from mmrope.datasets.single_digits import make_single_digits


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog='reproduce_resolution.py', description=__doc__)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/resolution'), help='default: %(default)s')
    parser.add_argument('--jobs', type=int, default=len(os.sched_getaffinity(0)), help='runs side by side, a core each')
    parser.add_argument('--seeds', type=int, nargs='+', default=SEEDS, help='default: 0 1 2')
    parser.add_argument('--page', type=Path, default=ROOT / 'docs/resolution.md', help='where the tables go')
    parser.add_argument('--picture', type=Path, default=ROOT / 'docs/images/resolution.png', help='the plot to write')
    parser.add_argument('--report-only', action='store_true', help='write the tables and the plot of what there is')
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is left of the experiment, and write what it found."""
    args = parse_arguments(arguments)
    runs = all_runs(args.work_dir, args.seeds)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit('reproduce_resolution.py: terminated; call it again to go on'))
    try:
        if not args.report_only:
            make_single_digits('data/single_digits')
            carry_out(runs, args.jobs)
        draw(runs, args.picture)
        write_measured(args.page, report(runs))
    except (ValueError, ImportError, OSError, RuntimeError) as error:
        sys.exit(f'reproduce_resolution.py: error: {error}')
    except KeyboardInterrupt:
        sys.exit('reproduce_resolution.py: interrupted; call it again to go on')
    print(f'{args.page} and {args.picture} are written')


if __name__ == '__main__':
    main()
