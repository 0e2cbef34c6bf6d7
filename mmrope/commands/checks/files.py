"""Files and folders of a data set: those that are missing, empty or not readable."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ...text import few

# Of more files than this only the folders are listed, which does not show empty files.
MOST_SIZED = 20_000


class DataError(ValueError):
    """A fault of a data set. The message is a predicate, which :func:`reading` completes with the name of the file."""


@contextmanager
def reading(path: str, reader: str = 'mmrope') -> Iterator[None]:
    """Have errors within the context begin with the file that is read.

    Args:
        path: of the file.
        reader: name of the class that reads it.

    Raises:
        ValueError: for a ``DataError``, and for any error that Python raises on content that is not as expected.
    """
    try:
        yield
    except DataError as error:
        raise ValueError(f'reads {path}, which {error}') from None
    except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        reason = f'{type(error).__name__}: {error}'
        raise ValueError(f'reads {path}, which {reader} cannot read: {reason}') from error


def check_readable(path: str) -> None:
    """Check that a file or folder can be read and holds something.

    Raises:
        DataError: if it does not exist, is empty or cannot be read.
    """
    try:
        if os.path.isdir(path):
            with os.scandir(path) as entries:
                filled = next(entries, None) is not None
        else:
            with open(path, 'rb') as file:
                filled = bool(file.read(1))
    except (FileNotFoundError, NotADirectoryError):
        advice = 'put the data set there, laid out as in docs/train.md, or name its folder with --data-root DIR'
        if digits := re.search(r'(^|/)data/(single_)?digits(/|$)', path):
            advice = f'make it with `mmrope digits{" --single" if digits[2] else ""}`'
        raise DataError(f'does not exist: {advice}') from None
    except OSError as error:
        raise DataError(f'cannot be read: {(error.strerror or str(error)).lower()}') from None
    if not filled:
        raise DataError('is empty')


def check_exist(paths: Sequence[str], what: str = 'images') -> None:
    """Check that the files that a data set lists exist and, if they are at most ``MOST_SIZED``, are not empty.

    Args:
        paths: of the files.
        what: their name in the error.

    Raises:
        DataError: if some are missing or empty.
    """
    if len(paths) <= MOST_SIZED:
        missing = [path for path in paths if not os.path.exists(path)]
        if not missing and (empty := [path for path in paths if not os.path.getsize(path)]):
            raise DataError(f'lists {what} that are empty files: {few(empty)}')
    else:
        folders = {os.path.dirname(path) for path in paths}
        there = {(folder, name) for folder in folders if os.path.isdir(folder) for name in os.listdir(folder)}
        missing = [path for path in paths if os.path.split(path) not in there]
    if missing:
        raise DataError(f'lists {what} that do not exist: {few(missing)}')
