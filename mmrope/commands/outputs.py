"""Files that a tool writes, and that it does not replace unasked."""

import argparse
from pathlib import Path

from .checks.config import LaunchError


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add ``--overwrite``."""
    parser.add_argument('--overwrite', action='store_true', help='replace files that are there')


def check_output(path: str | Path, overwrite: bool) -> None:
    """Check, before the work starts, that a file can be written: it is not there, and what is above it is a folder.

    Raises:
        LaunchError: If the file exists and ``overwrite`` is not set, or a folder is in its place, or a file in that of
            its folder.
    """
    path = Path(path)
    if path.is_dir():
        raise LaunchError(f'{path} is a folder, and the name of a file is needed')
    if path.exists() and not overwrite:
        raise LaunchError(f'{path} exists: --overwrite replaces it')
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise LaunchError(f'{path} cannot be written: {above} is no folder')
