"""Train a detector or a segmenter from a config."""

import argparse
from collections.abc import Sequence

from mmrope.commands.runner import ToolParser, add_arguments, build_runner, errors_in_one_sentence, prepare_training


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = ToolParser(prog='train.py', description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate by the batch size')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from a checkpoint, or without one from the latest in the work dir',
    )
    add_arguments(parser)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train as the command line says."""
    args = parse_arguments(arguments)
    with errors_in_one_sentence('train.py', args) as run:
        build_runner(prepare_training(args), run, training=True).train()


if __name__ == '__main__':
    main()
