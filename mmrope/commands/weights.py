"""List the published weights that mmrope's backbones load."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict

from ..weights.known import FAMILY_WEIGHTS, KNOWN, FamilyWeights, KnownWeights
from .cli import print_table

LEFT, RIGHT = ('name', 'model', 'rope', 'ape', 'rpb', 'patch'), ('window', 'params', 'top-1 224', 'top-1 384', 'image')
FAMILY_HEADERS = ('name', 'model', 'image', 'gated', 'licence')
HEADERS = (*LEFT, *RIGHT[:-1], 'timm', 'licence')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        '--format', choices=['table', 'markdown', 'json'], default='table', help='output format (default: table)'
    )


def run(args: argparse.Namespace) -> None:
    """List the weights in the format asked for."""
    if args.format == 'json':
        everything: tuple[KnownWeights | FamilyWeights, ...] = (*KNOWN, *FAMILY_WEIGHTS)
        print(json.dumps([dict(asdict(weights), checkpoint=weights.checkpoint) for weights in everything], indent=2))
    elif args.format == 'markdown':
        print_markdown(HEADERS, list(map(row, KNOWN)))
        print()
        print_markdown(FAMILY_HEADERS, list(map(family_row, FAMILY_WEIGHTS)))
    else:
        list_weights()


def print_markdown(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table in Markdown."""
    rules = ['---:' if header in RIGHT else '---' for header in headers]
    for cells in (headers, rules, *rows):
        print(f'| {" | ".join(cells)} |')


def list_weights() -> None:
    """Print the tables of all checkpoints."""
    from rich.table import Table

    caption = 'checkpoint: timm:NAME if rpb is yes, else hf-hub:naver-ai/NAME; blank: none, or unknown'
    families = 'checkpoint: hf-hub:NAME if there is a / in it, else timm:NAME; image: size of training where it matters'
    for title, note, headers, rows in (
        ('ImageNet-1k weights, top-1 in %', caption, HEADERS, map(row, KNOWN)),
        ('Weights of other families', families, FAMILY_HEADERS, map(family_row, FAMILY_WEIGHTS)),
    ):
        table = Table(title=title, caption=note)
        for header in headers:
            table.add_column(header, justify='right' if header in RIGHT else 'left')
        for cells in rows:
            table.add_row(*cells)
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


def family_row(weights: FamilyWeights) -> list[str]:
    """Write one checkpoint of another family as text."""
    return [
        weights.name,
        f'{weights.backbone} {weights.arch}',
        '' if weights.img_size is None else str(weights.img_size),
        'yes' if weights.gated else '',
        weights.licence,
    ]
