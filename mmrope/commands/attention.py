"""Measure mean attention distance and entropy of each block and head, and draw where a query looks.

Writes attention.json and attention.png, and with --query the attention maps of each checkpoint and image.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, cast

from .cli import (
    add_device,
    add_options,
    add_out_dir,
    add_overwrite,
    check_device,
    check_output,
    labels_of,
    pairs_of,
    positive,
    print_table,
    unused,
)
from .errors import CommandError, errors_of
from .skipping import Skips

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..analysis.attention import BlockStatistics
    from ..layers import Block
    from ..models import RoPESwin, RoPEViT

HEADERS = ('block', 'grid', 'window', 'distance (px)', 'heads', 'uniform', 'entropy (nats)', 'heads', 'uniform')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument('models', nargs='+', metavar='CONFIG CHECKPOINT', help='one or more pairs')
    parser.add_argument(
        '--images', nargs='+', required=True, metavar='IMAGE', help='image files, folders of images, or globs'
    )
    parser.add_argument('--max-images', type=positive, metavar='N', help='use only the first N images')
    parser.add_argument('--labels', nargs='+', metavar='NAME', help='a name for each curve (default: the config)')
    parser.add_argument(
        '--query',
        nargs=2,
        type=int,
        metavar=('X', 'Y'),
        help="draw where the token at this pixel of the network's input looks",
    )
    parser.add_argument('--blocks', nargs='+', type=int, metavar='I', help='blocks to draw (default: all)')
    parser.add_argument(
        '--heads', nargs='+', type=int, default=[], metavar='I', help='heads to draw in addition to their mean'
    )
    add_out_dir(parser, 'work_dirs/attention')
    add_options(parser)
    add_device(parser)
    add_overwrite(parser)


def run(args: argparse.Namespace) -> None:
    """Measure, draw and write."""
    from ..analysis.figures import draw_attention
    from .config import prepare_process

    if args.query is None and (args.blocks or args.heads):
        raise CommandError(f'{"--blocks" if args.blocks else "--heads"} needs --query X Y, whose maps it chooses')
    check_device(args.device)
    models = pairs_of(args.models)
    labels = labels_of(models, args.labels)
    written = [args.out_dir / 'attention.png', args.out_dir / 'attention.json']
    for path in written:
        check_output(path, args.overwrite)
    prepare_process()
    skips, of_models = Skips(args.prog, args.traceback), Skips(args.prog, args.traceback)
    paths = read_images(args, skips)
    curves, rows = {}, []
    for label, (config, checkpoint) in zip(labels, models, strict=True):
        with of_models.skipping(label):
            curves[label], count, maps = analyse(args, label, config, checkpoint, paths, skips)
            blocks = list(map(asdict, curves[label]))
            rows.append(dict(label=label, config=config, checkpoint=checkpoint, images=count, blocks=blocks))
            written += maps
            print_statistics(label, curves[label])
    of_models.check(curves)
    if curves:
        draw_attention(curves, written[0])
        written[1].write_text(json.dumps(rows, indent=2) + '\n')
        print('\n'.join(f'wrote {path}' for path in written))
    skips.problems += of_models.problems
    skips.report(f'{len(curves)} of {len(models)} models analysed')


def read_images(args: argparse.Namespace, skips: Skips) -> list[Path]:
    """List the images that can be read.

    Raises:
        CommandError: if there is none.
    """
    from .images import find_images, note_on_depth, read_image

    found, problems = find_images(args.images)
    paths = []
    for path in found[: args.max_images]:
        with skips.skipping(path):
            if note := note_on_depth(path, read_image(path)):
                sys.stderr.write(f'{args.prog}: {note}\n')
            paths.append(path)
    skips.problems += problems
    if not paths:
        raise CommandError(f'--images: {"; ".join(skips.problems)}')
    return paths


def analyse(
    args: argparse.Namespace, label: str, config: str, checkpoint: str, paths: Sequence[Path], skips: Skips
) -> tuple[list[BlockStatistics], int, list[Path]]:
    """Measure one model on the images, and skip those that fail.

    Returns:
        Its statistics, the number of images behind them, and the maps that were drawn.

    Raises:
        CommandError: if it cannot be loaded, its backbone is not mmrope's, or no image is left.
    """
    from rich.console import Console
    from rich.progress import track

    from ..analysis.attention import image_sums, mean_statistics
    from .config import load_config
    from .models import backbone_of, head_of, load_model, prepare_image

    cfg = load_config(config, args.cfg_options)
    model = load_model(cfg, checkpoint, args.device)
    if (cfg.model.get('test_cfg') or {}).get('mode') == 'slide':
        sys.stderr.write(
            f"{args.prog}: {label}: tests slide a window (model.test_cfg.mode='slide'), and this sees whole images\n"
        )
    drawn = chosen_blocks(backbone_of(model), args.blocks, args.heads)
    of_images, maps, of_model, names = [], [], Skips(args.prog, args.traceback), set[str]()
    for path in track(paths, label, console=Console(stderr=True)):
        with of_model.skipping(f'{label}, {path}'):
            image = prepare_image(cfg, model, str(path))
            sums = image_sums(backbone_of(model), image, head_of(model))
            if args.query:
                out = args.out_dir / unused(f'maps_{label}_{path.stem}.png'.replace('/', '_'), names)
                draw_query(args, model, image, drawn, out)
                maps.append(out)
            of_images.append(sums)
    if not of_images:
        raise of_model.errors[0]
    skips.problems += of_model.problems
    return mean_statistics(backbone_of(model), of_images), len(of_images), maps


def draw_query(args: argparse.Namespace, model: nn.Module, image: Tensor, blocks: Sequence[str], out: Path) -> None:
    """Draw the maps of some blocks of one image."""
    from ..analysis.attention import attention_maps
    from ..analysis.figures import draw_maps
    from .models import backbone_of, head_of

    x, y = args.query
    with errors_of('--query'):
        maps = attention_maps(backbone_of(model), image, x, y, head_of(model))
    draw_maps(image, tuple(args.query), {name: maps[name] for name in blocks}, args.heads, out)


def chosen_blocks(backbone: RoPEViT | RoPESwin, blocks: Sequence[int] | None, heads: Sequence[int]) -> list[str]:
    """Return the names of the blocks to draw, chosen by their numbers.

    Raises:
        CommandError: if there is no such block, or a head that one of them does not have.
    """
    from ..analysis.attention import strides_of

    names = list(strides_of(backbone))
    numbers = range(len(names)) if blocks is None else blocks
    if not set(numbers) <= set(range(len(names))):
        raise CommandError(f'--blocks must be from 0 to {len(names) - 1}, got {numbers}')
    chosen = [names[i] for i in numbers]
    fewest = min(cast('Block', backbone.get_submodule(name)).attn.num_heads for name in chosen)
    if not set(heads) <= set(range(fewest)):
        raise CommandError(
            f'--heads must be from 0 to {fewest - 1}, the heads that all blocks to draw have, got {heads}'
        )
    return chosen


def print_statistics(label: str, blocks: Sequence[BlockStatistics]) -> None:
    """Print the table of one checkpoint: means over heads, and the heads that differ most."""
    from rich.table import Table

    table = Table(title=label)
    for header in HEADERS:
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
    print_table(table)
