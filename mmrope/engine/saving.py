"""Checkpoints that survive a crash: written whole or not at all, and none removed before its successor is there."""

import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape, glob
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from ..registry import HOOKS

PART = '.part'  # ends the name of a file that is being written


class WholeFileBackend(LocalBackend):
    """MMEngine's access to local files, where a file appears under its name only when all of it is on the disk."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write ``obj`` to ``filepath``.

        Raises:
            OSError: With the path, if it cannot be written; what was there before stays.
        """
        path = os.fspath(filepath)
        os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
        try:
            with open(path + PART, 'wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
            os.replace(path + PART, path)
        except OSError as error:
            with suppress(OSError):
                os.remove(path + PART)
            raise OSError(error.errno, error.strerror, path) from error
        folder = os.open(os.path.dirname(path) or '.', os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name
        finally:
            os.close(folder)


class RemoveLater:
    """A storage backend that puts off every removal."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.outdated: list[tuple[Any, str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        """Note a file to be removed."""
        self.outdated.append((self.backend.remove, path))

    def rmtree(self, path: str) -> None:
        """Note a folder to be removed."""
        self.outdated.append((self.backend.rmtree, path))


@HOOKS.register_module()
class WholeCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook``, with its arguments, for trainings that may be killed at any moment.

    Files are written whole or not at all, and an outdated checkpoint is removed only after the new one is on the disk;
    MMEngine's own hook removes it first.
    """

    def before_train(self, runner: Runner) -> None:
        """Remove what a killed training left half-written."""
        register_backend('local', WholeFileBackend, force=True, prefixes='')
        super().before_train(runner)
        if is_main_process() and os.path.isdir(self.out_dir):
            for path in glob(os.path.join(escape(self.out_dir), f'*.pth{PART}')):
                os.remove(path)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        with self._removing_afterwards():
            super()._save_checkpoint_with_step(runner, step, meta)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, Any]) -> None:
        with self._removing_afterwards():
            super()._save_best_checkpoint(runner, metrics)

    @contextmanager
    def _removing_afterwards(self) -> Iterator[None]:
        backend, self.file_backend = self.file_backend, RemoveLater(self.file_backend)
        try:
            yield
            outdated = self.file_backend.outdated
        finally:
            self.file_backend = backend
        best = getattr(self, 'best_ckpt_path_dict', {}).values()
        current = {self.last_ckpt, getattr(self, 'best_ckpt_path', None), *best}
        for remove, path in outdated:
            if path not in current:  # a template without a number gives all checkpoints one name
                remove(path)


def is_whole(path: str) -> bool:
    """Say whether a file that ``torch.save`` wrote is all there, by the checksums in it; nothing is unpickled."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError, ValueError, RuntimeError, zlib.error):
        return False


def latest_checkpoints(folder: str, template: str) -> list[str]:
    """List the checkpoints of a training, the latest first.

    Args:
        folder: The work dir.
        template: Their name, with ``{}`` for the number.

    Returns:
        The one that ``last_checkpoint`` names, if it is there, and the others by the time they were written.
    """
    named = ''
    with suppress(OSError, UnicodeDecodeError):
        named = Path(folder, 'last_checkpoint').read_text().strip()
    number = re.compile(re.escape(template).replace(re.escape('{}'), r'(\d+)'))
    where = os.path.dirname(named) or folder
    found = []
    with suppress(OSError):
        for name in os.listdir(where):
            match = number.fullmatch(name)
            path = os.path.join(where, name)
            if match and path != named:
                found.append((os.path.getmtime(path), int(match[1]) if match.groups() else 0, path))
    rest = [path for *_, path in sorted(found, reverse=True)]
    return [named, *rest] if named else rest
