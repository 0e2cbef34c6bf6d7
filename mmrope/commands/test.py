"""Test a checkpoint of a detector, a segmenter or a classifier on the test set of its config."""

import argparse

from .cli import add_config, add_run, check_output
from .errors import CommandError, errors_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_config(parser)
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='a file, a URL, hf-hub:OWNER/NAME')
    parser.add_argument('--out', metavar='PKL', help='write the predictions to this pickle file')
    parser.add_argument('--show', action='store_true', help='show the predictions in a window')
    parser.add_argument('--show-dir', metavar='DIR', help='save the drawn predictions in this folder')
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds for which --show shows an image (default: 2)'
    )
    parser.add_argument('--tta', action='store_true', help="test with the config's test-time augmentation")
    add_run(parser)


def run(args: argparse.Namespace) -> None:
    """Test, and print the metrics."""
    from ..engine.complete_checkpoint_hook import CompleteCheckpoint
    from ..engine.draw_predictions_hook import DumpPredictions
    from .runner import build_runner, prepare_test, processes, read_run_config

    if args.out is not None and not args.out.endswith(('.pkl', '.pickle')):
        raise CommandError(f'--out must end in .pkl or .pickle, got {args.out}')
    if args.out is not None:
        with errors_of('--out'):
            check_output(args.out, overwrite=True)
    with processes(args.launcher):
        cfg = read_run_config(args)
        prepare_test(cfg, args.checkpoint, args.tta, args.show, args.show_dir, args.wait_time, args.trust_checkpoint)
        runner = build_runner(cfg, args.run, training=False)
        runner.register_hook(CompleteCheckpoint(args.checkpoint))
        if args.out is not None:
            runner.test_evaluator.metrics.append(DumpPredictions(args.out))
        runner.test()
