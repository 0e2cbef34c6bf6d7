"""List the published weights that mmrope's backbones load."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from mmrope.weights.known import KNOWN, KnownWeights

LEFT, RIGHT = ('name', 'model', 'rope', 'ape', 'rpb', 'patch'), ('window', 'params', 'top-1 224', 'top-1 384')
# Wide enough for every row, where no terminal says how wide it is.
WIDTH = 220


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog='list_weights.py', description=__doc__)
    parser.add_argument('--format', choices=['table', 'markdown', 'json'], default='table', help='default: table')
    return parser.parse_args(arguments)


def row(weights: KnownWeights) -> list[str]:
    """Write one checkpoint as text, blank where nothing is known."""
    cells = [
        weights.name,
        f'{weights.backbone} {weights.arch}',
        weights.rope,
        'yes' if weights.ape else None,
        'yes' if weights.rpb else None,
        weights.patch_size,
        weights.window_size,
        f'{weights.num_params() / 1e6:.1f} M',
        weights.top1_224,
        weights.top1_384,
        weights.timm,
        weights.licence,
    ]
    return ['' if cell is None else str(cell) for cell in cells]


def make_table(title: str | None, **style: Any) -> Table:
    """Make the table of all checkpoints."""
    table = Table(title=title, **style)
    for header in (*LEFT, *RIGHT, 'timm', 'licence'):
        table.add_column(header, justify='right' if header in RIGHT else 'left')
    for weights in KNOWN:
        table.add_row(*row(weights))
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """List as the command line says."""
    args = parse_arguments(arguments)
    if args.format == 'json':
        rows = [dict(asdict(weights), checkpoint=weights.checkpoint, params=weights.num_params()) for weights in KNOWN]
        print(json.dumps(rows, indent=2))
        return
    console = Console()
    if args.format == 'markdown' or not console.is_terminal:
        console = Console(width=WIDTH)
    style = (
        dict(box=MARKDOWN)
        if args.format == 'markdown'
        else dict(
            caption='checkpoint: timm:NAME where rpb is yes, else hf-hub:naver-ai/NAME; blank: none, or none found'
        )
    )
    console.print(make_table('ImageNet-1k weights, top-1 in %' if args.format == 'table' else None, **style))


if __name__ == '__main__':
    main()
