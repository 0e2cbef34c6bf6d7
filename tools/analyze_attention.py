"""Measure mean attention distance and entropy of each block and head, and draw where a query looks.

Writes attention.json and attention.png, and with --query a picture of the maps for each checkpoint and image.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean

from mmengine.utils import track_iter_progress
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from mmrope.analysis.attention import BlockStatistics, attention_maps, attention_statistics
from mmrope.analysis.figures import draw_attention, draw_maps
from mmrope.analysis.models import backbone_of, find_images, load_model, prepare_image, read_config, study_parser
from mmrope.engine.launch import LaunchError, errors_in_one_sentence

WIDTH = 130


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = study_parser('analyze_attention.py', __doc__)
    parser.add_argument('models', nargs='+', metavar='CONFIG CHECKPOINT', help='one pair or more')
    parser.add_argument('--images', nargs='+', required=True, metavar='PATH', help='image files, or folders of them')
    parser.add_argument('--max-images', type=int, metavar='N', help='only the first of them')
    parser.add_argument('--labels', nargs='+', metavar='NAME', help='names of the curves (default: of the configs)')
    parser.add_argument(
        '--query', nargs=2, type=int, metavar=('X', 'Y'), help='draw where this pixel of the image, as fed, looks'
    )
    parser.add_argument('--blocks', nargs='+', type=int, metavar='I', help='blocks to draw (default: all)')
    parser.add_argument('--heads', nargs='+', type=int, default=[], metavar='I', help='heads besides their mean')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/attention'), help='folder (default: %(default)s)')
    args = parser.parse_args(arguments)
    args.models = (
        list(zip(args.models[::2], args.models[1::2]))
        if len(args.models) % 2 == 0
        else parser.error(f'wants pairs of CONFIG CHECKPOINT, and got {len(args.models)} names')
    )
    args.labels = args.labels or [Path(config).stem for config, _ in args.models]
    if len(args.labels) != len(args.models) or len(set(args.labels)) < len(args.labels):
        parser.error(f'--labels wants {len(args.models)} names that differ, and there are: {" ".join(args.labels)}')
    return args


def make_table(label: str, blocks: Sequence[BlockStatistics]) -> Table:
    """Make the table of one checkpoint: means over heads, and the heads that differ most."""
    table = Table(title=label)
    for header in (
        'block',
        'grid',
        'window',
        'distance (px)',
        'heads',
        'uniform',
        'entropy (nats)',
        'heads',
        'uniform',
    ):
        table.add_column(header, justify='left' if header == 'block' else 'right', no_wrap=header == 'block')
    for block in blocks:
        sizes = (
            '{}x{}'.format(*part[0]) if len(part) == 1 else f'{len(part)} sizes'
            for part in (block.grids, block.largest_windows)
        )
        cells = [block.block, *sizes]
        for heads, uniform in (
            (block.distance_px, block.uniform_distance_px),
            (block.entropy_nats, block.uniform_entropy_nats),
        ):
            cells += [f'{mean(heads):.2f}', f'{min(heads):.2f} - {max(heads):.2f}', f'{uniform:.2f}']
        table.add_row(*cells)
    return table


def chosen_maps(maps: Mapping[str, Tensor], blocks: Sequence[int] | None, heads: Sequence[int]) -> dict[str, Tensor]:
    """Choose blocks by their numbers.

    Raises:
        LaunchError: if there is no such block, or a head that one of them does not have.
    """
    names = list(maps)
    numbers = range(len(names)) if blocks is None else blocks
    if not set(numbers) <= set(range(len(names))):
        raise LaunchError(f'--blocks: the backbone has the blocks 0 to {len(names) - 1}, and got {numbers}')
    chosen = {names[i]: maps[names[i]] for i in numbers}
    fewest = min(map(len, chosen.values()))
    if not set(heads) <= set(range(fewest)):
        raise LaunchError(f'--heads: the blocks to draw have the heads 0 to {fewest - 1}, and got {heads}')
    return chosen


def draw_query(args: argparse.Namespace, label: str, model: nn.Module, path: str, image: Tensor) -> Path:
    """Draw the maps of one image."""
    maps = chosen_maps(attention_maps(backbone_of(model), image, *args.query), args.blocks, args.heads)
    out = args.out / f'maps_{label}_{Path(path).stem}.png'
    draw_maps(image, tuple(args.query), maps, args.heads, out)
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and draw as the command line says."""
    args = parse_arguments(arguments)
    curves, written = {}, [args.out / 'attention.png', args.out / 'attention.json']
    with errors_in_one_sentence('analyze_attention.py', args):
        paths = find_images(args.images)[: args.max_images]
        for label, (config, checkpoint) in zip(args.labels, args.models):
            cfg = read_config(config, args.cfg_options)
            model = load_model(cfg, checkpoint, args.device)
            if args.query:
                written += [draw_query(args, label, model, path, prepare_image(cfg, model, path)) for path in paths]
            images = (prepare_image(cfg, model, path) for path in track_iter_progress(paths))
            curves[label] = attention_statistics(backbone_of(model), images)
            print()  # ends the line of the progress bar
            console = Console()
            (console if console.is_terminal else Console(width=WIDTH)).print(make_table(label, curves[label]))
        draw_attention(curves, written[0])
        rows = [
            dict(label=label, config=config, checkpoint=checkpoint, images=len(paths), blocks=list(map(asdict, blocks)))
            for (label, blocks), (config, checkpoint) in zip(curves.items(), args.models)
        ]
        written[1].write_text(json.dumps(rows, indent=2) + '\n')
    print('\n'.join(f'wrote {path}' for path in written))


if __name__ == '__main__':
    main()
