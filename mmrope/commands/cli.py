"""Arguments, sizes and tables that the commands share. This module imports neither torch nor a host."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import CommandError

if TYPE_CHECKING:
    from rich.table import Table

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')
WIDTH = 220  # of tables that go to a file or a pipe


class OptionsAction(argparse.Action):
    """MMEngine's action for ``--cfg-options``, with a usage error for a value that is not ``key=value``."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Store ``key=value`` pairs, or exit with a usage error."""
        from mmengine.config import DictAction  # torch comes with it

        for value in values:
            if not value.partition('=')[0] or '=' not in value:
                parser.error(f'{option_string} takes KEY=VALUE pairs, got {value!r}')
        try:
            DictAction(self.option_strings, self.dest)(parser, namespace, values, option_string)
        except AssertionError as error:
            parser.error(f'{option_string}: {error}')


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add ``CONFIG`` and ``--cfg-options``."""
    parser.add_argument('config', metavar='CONFIG', help="path of a config, or the name of one of mmrope's")
    add_options(parser)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=OptionsAction,
        metavar='KEY=VALUE',
        help='override parts of the config: a.b.0.c=1, a="[1,2]", a="[(1,2),(3,4)]"; no spaces inside a value',
    )


def add_run(parser: argparse.ArgumentParser, work_dir: str | None = None) -> None:
    """Add the arguments that a training and a test have in common.

    Args:
        parser: of the command.
        work_dir: the default of ``--work-dir``; ``None`` if it depends on the config.
    """
    described = work_dir or "the config's work_dir, or work_dirs/<name of the config>"
    parser.add_argument('--work-dir', default=work_dir, help=f'output folder (default: {described})')
    parser.add_argument('--data-root', help="folder of the data set, in place of the config's data_root")
    parser.add_argument(
        '--launcher', choices=LAUNCHERS, default='none', help='how the processes are started (default: none)'
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by torch.distributed.launch')
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='unpickle the checkpoint in full, which can run code: only for a file that you wrote yourself',
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument('--device', help='torch device, such as cuda:1 (default: cuda if there is one, else cpu)')


def add_out_dir(parser: argparse.ArgumentParser, default: str) -> None:
    """Add ``--out-dir``, and ``--out`` for the same."""
    text = f'output folder (default: {default})'
    parser.add_argument('--out-dir', '--out', type=Path, metavar='DIR', default=Path(default), help=text)


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add ``--overwrite``."""
    parser.add_argument('--overwrite', action='store_true', help='replace existing files')


def name_of(config: str | Path) -> str:
    """Return the name of a config; ``train --data`` calls each one ``config.py``, in a folder that has its name."""
    path = Path(config)
    return path.absolute().parent.name if path.stem == 'config' else path.stem


def pairs_of(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pair configs and checkpoints.

    Raises:
        CommandError: if one is left without its pair.
    """
    if len(names) % 2:
        raise CommandError(f'CONFIG CHECKPOINT must come in pairs, got {len(names)}: {" ".join(names)}')
    return list(zip(names[::2], names[1::2], strict=True))


def labels_of(pairs: Sequence[tuple[str, str]], labels: Sequence[str] | None) -> list[str]:
    """Return a name for each pair: a label or, without labels, its config, with the checkpoint if two are the same.

    Raises:
        CommandError: if the labels are not as many as the pairs, or not all different.
    """
    if labels is not None:
        if len(labels) != len(pairs) or len(set(labels)) < len(pairs):
            raise CommandError(f'--labels must be {len(pairs)} different names, got {" ".join(labels)}')
        return list(labels)
    configs = [name_of(config) for config, _ in pairs]
    if len(set(configs)) == len(pairs):
        return configs
    return [f'{config} {checkpoint}' for config, (_, checkpoint) in zip(configs, pairs, strict=True)]


def unused(name: str, names: set[str]) -> str:
    """Return a file name that is not in ``names`` yet, numbered if need be, and add it."""
    stem, suffix = name[:-4], name[-4:]
    numbers = (f'{stem}_{number}{suffix}' for number in count(2))
    free = name if name not in names else next(other for other in numbers if other not in names)
    names.add(free)
    return free


def check_device(device: str | None) -> None:
    """Check that this machine has the device of ``--device``.

    Raises:
        CommandError: if it does not.
    """
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise CommandError(f'--device {device}: {str(error).splitlines()[0]}') from error


def check_output(path: str | Path, overwrite: bool) -> None:
    """Check, before the work starts, that a file can be written.

    Raises:
        CommandError: if the file exists and ``overwrite`` is not set, it is a folder, one of its parents is a file, or
            it may not be written.
    """
    path = Path(path)
    if path.is_dir():
        raise CommandError(f'{path} is a folder: give the name of a file')
    if path.exists() and not overwrite:
        raise CommandError(f'{path} exists: --overwrite replaces it')
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise CommandError(f'{path} cannot be written: {above} is not a folder')
    if not os.access(path if path.exists() else above, os.W_OK):
        raise CommandError(f'{path} cannot be written: permission denied')


@dataclass(frozen=True)
class Size:
    """An image size from the command line.

    Attributes:
        text: as it was written.
        kind: ``'scaled'`` for ``N``, ``'exact'`` for ``HxW`` and ``'short'`` for ``short:N``.
        height: in pixels.
        width: in pixels; for ``N`` and ``short:N`` equal to the height.
    """

    text: str
    kind: str
    height: int
    width: int

    def __iter__(self) -> Iterator[int]:
        return iter((self.height, self.width))


def parse_size(text: str) -> Size:
    """Parse ``'128'``, ``'96x160'`` (height first) or ``'short:800'``.

    Raises:
        argparse.ArgumentTypeError: if it is none of these, or a side is 0.
    """
    found = re.fullmatch(r'(short:)?(\d+)(?:x(\d+))?', text, re.ASCII)
    if found is None or (found[1] and found[3]) or 0 in (int(side) for side in found.groups()[1:] if side):
        raise argparse.ArgumentTypeError(
            f'a size must be N, HxW or short:N, such as 128, 96x160 or short:800, got {text!r}'
        )
    kind = 'short' if found[1] else 'exact' if found[3] else 'scaled'
    return Size(text, kind, int(found[2]), int(found[3] or found[2]))


def parse_pixels(text: str) -> Size:
    """Parse the size of one image: ``'128'`` for a square, or ``'96x160'`` (height first).

    Raises:
        argparse.ArgumentTypeError: if it is neither.
    """
    size = parse_size(text)
    if size.kind == 'short':
        raise argparse.ArgumentTypeError(f'a size must be N or HxW here, such as 128 or 96x160, got {text!r}')
    return size


def positive(text: str) -> int:
    """Parse a positive integer.

    Raises:
        argparse.ArgumentTypeError: if ``text`` is none.
    """
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f'must be a positive integer, got {text!r}')
    return int(text)


def share(text: str) -> float:
    """Parse a number from 0 to 1.

    Raises:
        argparse.ArgumentTypeError: if ``text`` is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'must be a number from 0 to 1, got {text!r}')
    return value


def part(text: str) -> float:
    """Parse a number between 0 and 1, neither of which is allowed.

    Raises:
        argparse.ArgumentTypeError: if ``text`` is none.
    """
    if (value := share(text)) in (0, 1):
        raise argparse.ArgumentTypeError(f'must be above 0 and below 1, got {text!r}')
    return value


def print_table(table: Table) -> None:
    """Print a table as wide as the terminal, or, without one, wide enough that no cell is cut."""
    from rich.console import Console

    console = Console()
    (console if console.is_terminal else Console(width=WIDTH)).print(table)
