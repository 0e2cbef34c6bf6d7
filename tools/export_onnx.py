#!/usr/bin/env python
"""Export the backbone of a config to ONNX, and check that ONNX Runtime gives the same feature maps."""

import argparse
from collections.abc import Sequence

from mmrope.commands.outputs import add_overwrite, check_output

from mmrope.commands.models import read_config
from mmrope.commands.onnx import LEAST_OPSET, build_backbone, export_onnx, output_names
from mmrope.commands.runner import OptionsAction, errors_in_one_sentence
from mmrope.commands.sizes import size_of_tests

NO_SIZE = (224, 224), 'since the config has none'


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
        '--size', type=image_size, metavar='HxW', help="of the images, in pixels (default: that of the config's tests)"
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
    add_overwrite(parser)
    parser.add_argument('--traceback', action='store_true', help='show the frames of an error, not only its message')
    parser.set_defaults(launcher='none')
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Export as the command line says."""
    args = parse_arguments(arguments)
    with errors_in_one_sentence('export_onnx.py', args):
        check_output(args.out, args.overwrite)
        cfg = read_config(args.config, args.cfg_options)
        model = build_backbone(cfg, args.checkpoint)
        size, source = (args.size, '--size') if args.size else size_of_tests(cfg) or NO_SIZE
        worst = export_onnx(model, args.out, size, args.dynamic_batch, args.dynamic_size, args.opset, args.check)
    checked = 'not checked' if worst is None else f'ONNX Runtime differs by {worst:.1e} at most'
    sizes = 'any size' if args.dynamic_size else f'{size[0]} x {size[1]} pixels ({source})'
    print(f'{args.out} is written: images of {sizes} to {", ".join(output_names(model))}; {checked}')


if __name__ == '__main__':
    main()
