"""Checkpoints that survive a crash: written whole or not at all, and none removed before its successor is there."""

import errno
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape, glob
from pathlib import Path, PureWindowsPath
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from ..registry import HOOKS

PART = '.part'  # ends the name of a file that is being written
# What file systems answer that cannot flush a file or a folder, or do not open folders: SMB, FUSE, some of WSL's.
CANNOT_FLUSH = {
    getattr(errno, name)
    for name in ('EINVAL', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'ENOTTY', 'EBADF', 'EISDIR', 'EACCES', 'EPERM')
}


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
                flush_to_disk(file.fileno())
            os.replace(path + PART, path)
        except OSError as error:
            with suppress(OSError):
                os.remove(path + PART)
            raise OSError(error.errno, error.strerror, path) from error
        flush_folder(os.path.dirname(path) or '.')


def flush_to_disk(descriptor: int) -> None:
    """Put a file or folder on the disk, where its file system can.

    Raises:
        OSError: If the disk fails.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_FLUSH:
            raise


def flush_folder(path: str) -> None:
    """Put the names of the files in a folder on the disk, where its file system can.

    Raises:
        OSError: If the disk fails.
    """
    try:
        folder = os.open(path, os.O_RDONLY)
    except OSError as error:
        if error.errno in CANNOT_FLUSH:
            return
        raise
    try:
        flush_to_disk(folder)
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
    MMEngine's own hook removes it first. Files of other folders are never removed: a resumed checkpoint names the best
    one by the path that it had when it was written, which may be that of another training since.
    """

    def before_train(self, runner: Runner) -> None:
        """Look for earlier checkpoints in the own folder only, and remove what a killed training left half-written."""
        register_backend('local', WholeFileBackend, force=True, prefixes='')
        use_own_paths(runner.message_hub.runtime_info, checkpoint_folder(runner.work_dir, self.out_dir))
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


def checkpoint_folder(work_dir: str, out_dir: str | os.PathLike[str] | None) -> str:
    """Return the folder in which MMEngine's ``CheckpointHook`` writes.

    Args:
        work_dir: The work dir of the training.
        out_dir: The argument of the hook.
    """
    work_dir = os.path.abspath(work_dir)
    if out_dir is None or os.fspath(out_dir) == work_dir:
        return work_dir
    return os.path.join(out_dir, os.path.basename(work_dir))


def own_path(folder: str | os.PathLike[str], stored: str) -> str:
    """Return the path in ``folder`` of a file whose stored path may be of another place, or of Windows."""
    return os.path.join(folder, PureWindowsPath(stored.strip()).name)


def use_own_paths(info: dict[str, Any], folder: str) -> None:
    """Have what a checkpoint says of others mean the files of a folder; drop what is not there.

    Args:
        info: The ``runtime_info`` of MMEngine's message hub, changed in place.
        folder: Where the training writes its checkpoints.
    """
    for key in [key for key in info if key in ('last_ckpt', 'best_ckpt') or key.startswith('best_ckpt_')]:
        path = own_path(folder, str(info[key]))
        if os.path.exists(path) or ('://' in folder and info[key] == path):
            info[key] = path
        else:
            del info[key]


def last_checkpoint(work_dir: str | os.PathLike[str], folder: str | None = None) -> str | None:
    """Return the path of the checkpoint that ``last_checkpoint`` in a work dir names, whether it is there or not.

    The file holds a path of the time when it was written; only its name counts.

    Args:
        work_dir: The work dir of a training.
        folder: Where its checkpoints are; the work dir by default.
    """
    named = ''
    with suppress(OSError, UnicodeDecodeError):
        named = Path(work_dir, 'last_checkpoint').read_text().strip()
    return own_path(folder or work_dir, named) if named else None


def latest_checkpoints(work_dir: str, template: str, folder: str | None = None) -> list[str]:
    """List the checkpoints of a training, the latest first.

    Args:
        work_dir: The work dir.
        template: Their name, with ``{}`` for the number.
        folder: Where they are; the work dir by default.

    Returns:
        The one that ``last_checkpoint`` names, those of lower numbers, and the others by the time they were written.
    """
    folder = folder or work_dir
    pattern = re.compile(re.escape(template).replace(re.escape('{}'), r'(\d+)'))
    numbers: dict[str, int] = {}
    with suppress(OSError):
        for name in os.listdir(folder):
            if match := pattern.fullmatch(name):
                numbers[os.path.join(folder, name)] = int(match[1]) if match.groups() else 0
    named = last_checkpoint(work_dir, folder)
    last = numbers.pop(named, -1)
    earlier = sorted((path for path in numbers if numbers[path] < last), key=numbers.get, reverse=True)
    others = [path for path in numbers if path not in earlier]
    others.sort(key=lambda path: (os.path.getmtime(path), numbers[path]), reverse=True)
    return [*filter(None, [named]), *earlier, *others]
