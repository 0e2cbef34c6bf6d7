"""Train a detector, a segmenter or a classifier from a config."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .cli import add_config, add_run, parse_pixels, part, positive, print_table
from .errors import CommandError, errors_of

if TYPE_CHECKING:
    from mmengine.config import Config


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
    parser.add_argument(
        '--size',
        type=parse_pixels,
        help='image size of all pipelines, crops and padding, N or HxW',
    )
    parser.add_argument(
        '--log-to',
        nargs='+',
        choices=('tensorboard', 'wandb'),
        default=(),
        help='send curves and images of the validations there, too',
    )
    own = parser.add_argument_group('your own data', 'docs/own_data.md lists the layouts of folders')
    own.add_argument('--data', metavar='DIR', help='train on the images and annotations in this folder')
    own.add_argument('--epochs', type=positive, help="length of the training (default: the config's, or 36)")
    own.add_argument('--batch-size', type=positive, help='images of a process; the learning rate follows')
    own.add_argument(
        '--val-fraction',
        type=part,
        help='of the images, to validate on, if the folder has no such part (default: 0.2)',
    )
    own.add_argument('--split-seed', type=int, help='seed of the choice of these images (default: 0)')
    add_run(parser)


def run(args: argparse.Namespace) -> None:
    """Train."""
    from .runner import build_runner, prepare_training, processes, read_run_config
    from .watching import log_to

    with processes(args.launcher):
        cfg = read_run_config(args)
        sources = adapt(cfg, args)
        if args.log_to:
            log_to(cfg, args.log_to)
        with errors_about(sources):
            notes = prepare_training(cfg, args.amp, args.auto_scale_lr, args.resume, args.trust_checkpoint)
        build_runner(cfg, args.run, training=True, notes=notes).train()


def adapt(cfg: Config, args: argparse.Namespace) -> dict[Path, str]:
    """Adapt a config to the folder of ``--data``, list what was set, and write the config to the work dir.

    Returns:
        The file of the user behind each file of annotations that was written.

    Raises:
        CommandError: if the data or the options do not suit the config.
    """
    names = ('epochs', 'batch_size', 'val_fraction', 'split_seed')
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.data is None:
        if given:
            raise CommandError(f'--{next(iter(given)).replace("_", "-")} needs --data DIR')
        if args.size is not None:
            set_image_size(cfg, args)
        return {}
    if args.data_root is not None:
        raise CommandError('--data names the folder of the data, so that --data-root has no meaning')
    if 'train_cfg.max_iters' in (args.cfg_options or {}):
        raise CommandError('--cfg-options train_cfg.max_iters: with --data a training counts epochs: give --epochs')
    from rich.table import Table

    from .own_data import Choices, use_own_data, write_own_data
    from .runner import RANK_VARIABLES, is_first_process

    variables = RANK_VARIABLES.get(args.launcher)
    number = int(os.environ[variables[1]]) if variables else 1
    try:
        choices = Choices(**given, size=args.size, processes=number)
        made = use_own_data(cfg, args.data, Path(cfg.work_dir, 'data'), choices)
    except CommandError:
        raise
    except ValueError as error:
        raise CommandError(f'--data: {error}') from error
    apply_options(cfg, args)
    path = Path(cfg.work_dir, 'config.py')
    if is_first_process(cfg):  # the others wait for it when they join the process group, and read the files after that
        write_own_data(cfg, made, path)
        table = Table('set', 'to', title=f'{path} trains this, too, and can be changed')
        for row in made.rows:
            table.add_row(*row)
        print_table(table)
    return made.sources


@contextmanager
def errors_about(sources: Mapping[Path, str]) -> Iterator[None]:
    """Name the user's file in errors about a file that was written from it.

    Raises:
        CommandError: for a ``ValueError`` about such a file.
    """
    try:
        yield
    except ValueError as error:
        text = str(error)
        for path, source in sources.items():
            text = text.replace(str(path), source)
        if text == str(error):
            raise
        raise CommandError(text) from error


def set_image_size(cfg: Config, args: argparse.Namespace) -> None:
    """Train a config on its own data at the image size of ``--size``.

    Raises:
        CommandError: if its pipelines resize in a way for which this is not defined.
    """
    from .hosts import scope_of
    from .training_size import set_size

    if scope_of(cfg) not in ('mmdet', 'mmseg'):
        raise CommandError(f'--size is for detectors and segmenters, and this config is one of {scope_of(cfg)}')
    with errors_of('--size'):
        set_size(cfg, args.size)
    apply_options(cfg, args)


def apply_options(cfg: Config, args: argparse.Namespace) -> None:
    """Apply ``--cfg-options`` once more: they are read with the config, and apply after all other options."""
    from .checks.config import check_options

    if args.cfg_options:
        check_options(cfg, args.cfg_options)
        cfg.merge_from_dict(args.cfg_options)
