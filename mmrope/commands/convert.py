"""Convert weights of RoPE-ViT's authors, timm, Microsoft's Swin or mmrope to the layout of mmrope or timm."""

import argparse

from .cli import add_overwrite, check_output
from .errors import errors_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument('src', metavar='SRC', help='a file, a URL, hf-hub:OWNER/NAME[@REVISION][/FILE] or timm:NAME')
    parser.add_argument('dst', metavar='DST', help='file to write, .pth or .safetensors')
    parser.add_argument(
        '--to', choices=['mmrope', 'timm'], default='mmrope', help='target layout (default: %(default)s)'
    )
    parser.add_argument('--prefix', help="prefix of the backbone's parameter names in SRC (default: detected)")
    parser.add_argument('--dry-run', action='store_true', help='report what would be done, and write nothing')
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='unpickle SRC in full, which can run code: only for a file that you wrote yourself',
    )
    add_overwrite(parser)


def run(args: argparse.Namespace) -> None:
    """Convert, and report what was done."""
    from ..weights.converting import check_suffix, convert, describe, save
    from .checks.config import check_checkpoint

    with errors_of('DST'):
        check_suffix(args.dst)
    check_checkpoint(args.src, 'SRC')
    check_output(args.dst, args.overwrite or args.dry_run)
    converted = convert(args.src, args.to, args.prefix, args.trust_checkpoint)
    print(describe(converted))
    if not args.dry_run:
        save(converted.state, args.dst)
    print(f'{"would write" if args.dry_run else "wrote"} {args.dst}')
