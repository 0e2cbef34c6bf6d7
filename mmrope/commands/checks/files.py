"""Files and folders of a data set: those that are missing, empty or not readable."""

import os
from collections.abc import Sequence

from ...text import few

# Of more files than this only the folders are listed, which does not show empty files.
MOST_SIZED = 20_000


class DataError(ValueError):
    """A fault of a data set. The message is a predicate: callers put the name of the file before it."""


def check_readable(path: str) -> None:
    """Check that a file or folder can be read and holds something.

    Raises:
        FileNotFoundError: if it does not exist.
        DataError: if it is empty or cannot be read.
    """
    try:
        if os.path.isdir(path):
            with os.scandir(path) as entries:
                filled = next(entries, None) is not None
        else:
            with open(path, 'rb') as file:
                filled = bool(file.read(1))
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
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
