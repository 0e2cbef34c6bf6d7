#!/usr/bin/env python
"""Convert weights of RoPE-ViT's authors, timm, a Swin or mmrope to mmrope's layout or timm's, and say what it did."""

import argparse
import sys
from collections.abc import Sequence

from mmrope.checkpoints.sources import CheckpointError
from mmrope.commands.converting import check_destination, convert, describe, save


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog='convert_weights.py', description=__doc__)
    parser.add_argument('src', metavar='SRC', help='a file, a URL, hf-hub:OWNER/NAME[@REVISION][/FILE] or timm:NAME')
    parser.add_argument('dst', metavar='DST', help='file to write, .pth or .safetensors')
    parser.add_argument('--to', choices=['mmrope', 'timm'], default='mmrope', help='layout (default: %(default)s)')
    parser.add_argument('--prefix', help='what the names of the backbone begin with (default: found out)')
    parser.add_argument('--dry-run', action='store_true', help='say what would be done, write nothing')
    parser.add_argument('--overwrite', action='store_true', help='replace a file that is there')
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='load SRC with all that it holds, which may run code: only for an old file of your own',
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Convert as the command line says."""
    args = parse_arguments(arguments)
    try:
        check_destination(args.dst, args.overwrite or args.dry_run)
        converted = convert(args.src, args.to, args.prefix, args.trust_checkpoint)
        print(describe(converted))
        if not args.dry_run:
            save(converted.state, args.dst)
    except (CheckpointError, OSError) as error:
        sys.exit(f'convert_weights.py: error: {error}')
    except KeyboardInterrupt:
        sys.exit('convert_weights.py: interrupted, nothing was written')
    print(f'{args.dst} would be written' if args.dry_run else f'{args.dst} is written')


if __name__ == '__main__':
    main()
