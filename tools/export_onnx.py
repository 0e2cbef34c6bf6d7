#!/usr/bin/env python
"""Export the backbone of a config to ONNX, and check that ONNX Runtime gives the same feature maps."""

import argparse
import os
import sys
from collections.abc import Sequence

from mmengine.config import Config

from mmrope.engine.export import LEAST_OPSET, ExportError, build_backbone, export_onnx, output_names
from mmrope.engine.launch import OptionsAction
from mmrope.engine.preflight import LaunchError, check_options
from mmrope.engine.sources import CheckpointError


def image_size(text: str) -> tuple[int, int]:
    """``'HxW'``, or one number for both."""
    sides = [int(side) for side in text.split('x')]
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise ValueError
    return sides[0], sides[-1]


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog='export_onnx.py', description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('out', metavar='OUT', help='file to write')
    parser.add_argument('--checkpoint', help="weights, in place of those the backbone's init_cfg names")
    parser.add_argument(
        '--size', type=image_size, default=(224, 224), metavar='HxW', help='of the images, in pixels (default: 224x224)'
    )
    parser.add_argument('--dynamic-batch', action='store_true', help='take any number of images')
    parser.add_argument(
        '--dynamic-size', action='store_true', help='take images of any size; for a ViT without windows'
    )
    parser.add_argument(
        '--opset', type=int, default=LEAST_OPSET, help='version of the operators (default: %(default)s)'
    )
    parser.add_argument(
        '--check', action=argparse.BooleanOptionalAction, default=True, help='whether to compare with ONNX Runtime'
    )
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE', help='as in train.py')
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Export as the command line says."""
    args = parse_arguments(arguments)
    try:
        if not os.path.isfile(args.config):
            raise ExportError(f'there is no config {args.config}')
        if not os.path.isdir(os.path.dirname(os.path.abspath(args.out))):
            raise ExportError(f'the folder of {args.out} does not exist')
        cfg = Config.fromfile(args.config)
        if args.cfg_options:
            check_options(cfg, args.cfg_options)
            cfg.merge_from_dict(args.cfg_options)
        model = build_backbone(cfg, args.checkpoint)
        worst = export_onnx(model, args.out, args.size, args.dynamic_batch, args.dynamic_size, args.opset, args.check)
    except (ExportError, LaunchError, CheckpointError, OSError) as error:
        sys.exit(f'export_onnx.py: error: {error}')
    except KeyboardInterrupt:
        sys.exit('export_onnx.py: interrupted, nothing was written')
    checked = 'not checked' if worst is None else f'ONNX Runtime differs by {worst:.1e} at most'
    print(f'{args.out} is written: images to {", ".join(output_names(model))}; {checked}')


if __name__ == '__main__':
    main()
