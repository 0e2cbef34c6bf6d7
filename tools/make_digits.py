#!/usr/bin/env python
"""Make the embedded data set: handwritten digits in made scenes, with COCO instances and ADE20k-style label maps."""

import argparse
import re
import sys

from mmrope.datasets.digit_crops import make_digit_crops
from mmrope.datasets.digits import make_digits


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', default='data/digits', help='folder to write (default: %(default)s)')
    parser.add_argument('--images', type=int, default=4000, help='scenes to train on (default: %(default)s)')
    parser.add_argument('--val-images', type=int, default=500, help='scenes to validate on (default: %(default)s)')
    parser.add_argument('--size', default='128', help='pixels, N or HEIGHTxWIDTH (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='another seed, other scenes (default: %(default)s)')
    parser.add_argument('--overwrite', action='store_true', help='replace a digits data set that is there')
    parser.add_argument(
        '--crops',
        action='store_true',
        help='cut single digits from scenes instead, a folder a class; defaults: --out data/digit_crops '
        '--images 2500 --val-images 400 --size 256',
    )
    if '--crops' in sys.argv[1:]:
        parser.set_defaults(out='data/digit_crops', images=2500, val_images=400, size='256')
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
        if args.crops and args.overwrite:
            raise ValueError('--overwrite is for scenes: remove the folder of the crops yourself')
        if args.crops:
            made = make_digit_crops(args.out, args.images, args.val_images, size, args.seed)
        else:
            made = make_digits(args.out, args.images, args.val_images, size, args.seed, overwrite=args.overwrite)
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f'make_digits: {error}')
    except KeyboardInterrupt:
        sys.exit('make_digits: interrupted, nothing was written')
    kind = 'scenes cut into digits' if args.crops else 'images'
    print(f'{args.out} is {"made" if made else "complete"}: {args.images} + {args.val_images} {kind}')


if __name__ == '__main__':
    main()
