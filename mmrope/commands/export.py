"""Export a backbone, a backbone with its neck, a segmenter or a classifier to ONNX, and check it with ONNX Runtime."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from .cli import add_config, add_overwrite, check_output, parse_pixels
from .errors import CommandError

if TYPE_CHECKING:
    from mmengine.config import Config

    from ..models import RoPESwin, RoPEViT

OPSET = 18


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_config(parser)
    parser.add_argument('out', metavar='OUT', help='ONNX file to write')
    parser.add_argument(
        '--part',
        choices=('backbone', 'neck', 'model'),
        default='backbone',
        help='the backbone alone, with its neck, or a whole segmenter, classifier or EoMT (default: backbone)',
    )
    parser.add_argument(
        '--output',
        choices=('classes', 'scores'),
        help='of a whole segmenter or classifier: the class of each pixel or image, or the scores of all classes '
        '(default: classes)',
    )
    parser.add_argument(
        '--checkpoint',
        help="weights to load in place of those in the backbone's init_cfg; needed for a neck or a model",
    )
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
    from .export_parts import Part, check_closed, describe, neck_part, whole_model
    from .sizes import size_of_tests

    check_output(args.out, args.overwrite)
    if args.output and args.part != 'model':
        raise CommandError(f'--output is for --part model, and the part is {args.part}')
    if args.part != 'backbone' and args.checkpoint is None:
        raise CommandError(f'--part {args.part} needs --checkpoint: init_cfg holds weights of the backbone alone')
    check_checkpoint(args.checkpoint, '--checkpoint')
    cfg = read_config(args)
    if args.part == 'backbone':
        backbone = load_backbone(cfg, args.checkpoint)
        check_closed(backbone, 'backbone')
        part = Part(backbone, output_names(backbone))
    elif args.part == 'neck':
        part = neck_part(cfg, args.checkpoint)
    else:
        part = whole_model(cfg, args.checkpoint, args.output)
    size, source = (tuple(args.size), '--size') if args.size else size_of_tests(cfg)
    metadata = describe(part, cfg, None if args.dynamic_size else size)
    with write_whole(args.out) as file:
        worst = export_onnx(
            part.module,
            str(file),
            size,
            args.dynamic_batch,
            args.dynamic_size,
            args.opset,
            args.check,
            part.outputs,
            metadata,
        )
    checked = 'not checked' if worst is None else f'ONNX Runtime differs by {worst:.1e} at most'
    sizes = 'any size' if args.dynamic_size else f'{size[0]} x {size[1]} pixels ({source})'
    print(f'wrote {args.out}: images of {sizes} to {", ".join(part.outputs)}; {checked}')


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
