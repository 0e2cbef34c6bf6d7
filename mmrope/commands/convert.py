"""Convert weights of RoPE-ViT's authors, timm, a Swin or mmrope to mmrope's layout or timm's, and say what it did."""

import argparse

from .cli import add_overwrite, check_output
from .errors import errors_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument('src', metavar='SRC', help='a file, a URL, hf-hub:OWNER/NAME[@REVISION][/FILE] or timm:NAME')
    parser.add_argument('dst', metavar='DST', help='file to write, .pth or .safetensors')
    parser.add_argument('--to', choices=['mmrope', 'timm'], default='mmrope', help='layout (default: %(default)s)')
    parser.add_argument('--prefix', help='what the names of the backbone begin with (default: found out)')
    parser.add_argument('--dry-run', action='store_true', help='say what would be done, write nothing')
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='load SRC with all that it holds, which may run code: only for an old file of your own',
    )
    add_overwrite(parser)


def run(args: argparse.Namespace) -> None:
    """Convert as the command line says."""
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
    print(f'{args.dst} would be written' if args.dry_run else f'{args.dst} is written')
