"""Errors of a command: one sentence on stderr, without a traceback."""

import errno
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

LONGEST_MESSAGE = 600
STDOUT = 1
DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class CommandError(ValueError):
    """A mistake in how a command was called; the text is the whole explanation."""


@dataclass
class Run:
    """The progress of a training or a test, which decides whether an error is blamed on its config.

    Attributes:
        started: whether everything is built and loaded.
        resumable: whether the command takes ``--resume``.
        work_dir: folder of the checkpoints, once the training has started.
        written: time in nanoseconds at which an earlier training in that folder wrote its last checkpoint.
    """

    started: bool = False
    resumable: bool = False
    work_dir: str | None = None
    written: int | None = None

    def start(self, work_dir: str | None = None, resumed: bool = False) -> None:
        """Note that the run has started; a training also names its folder."""
        self.started, self.work_dir = True, work_dir
        self.written = None if resumed or work_dir is None else _written(work_dir)

    def advice(self) -> str:
        """Return how to go on after a training that ended early; empty for other commands."""
        if not self.resumable:
            return ''
        if self.work_dir is None:
            return ' before the training began'
        if _written(self.work_dir) not in (None, self.written):
            return '; the checkpoints in the work dir are complete: continue with --resume'
        return '; this training has no checkpoint yet: the same command starts it again'


@contextmanager
def errors_in_one_sentence(prog: str, run: Run | None = None, traceback: bool = False) -> Iterator[None]:
    """Turn an error into one sentence on stderr and exit code 1.

    This applies until the run has started, and afterwards only to a full disk, to losses that are not finite and to
    Ctrl-C, whose exit code is 130. When the reader of stdout has gone, as in ``| head``, the exit is silent.

    Args:
        prog: name of the program, which the sentence begins with.
        run: how far the run is; without one every error becomes a sentence.
        traceback: whether to let every error pass through.
    """
    run = run or Run()
    try:
        yield
        print(end='', flush=True)  # a write that fails is an error of the command, not of Python's exit
    except (KeyboardInterrupt, Exception) as error:
        if isinstance(error, BrokenPipeError) and not traceback and _reader_has_gone():
            sys.exit(1)
        interrupted = _was_interrupted(error)
        full = isinstance(error, OSError) and error.errno in DISK_IS_FULL
        foreseen = interrupted or full or (isinstance(error, FloatingPointError) and _explains_itself(error))
        if traceback or (run.started and not foreseen):
            raise
        if interrupted:
            sys.stderr.write(f'{prog}: interrupted{run.advice()}\n')
            sys.exit(130)
        sys.stderr.write(f'{prog}: error: {sentence(error)}{run.advice() if full else ""}\n')
        sys.exit(1)


@contextmanager
def errors_of(argument: str) -> Iterator[None]:
    """Begin errors about a value from the command line with the name of its argument.

    Raises:
        CommandError: for a ``ValueError``.
    """
    try:
        yield
    except ValueError as error:
        raise CommandError(f'{argument}: {error}') from error


def sentence(error: BaseException, hint: str = ' (--traceback shows where)') -> str:
    """Format an error in one line; one from elsewhere comes with its class, which its text may need, and a hint."""
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    text = ' '.join(text.partition('. Please check whether the value of')[0].split())
    if len(text) > LONGEST_MESSAGE:
        text = f'{text[:LONGEST_MESSAGE]} ...'
    if 'registry' in text:
        from .checks.config import suggest_type  # imports MMEngine

        text += suggest_type(text)
    return text if _explains_itself(error) else f'{type(error).__name__}: {text}{hint}'


def _explains_itself(error: BaseException) -> bool:
    """Say whether the error is a class of mmrope, whose text is the whole explanation."""
    return type(error).__module__.partition('.')[0] == 'mmrope'


def _reader_has_gone() -> bool:
    """Say whether stdout is a pipe that nobody reads; if so, drop the output that Python would flush at exit."""
    stdout = select.poll()
    stdout.register(STDOUT, 0)
    gone = any(event & select.POLLERR for _, event in stdout.poll(0))
    if gone:
        with open(os.devnull, 'w') as nowhere:
            os.dup2(nowhere.fileno(), STDOUT)
    return gone


def _was_interrupted(error: BaseException | None) -> bool:
    """Say whether Ctrl-C caused an error: it also ends the workers, and their end raises another error."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _written(work_dir: str) -> int | None:
    """Return when the last checkpoint of a work dir was written, if one was."""
    note = os.path.join(work_dir, 'last_checkpoint')  # written after each checkpoint
    return os.stat(note).st_mtime_ns if os.path.isfile(note) else None
