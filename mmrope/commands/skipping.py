"""Errors of one image, model or size out of many: it is reported and skipped, and the command goes on."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import DISK_IS_FULL, sentence


class Skips:
    """Inputs that a command skips, each with the reason.

    Args:
        prog: name of the program in its messages.
        traceback: whether to let the first error pass through, for ``--traceback``.

    Attributes:
        problems: one sentence for each.
    """

    def __init__(self, prog: str, traceback: bool = False) -> None:
        self.prog, self.traceback = prog, traceback
        self.problems: list[str] = []
        self.errors: list[Exception] = []

    @contextmanager
    def skipping(self, name: str | Path) -> Iterator[None]:
        """Turn an error into a problem of the input ``name``; a full disk is not its problem, and passes through."""
        try:
            yield
        except Exception as error:
            if self.traceback or (isinstance(error, OSError) and error.errno in DISK_IS_FULL):
                raise
            text = sentence(error)
            self.errors.append(error)
            named = isinstance(name, Path) and text.startswith(str(name))
            self.problems.append(text if named else f'{name}: {text}')

    def check(self, kept: object) -> None:
        """Raise the error itself if it is the only problem and nothing was kept."""
        if not kept and len(self.problems) == len(self.errors) == 1:
            raise self.errors[0]

    def report(self, done: str) -> None:
        """List the skipped inputs on stderr, and exit with code 1 if there are any.

        Args:
            done: the outcome for the rest, such as ``'3 predicted'``.
        """
        for problem in self.problems:
            sys.stderr.write(f'{self.prog}: skipped: {problem}\n')
        if self.problems:
            sys.exit(f'{self.prog}: {len(self.problems)} skipped, {done}')
