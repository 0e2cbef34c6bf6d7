"""Commands that go over several images, models or sizes: a bad one is named and skipped, and the rest is kept."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import DISK_IS_FULL, sentence


class Skips:
    """The inputs that a command passes over, each with the reason.

    Args:
        prog: name of the program, which its lines on stderr begin with.
        traceback: whether the first error passes through, as ``--traceback`` asks for.

    Attributes:
        problems: a sentence for each.
    """

    def __init__(self, prog: str, traceback: bool = False) -> None:
        self.prog, self.traceback = prog, traceback
        self.problems: list[str] = []
        self.errors: list[Exception] = []

    @contextmanager
    def skipping(self, name: str | Path) -> Iterator[None]:
        """Turn an error into a problem of the input that is called ``name``; a full disk is none of an input's."""
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
        """Raise the error of the only input, if nothing is left after it."""
        if not kept and len(self.problems) == len(self.errors) == 1:
            raise self.errors[0]

    def report(self, done: str) -> None:
        """Name on stderr what was skipped, and leave with exit code 1 if anything was.

        Args:
            done: what was done with the rest, as ``'3 predicted'``.
        """
        for problem in self.problems:
            sys.stderr.write(f'{self.prog}: skipped: {problem}\n')
        if self.problems:
            sys.exit(f'{self.prog}: {len(self.problems)} skipped, {done}')
