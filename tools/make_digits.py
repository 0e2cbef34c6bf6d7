#!/usr/bin/env python
"""Make the embedded data set: handwritten digits in made scenes, with COCO instances and ADE20k-style label maps."""

import argparse
import re
import sys

from mmrope.datasets.digits import make_digits
from mmrope.datasets.single_digits import make_single_digits


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', default='data/digits', help='folder to write (default: %(default)s)')
    parser.add_argument('--images', type=int, default=4000, help='scenes to train on (default: %(default)s)')
    parser.add_argument('--val-images', type=int, default=500, help='scenes to validate on (default: %(default)s)')
    parser.add_argument('--size', default='128', help='pixels, N or HEIGHTxWIDTH (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='another seed, other scenes (default: %(default)s)')
    parser.add_argument('--overwrite', action='store_true', help='replace a digits data set that is there')
    parser.add_argument(
        '--single',
        action='store_true',
        help='draw images of one digit instead, a folder a class; defaults: --out data/single_digits '
        '--images 10000 --val-images 900 --size 96',
    )
    if '--single' in sys.argv[1:]:
        parser.set_defaults(out='data/single_digits', images=10_000, val_images=900, size='96')
    return parser.parse_args()


def parse_size(text: str) -> tuple[int, int]:
    """'128' to (128, 128), '96x160' to (96, 160). Raises ValueError for anything else."""
    match = re.fullmatch(r'(\d+)(?:x(\d+))?', text, re.ASCII)
    if match is None:
        raise ValueError(f'--size must be N or HEIGHTxWIDTH, as 128 or 96x160, got {text!r}')
    return int(match[1]), int(match[2] or match[1])


def main() -> None:
    args = parse_args()
    try:
        size = parse_size(args.size)
        if args.single and args.overwrite:
            raise ValueError('--overwrite is for scenes: remove the folder of the single digits yourself')
        if args.single:
            made = make_single_digits(args.out, args.images, args.val_images, size, args.seed)
        else:
            made = make_digits(args.out, args.images, args.val_images, size, args.seed, overwrite=args.overwrite)
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f'make_digits: {error}')
    except KeyboardInterrupt:
        sys.exit('make_digits: interrupted, nothing was written')
    print(f'{args.out} is {"made" if made else "complete"}: {args.images} + {args.val_images} images')


if __name__ == '__main__':
    main()
