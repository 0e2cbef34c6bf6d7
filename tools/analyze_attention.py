"""Measure mean attention distance and entropy of each block and head, and draw where a query looks.

Writes attention.json and attention.png, and with --query a picture of the maps for each checkpoint and image.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean

from mmrope.commands.outputs import add_overwrite, check_output
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from mmrope.analysis.attention import BlockStatistics, attention_maps, image_sums, mean_statistics
from mmrope.analysis.figures import draw_attention, draw_maps
from mmrope.commands.images import find_images, note_on_depth, read_image
from mmrope.commands.models import backbone_of, load_model, prepare_image, read_config, study_parser
from mmrope.commands.runner import CommandError, errors_in_one_sentence
from mmrope.commands.skipping import Skips

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
    add_overwrite(parser)
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
        CommandError: if there is no such block, or a head that one of them does not have.
    """
    names = list(maps)
    numbers = range(len(names)) if blocks is None else blocks
    if not set(numbers) <= set(range(len(names))):
        raise CommandError(f'--blocks: the backbone has the blocks 0 to {len(names) - 1}, and got {numbers}')
    chosen = {names[i]: maps[names[i]] for i in numbers}
    fewest = min(map(len, chosen.values()))
    if not set(heads) <= set(range(fewest)):
        raise CommandError(f'--heads: the blocks to draw have the heads 0 to {fewest - 1}, and got {heads}')
    return chosen


def draw_query(args: argparse.Namespace, label: str, model: nn.Module, path: Path, image: Tensor) -> Path:
    """Draw the maps of one image."""
    maps = chosen_maps(attention_maps(backbone_of(model), image, *args.query), args.blocks, args.heads)
    out = args.out / f'maps_{label}_{path.stem}.png'
    draw_maps(image, tuple(args.query), maps, args.heads, out)
    return out


def analyse(
    args: argparse.Namespace, label: str, pair: tuple[str, str], paths: Sequence[Path], skips: Skips
) -> tuple[list[BlockStatistics], int, list[Path]]:
    """Measure one model. Returns its statistics, of how many images they are, and the maps that were drawn.

    Raises:
        CommandError: if it cannot be loaded, its backbone is none of mmrope's, or no image is left.
    """
    cfg = read_config(pair[0], args.cfg_options)
    model = load_model(cfg, pair[1], args.device)
    of_images, maps, of_model = [], [], Skips(skips.tool, skips.traceback)
    for path in track(paths, label, console=Console(stderr=True)):
        with of_model.skipping(f'{label}, {path}'):
            image = prepare_image(cfg, model, str(path))
            if args.query:
                maps.append(draw_query(args, label, model, path, image))
            of_images.append(image_sums(backbone_of(model), image))
    if not of_images:
        raise of_model.errors[0]
    skips.problems += of_model.problems
    return mean_statistics(backbone_of(model), of_images), len(of_images), maps


def read_images(args: argparse.Namespace, skips: Skips) -> list[Path]:
    """List the images that can be read.

    Raises:
        CommandError: if there is none.
    """
    found, problems = find_images(args.images)
    paths = []
    for path in found[: args.max_images]:
        with skips.skipping(path):
            if note := note_on_depth(path, read_image(path)):
                sys.stderr.write(f'{skips.tool}: {note}\n')
            paths.append(path)
    skips.problems += problems
    if not paths:
        raise CommandError(f'--images: {"; ".join(skips.problems)}')
    return paths


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and draw as the command line says."""
    args = parse_arguments(arguments)
    curves, rows, written = {}, [], [args.out / 'attention.png', args.out / 'attention.json']
    skips = Skips('analyze_attention.py', args.traceback)
    with errors_in_one_sentence('analyze_attention.py', args):
        check_output(written[1], args.overwrite)
        paths = read_images(args, skips)
        for label, (config, checkpoint) in zip(args.labels, args.models):
            with skips.skipping(label):
                curves[label], count, maps = analyse(args, label, (config, checkpoint), paths, skips)
                blocks = list(map(asdict, curves[label]))
                rows.append(dict(label=label, config=config, checkpoint=checkpoint, images=count, blocks=blocks))
                written += maps
                print_table(make_table(label, curves[label]))
        if not curves and len(args.models) == 1:
            raise skips.errors[-1]
        if curves:
            draw_attention(curves, written[0])
            written[1].write_text(json.dumps(rows, indent=2) + '\n')
            print('\n'.join(f'wrote {path}' for path in written))
    skips.report(f'{len(curves)} of {len(args.models)} models analysed')


def print_table(table: Table) -> None:
    """Print in full, where no terminal says how wide it is."""
    console = Console()
    (console if console.is_terminal else Console(width=WIDTH)).print(table)


if __name__ == '__main__':
    main()
