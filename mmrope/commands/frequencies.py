"""Plot the RoPE frequencies of a model, and compare what they can represent with axial frequencies.

Writes frequencies.json, frequencies.png and reconstruction.png.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from .cli import add_config, add_device, add_out_dir, add_overwrite, check_device, check_output, print_table
from .errors import CommandError, errors_of

if TYPE_CHECKING:
    from mmengine.config import Config
    from torch import Tensor

    from ..analysis.frequencies import HeadChange
    from ..models import RoPESwin, RoPEViT

FILES = ('frequencies.json', 'frequencies.png', 'reconstruction.png')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_config(parser)
    parser.add_argument(
        'checkpoint',
        metavar='CHECKPOINT',
        help='of the model or its backbone: a file, a URL, hf-hub:OWNER/NAME, timm:NAME',
    )
    parser.add_argument(
        '--initial', metavar='CHECKPOINT', help='of the start of the training (default: the nearest possible one)'
    )
    parser.add_argument(
        '--grid', type=int, default=64, metavar='N', help='side of the functions to represent (default: %(default)s)'
    )
    parser.add_argument('--image', metavar='PATH', help='an image to represent as well, in grey')
    parser.add_argument(
        '--block', type=int, metavar='I', help='block whose reconstructions are drawn (default: the middle one)'
    )
    add_out_dir(parser, 'work_dirs/frequencies')
    add_device(parser)
    add_overwrite(parser)


def run(args: argparse.Namespace) -> None:
    """Measure, draw and write."""
    from ..analysis.figures import draw_frequencies
    from ..analysis.frequencies import changes, frequencies_of, reconstruction_errors, reconstruction_sets
    from .checks.config import check_checkpoint
    from .config import read_config

    check_device(args.device)
    for name in FILES:
        check_output(args.out_dir / name, args.overwrite)
    check_checkpoint(args.initial, '--initial')
    functions = make_functions(args.grid, args.image)
    cfg = read_config(args)
    backbone = load_backbone(cfg, args.checkpoint, args.device)
    frequencies = frequencies_of(backbone)
    freqs = frequencies.blocks
    initial = frequencies_of(load_backbone(cfg, args.initial, args.device)).blocks if args.initial else None
    names, block = list(freqs), len(freqs) // 2 if args.block is None else args.block
    if not 0 <= block < len(names):
        raise CommandError(f'--block must be from 0 to {len(names) - 1}, got {block}')
    moved = {}
    if frequencies.mixed:
        starts = initial or dict.fromkeys(names)
        moved = {name: changes(part, frequencies.theta, starts[name]) for name, part in freqs.items()}
    errors = reconstruction_errors(functions, frequencies)
    draw_frequencies(frequencies, initial, args.out_dir / FILES[1])
    sets = reconstruction_sets(frequencies.only(names[block]), args.grid)
    draw_block(sets, functions, args.out_dir / FILES[2])
    result = dict(
        config=args.config,
        checkpoint=args.checkpoint,
        initial=args.initial,
        theta=frequencies.theta,
        axial_theta=frequencies.axial_theta,
        unit=f'radians / token of a {args.grid} x {args.grid} grid; x, y',
        blocks={
            name: dict(
                freqs=frequencies.per_token(name, args.grid).permute(1, 2, 0).tolist(),
                changes=list(map(asdict, moved.get(name, []))),
            )
            for name in freqs
        },
        reconstruction=dict(grid=args.grid, missed_variance=errors),
    )
    (args.out_dir / FILES[0]).write_text(json.dumps(result) + '\n')
    if moved:
        print_changes(moved, exact=initial is not None)
    print_errors(errors)
    for name in FILES:
        print(f'wrote {args.out_dir / name}')


def load_backbone(cfg: Config, checkpoint: str, device: str | None) -> RoPEViT | RoPESwin:
    """Load the backbone of a config.

    Raises:
        CommandError: if the backbone has no frequencies, or cannot be loaded.
    """
    from ..analysis.frequencies import frequencies_of
    from .models import backbone_of, load_model

    backbone = backbone_of(load_model(cfg, checkpoint, device))
    if not frequencies_of(backbone).blocks:
        raise CommandError('CONFIG: the backbone has rope=None, and so no frequencies')
    return backbone


def make_functions(size: int, image: str | None) -> dict[str, Tensor]:
    """Make the functions to represent, ``(size, size)`` each: three analytic ones, and an image in grey.

    Raises:
        CommandError: if the size is too small, or the image cannot be read.
    """
    import numpy as np
    import torch
    from PIL import Image

    from ..analysis.frequencies import target_functions
    from .images import note_on_depth, read_image

    with errors_of('--grid'):
        functions = target_functions(size)
    if image is not None:
        with errors_of('--image'):
            read = read_image(image)
        if note := note_on_depth(image, read):
            raise CommandError(f'--image: {note}')
        pixels = Image.fromarray(read[..., ::-1]).convert('L').resize((size, size))
        functions['image'] = torch.from_numpy(np.asarray(pixels, dtype=np.float64) / 255)
    return functions


def draw_block(sets: Mapping[str, Sequence[Tensor]], functions: Mapping[str, Tensor], out: Path) -> None:
    """Draw each function and its reconstructions by the sets of one block."""
    from ..analysis.figures import draw_reconstructions
    from ..analysis.frequencies import error, reconstruct

    rows = {}
    for name, function in functions.items():
        rows[name] = [(name, function)]
        for kind, (freqs, *_) in sets.items():
            kept, points = reconstruct(function, freqs)
            rows[name].append((f'{kind}\n{points} points, misses {error(function, kept):.0%}', kept))
    draw_reconstructions(rows, out)


def print_changes(of_blocks: Mapping[str, Sequence[HeadChange]], exact: bool) -> None:
    """Print how far the frequencies of each block have moved."""
    from rich.table import Table

    table = Table(caption='change: |learned - initial| / |initial|' + ', at least' * (not exact))
    for header in ('block', 'heads', 'change', 'of heads', '|learned| / |initial|', 'of frequencies'):
        table.add_column(header, justify='left' if header == 'block' else 'right')
    for name, heads in of_blocks.items():
        moved, ratios = [head.change for head in heads], [ratio for head in heads for ratio in head.magnitudes]
        cells = [f'{len(heads)}', f'{mean(moved):.3f}', f'{min(moved):.3f} - {max(moved):.3f}']
        table.add_row(name, *cells, f'{mean(ratios):.3f}', f'{min(ratios):.3f} - {max(ratios):.3f}')
    print_table(table)


def print_errors(errors: Mapping[str, Mapping[str, float]]) -> None:
    """Print the share of each function that each set misses."""
    from rich.table import Table

    table = Table(caption='share of the variance that a set of frequencies misses, averaged over the blocks')
    table.add_column('function')
    for kind in next(iter(errors.values())):
        table.add_column(kind, justify='right')
    for name, row in errors.items():
        table.add_row(name, *(f'{value:.3f}' for value in row.values()))
    print_table(table)
