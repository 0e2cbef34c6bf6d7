"""Test a detector, a segmenter or a classifier: measure a checkpoint on the test set of a config."""

import argparse
from collections.abc import Sequence

from mmrope.commands.runner import (
    ToolParser,
    add_arguments,
    build_runner,
    errors_in_one_sentence,
    prepare_test,
)
from mmrope.engine.complete_checkpoint_hook import CompleteCheckpoint
from mmrope.engine.draw_predictions_hook import DumpPredictions


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = ToolParser(prog='test.py', description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint: a file, a URL, hf-hub:OWNER/NAME')
    parser.add_argument('--out', metavar='PKL', help='write the predictions to this pickle file')
    parser.add_argument('--show', action='store_true', help='show the predictions in a window')
    parser.add_argument('--show-dir', metavar='DIR', help='save the drawn predictions in this folder')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds that --show shows an image')
    parser.add_argument('--tta', action='store_true', help="test with the config's test-time augmentation")
    add_arguments(parser)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Test as the command line says."""
    args = parse_arguments(arguments)
    with errors_in_one_sentence('test.py', args) as run:
        runner = build_runner(prepare_test(args), run, training=False)
        runner.register_hook(CompleteCheckpoint(args.checkpoint))
        if args.out is not None:
            runner.test_evaluator.metrics.append(DumpPredictions(args.out))
        runner.test()


if __name__ == '__main__':
    main()
