"""Train a detector, a segmenter or a classifier from a config."""

import argparse

from .cli import add_config, add_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_config(parser)
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate by the batch size')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from CHECKPOINT or, without a value, from the latest in the work dir',
    )
    add_run(parser)


def run(args: argparse.Namespace) -> None:
    """Train."""
    from .runner import build_runner, prepare_training, processes, read_run_config

    with processes(args.launcher):
        cfg = read_run_config(args)
        notes = prepare_training(cfg, args.amp, args.auto_scale_lr, args.resume, args.trust_checkpoint)
        build_runner(cfg, args.run, training=True, notes=notes).train()
