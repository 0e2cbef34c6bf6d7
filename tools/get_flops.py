"""Count the parameters and FLOPs of a config at image sizes of choice, and the share of the rotation.

A multiply-add is two FLOPs. Weights are random; none are downloaded.
"""

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from mmrope.commands.outputs import add_overwrite, check_output
from rich.console import Console
from rich.table import Table

from mmrope.analysis.cost import Cost, config_cost
from mmrope.commands.models import read_config, study_parser
from mmrope.commands.runner import CommandError, errors_in_one_sentence
from mmrope.commands.skipping import Skips

PARTS = ('backbone', 'neck', 'heads', 'total')
WIDTH = 120


def sizes_of(words: Sequence[str]) -> list[tuple[int, int]]:
    """Read sizes: ``N``, ``H W``, or any number of ``HxW``.

    Raises:
        CommandError: if the words are none of these.
    """
    found = [re.fullmatch(r'([1-9]\d*)(?:x([1-9]\d*))?', word) for word in words]
    if all(found):
        if all(match[2] for match in found):
            return [(int(match[1]), int(match[2])) for match in found]
        if len(found) <= 2 and not any(match[2] for match in found):
            return [(int(found[0][1]), int(found[-1][1]))]
    raise CommandError(f'--size takes N, H W, or sizes HxW, in pixels, and got {" ".join(words)}')


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = study_parser('get_flops.py', __doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--size', nargs='+', default=['1024'], metavar='SIZE', help='N, H W, or several HxW (default: %(default)s)'
    )
    parser.add_argument('--out', type=Path, metavar='JSON', help='write the counts to this file besides')
    add_overwrite(parser)
    return parser.parse_args(arguments)


def make_table(costs: Sequence[Cost]) -> Table:
    """Make the table of all sizes."""
    table = Table(caption='1 multiply-add = 2 FLOPs; rotation: of q and k; tables are made once for a size and kept')
    for header in ('image (H x W)', 'part', 'parameters (M)', 'GFLOPs', 'rotation GFLOPs', 'share', 'tables GFLOPs'):
        table.add_column(header, justify='left' if header == 'part' else 'right')
    for cost in costs:
        for part in PARTS:
            if cost.params[part] or cost.flops[part]:
                row = ['', part, f'{cost.params[part] / 1e6:.2f}', f'{cost.flops[part] / 1e9:.3f}']
                if part == 'total':
                    row[0] = f'{cost.size[0]} x {cost.size[1]}'
                    row += [f'{cost.rotation_flops / 1e9:.4f}', f'{cost.rotation_share:.4%}']
                    row += [f'{cost.table_flops / 1e9:.4f}']
                table.add_row(*row, end_section=part == 'total')
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Count as the command line says."""
    args = parse_arguments(arguments)
    skips, costs = Skips('get_flops.py', args.traceback), []
    with errors_in_one_sentence('get_flops.py', args):
        if args.out is not None:
            check_output(args.out, args.overwrite)
        sizes, cfg = sizes_of(args.size), read_config(args.config, args.cfg_options)
        for height, width in sizes:
            with skips.skipping(f'{height}x{width}'):
                costs.append(config_cost(cfg, (height, width), args.device))
        skips.check(costs)
        if args.out is not None and costs:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            rows = [dict(asdict(cost), rotation_share=cost.rotation_share) for cost in costs]
            args.out.write_text(json.dumps(dict(config=args.config, costs=rows), indent=2) + '\n')
    console = Console()
    (console if console.is_terminal else Console(width=WIDTH)).print(make_table(costs))
    skips.report(f'{len(costs)} counted')


if __name__ == '__main__':
    main()
