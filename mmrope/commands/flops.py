"""Count the parameters and FLOPs of a config at any image size, and the share that the rotation takes.

A multiply-add counts as two FLOPs. Weights are random; none are downloaded.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .cli import Size, add_config, add_device, add_overwrite, check_device, check_output, parse_pixels, print_table

if TYPE_CHECKING:
    from mmengine.config import Config

    from ..analysis.cost import Cost

PARTS = ('backbone', 'neck', 'heads', 'total')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_config(parser)
    parser.add_argument(
        '--size',
        nargs='+',
        type=parse_pixels,
        metavar='SIZE',
        help="image sizes, N or HxW (default: the config's test size)",
    )
    parser.add_argument('--out', type=Path, metavar='JSON', help='also write the counts to this file')
    add_device(parser)
    add_overwrite(parser)


def run(args: argparse.Namespace) -> None:
    """Count each size, and print a table."""
    import json
    from dataclasses import asdict

    from .config import read_config
    from .sizes import size_of_tests
    from .skipping import Skips

    check_device(args.device)
    skips, costs = Skips(args.prog, args.traceback), []
    if args.out is not None:
        check_output(args.out, args.overwrite)
    cfg = read_config(args)
    for size in args.size or [parse_pixels('{}x{}'.format(*size_of_tests(cfg)[0]))]:
        with skips.skipping(size.text):
            costs.append(count_config(cfg, size, args.device))
    skips.check(costs)
    if args.out is not None and costs:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        rows = [dict(asdict(cost), rotation_share=cost.rotation_share) for cost in costs]
        args.out.write_text(json.dumps(dict(config=args.config, costs=rows), indent=2) + '\n')
    print_costs(costs)
    skips.report(f'{len(costs)} counted')


def count_config(cfg: Config, size: Size, device: str | None = None) -> Cost:
    """Count the cost of one image for the model of a config, with random weights.

    A detector and a classifier run to the outputs of their heads; the mask head takes the first 100 proposals, as
    in MMDetection's own counter. A segmenter runs to the class map, since one with queries has no other output.
    """
    import copy

    from ..analysis.cost import count
    from .hosts import scope_of
    from .models import blank_batch, build_model
    from .sizes import padding_overrides

    cfg = copy.deepcopy(cfg)
    cfg.merge_from_dict(padding_overrides(cfg, size))
    model = build_model(cfg, device)
    mode = 'predict' if scope_of(cfg) == 'mmseg' else 'tensor'
    return count(model, {**blank_batch(cfg, model, (size.height, size.width)), 'mode': mode})


def print_costs(costs: list[Cost]) -> None:
    """Print the table of all sizes."""
    from rich.table import Table

    table = Table(caption='1 multiply-add = 2 FLOPs; rotation: q and k; tables: cosines and sines, once per block')
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
    print_table(table)
