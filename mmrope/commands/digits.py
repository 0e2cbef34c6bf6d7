"""Make a small data set: scenes of handwritten digits, with COCO instances and ADE20k-style label maps."""

import argparse

from .cli import parse_pixels, positive
from .errors import CommandError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument('--out-dir', '--out', metavar='DIR', help='output folder (default: data/digits)')
    parser.add_argument('--images', type=positive, help='scenes to train on (default: 4000)')
    parser.add_argument('--val-images', type=positive, help='scenes to validate on (default: 500)')
    parser.add_argument('--size', type=parse_pixels, help='size of a scene in pixels, N or HxW (default: 128)')
    parser.add_argument('--seed', type=int, help='seed of all random choices (default: 0)')
    parser.add_argument(
        '--single',
        action='store_true',
        help='make images of single digits instead, one folder per class; defaults: --out-dir data/single_digits '
        '--images 10000 --val-images 900 --size 96',
    )


def run(args: argparse.Namespace) -> None:
    """Make the data set, unless it is there."""
    from ..datasets.digits import make_digits
    from ..datasets.single_digits import make_single_digits

    make = make_single_digits if args.single else make_digits
    out = args.out_dir or ('data/single_digits' if args.single else 'data/digits')
    given = {key: getattr(args, key) for key in ('images', 'val_images', 'seed') if getattr(args, key) is not None}
    if args.size is not None:
        given['size'] = tuple(args.size)
    try:
        made = make(out, **given)
    except ValueError as error:
        raise CommandError(str(error)) from error
    print(f'wrote {out}' if made else f'{out} is complete')
