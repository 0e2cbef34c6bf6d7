"""List the published weights that mmrope's backbones load."""

import argparse
import json
from dataclasses import asdict

from ..weights.known import KNOWN, KnownWeights
from .cli import print_table

LEFT, RIGHT = ('name', 'model', 'rope', 'ape', 'rpb', 'patch'), ('window', 'params', 'top-1 224', 'top-1 384')
HEADERS = (*LEFT, *RIGHT, 'timm', 'licence')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        '--format', choices=['table', 'markdown', 'json'], default='table', help='output format (default: table)'
    )


def run(args: argparse.Namespace) -> None:
    """List the weights in the format asked for."""
    if args.format == 'json':
        print(json.dumps([dict(asdict(weights), checkpoint=weights.checkpoint) for weights in KNOWN], indent=2))
    elif args.format == 'markdown':
        rules = ['---:' if header in RIGHT else '---' for header in HEADERS]
        for cells in (HEADERS, rules, *map(row, KNOWN)):
            print(f'| {" | ".join(cells)} |')
    else:
        list_weights()


def list_weights() -> None:
    """Print the table of all checkpoints."""
    from rich.table import Table

    caption = 'checkpoint: timm:NAME if rpb is yes, else hf-hub:naver-ai/NAME; blank: none, or none found'
    table = Table(title='ImageNet-1k weights, top-1 in %', caption=caption)
    for header in HEADERS:
        table.add_column(header, justify='right' if header in RIGHT else 'left')
    for weights in KNOWN:
        table.add_row(*row(weights))
    print_table(table)


def row(weights: KnownWeights) -> list[str]:
    """Format one checkpoint as cells, blank where nothing is known."""
    cells = [
        weights.name,
        f'{weights.backbone} {weights.arch}',
        weights.rope,
        'yes' if weights.ape else None,
        'yes' if weights.rpb else None,
        weights.patch_size,
        weights.window_size,
        f'{weights.params / 1e6:.1f} M',
        weights.top1_224,
        weights.top1_384,
        weights.timm,
        weights.licence,
    ]
    return ['' if cell is None else str(cell) for cell in cells]
