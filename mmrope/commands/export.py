"""Export the backbone of a config to ONNX, and check that ONNX Runtime gives the same feature maps."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from .cli import add_config, add_overwrite, check_output, parse_pixels

if TYPE_CHECKING:
    from mmengine.config import Config

    from ..models import RoPESwin, RoPEViT

NO_SIZE = (224, 224), 'the config has no test size'
OPSET = 18


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_config(parser)
    parser.add_argument('out', metavar='OUT', help='ONNX file to write')
    parser.add_argument('--checkpoint', help="weights to load in place of those in the backbone's init_cfg")
    parser.add_argument(
        '--size',
        type=parse_pixels,
        metavar='SIZE',
        help="image size, N or HxW (default: the config's test size)",
    )
    parser.add_argument('--dynamic-batch', action='store_true', help='accept any batch size')
    parser.add_argument(
        '--dynamic-size', action='store_true', help='accept images of any size; only for a ViT without windows'
    )
    parser.add_argument('--opset', type=int, default=OPSET, help='ONNX opset version (default: %(default)s)')
    parser.add_argument(
        '--check', action=argparse.BooleanOptionalAction, default=True, help='compare the outputs with ONNX Runtime'
    )
    add_overwrite(parser)


def run(args: argparse.Namespace) -> None:
    """Export, and compare with ONNX Runtime."""
    from ..analysis.onnx import export_onnx, output_names
    from ..checkpoints.files import write_whole
    from .checks.config import check_checkpoint
    from .config import read_config
    from .sizes import size_of_tests

    check_output(args.out, args.overwrite)
    check_checkpoint(args.checkpoint, '--checkpoint')
    cfg = read_config(args)
    model = load_backbone(cfg, args.checkpoint)
    size, source = (tuple(args.size), '--size') if args.size else size_of_tests(cfg) or NO_SIZE
    with write_whole(args.out) as part:
        worst = export_onnx(model, str(part), size, args.dynamic_batch, args.dynamic_size, args.opset, args.check)
    checked = 'not checked' if worst is None else f'ONNX Runtime differs by {worst:.1e} at most'
    sizes = 'any size' if args.dynamic_size else f'{size[0]} x {size[1]} pixels ({source})'
    print(f'wrote {args.out}: images of {sizes} to {", ".join(output_names(model))}; {checked}')


def load_backbone(cfg: Config, checkpoint: str | None = None) -> RoPEViT | RoPESwin:
    """Build the backbone of a config, in eval mode, with the weights of ``checkpoint`` or those its ``init_cfg`` names.

    Raises:
        CommandError: if the config has no backbone of mmrope.
        CheckpointError: if the weights cannot be found or do not fit.
    """
    from ..registry import MODELS
    from ..weights import load_pretrained
    from .models import backbone_config, check_backbone

    settings = backbone_config(cfg)
    init_cfg = settings.pop('init_cfg', None) or []
    model = check_backbone(MODELS.build(settings))
    sources = [source for source in ([init_cfg] if isinstance(init_cfg, dict) else init_cfg) if 'checkpoint' in source]
    for source in sources if checkpoint is None else [dict(checkpoint=checkpoint)]:
        options: dict[str, Any] = {key: value for key, value in source.items() if key != 'type'}
        load_pretrained(model, **options)
    return model.eval()
