"""Draw the frequencies of a model in the plane, and study what they can represent against axial ones.

Writes frequencies.json, frequencies.png and reconstruction.png.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from mmrope.commands.outputs import add_overwrite, check_output
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from mmrope.analysis.figures import draw_frequencies, draw_reconstructions
from mmrope.analysis.frequencies import (
    HeadChange,
    changes,
    error,
    freqs_of,
    reconstruct,
    reconstruction_errors,
    reconstruction_sets,
    target_functions,
    thetas_of,
)
from mmrope.commands.images import UnreadableImageError, note_on_depth, read_image
from mmrope.commands.models import backbone_of, load_model, read_config, study_parser
from mmrope.commands.runner import CommandError, errors_in_one_sentence

WIDTH = 120


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = study_parser('analyze_frequencies.py', __doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint: a file, a URL, hf-hub:OWNER/NAME, timm:NAME')
    parser.add_argument(
        '--initial', metavar='CHECKPOINT', help='where the training began (default: the nearest of all initial sets)'
    )
    parser.add_argument(
        '--grid', type=int, default=64, metavar='N', help='side of the functions (default: %(default)s)'
    )
    parser.add_argument('--image', metavar='PATH', help='an image to represent besides, in grey')
    parser.add_argument(
        '--block', type=int, metavar='I', help='block whose reconstructions are drawn (default: the middle)'
    )
    parser.add_argument('--out', type=Path, default=Path('work_dirs/frequencies'), help='folder (default: %(default)s)')
    add_overwrite(parser)
    return parser.parse_args(arguments)


def load_freqs(args: argparse.Namespace, checkpoint: str) -> tuple[dict[str, Tensor], float, float]:
    """Load the frequencies of each block, and the bases of RoPE-Mixed and RoPE-Axial.

    Raises:
        CommandError: if the backbone has no frequencies.
    """
    cfg = read_config(args.config, args.cfg_options)
    backbone = backbone_of(load_model(cfg, checkpoint, args.device))
    freqs = freqs_of(backbone)
    if not freqs:
        raise CommandError(f'{args.config}: its backbone has rope=None, and so no frequencies')
    return freqs, *thetas_of(backbone, cfg.model.backbone)


def functions_of(args: argparse.Namespace) -> dict[str, Tensor]:
    """Make the functions to represent.

    Raises:
        CommandError: if the grid has no room for one, or the image cannot be read.
    """
    if args.grid < 8:
        raise CommandError(f'--grid must be at least 8, and got {args.grid}')
    functions = target_functions(args.grid)
    if args.image is not None:
        try:
            image = read_image(args.image)
        except UnreadableImageError as error:
            raise CommandError(f'--image: {error}') from error
        if note := note_on_depth(args.image, image):
            raise CommandError(f'--image: {note}')
        pixels = Image.fromarray(image[..., ::-1]).convert('L').resize((args.grid, args.grid))
        functions['image'] = torch.from_numpy(np.asarray(pixels, dtype=np.float64) / 255)
    return functions


def draw_block(args: argparse.Namespace, sets: Mapping[str, Sequence[Tensor]], functions: Mapping[str, Tensor]) -> None:
    """Draw what the sets of one block keep of each function."""
    rows = {}
    for name, function in functions.items():
        rows[name] = [(name, function)]
        for kind, (freqs, *_) in sets.items():
            kept, points = reconstruct(function, freqs)
            rows[name].append((f'{kind}\n{points} points, misses {error(function, kept):.0%}', kept))
    draw_reconstructions(rows, args.out / 'reconstruction.png')


def print_changes(of_blocks: Mapping[str, Sequence[HeadChange]], exact: bool) -> None:
    """Print how far the frequencies of each block have moved."""
    table = Table(caption='change: |learned - initial| / |initial|' + ', at least' * (not exact))
    for header in ('block', 'heads', 'change', 'of heads', '|learned| / |initial|', 'of frequencies'):
        table.add_column(header, justify='left' if header == 'block' else 'right')
    for name, heads in of_blocks.items():
        moved, ratios = [head.change for head in heads], [ratio for head in heads for ratio in head.magnitudes]
        cells = [f'{len(heads)}', f'{mean(moved):.3f}', f'{min(moved):.3f} - {max(moved):.3f}']
        table.add_row(name, *cells, f'{mean(ratios):.3f}', f'{min(ratios):.3f} - {max(ratios):.3f}')
    print_table(table)


def print_errors(errors: Mapping[str, Mapping[str, float]]) -> None:
    """Print what each set misses of each function."""
    table = Table(caption='share of the variance that a set of frequencies misses, mean over its blocks')
    table.add_column('function')
    for kind in next(iter(errors.values())):
        table.add_column(kind, justify='right')
    for name, row in errors.items():
        table.add_row(name, *(f'{value:.3f}' for value in row.values()))
    print_table(table)


def print_table(table: Table) -> None:
    """Print in full, where no terminal says how wide it is."""
    console = Console()
    (console if console.is_terminal else Console(width=WIDTH)).print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Analyse as the command line says."""
    args = parse_arguments(arguments)
    with errors_in_one_sentence('analyze_frequencies.py', args):
        check_output(args.out / 'frequencies.json', args.overwrite)
        functions = functions_of(args)
        freqs, theta, axial_theta = load_freqs(args, args.checkpoint)
        initial = load_freqs(args, args.initial)[0] if args.initial else None
        names, block = list(freqs), len(freqs) // 2 if args.block is None else args.block
        if not 0 <= block < len(names):
            raise CommandError(f'--block: the backbone has the blocks 0 to {len(names) - 1}, and got {block}')
        moved = {
            name: changes(part, theta, initial and initial[name]) for name, part in freqs.items() if part.shape[1] > 1
        }
        errors = reconstruction_errors(functions, freqs, axial_theta, theta)
        draw_frequencies(freqs, theta, axial_theta, initial, args.out / 'frequencies.png')
        draw_block(args, reconstruction_sets({names[block]: freqs[names[block]]}, axial_theta, theta), functions)
        result = dict(
            config=args.config,
            checkpoint=args.checkpoint,
            initial=args.initial,
            theta=theta,
            axial_theta=axial_theta,
            unit='radians / token; x, y',
            blocks={
                name: dict(freqs=part.permute(1, 2, 0).tolist(), changes=list(map(asdict, moved.get(name, []))))
                for name, part in freqs.items()
            },
            reconstruction=dict(grid=args.grid, missed_variance=errors),
        )
        (args.out / 'frequencies.json').write_text(json.dumps(result) + '\n')
    if moved:
        print_changes(moved, exact=initial is not None)
    print_errors(errors)
    for name in ('frequencies.json', 'frequencies.png', 'reconstruction.png'):
        print(f'wrote {args.out / name}')


if __name__ == '__main__':
    main()
