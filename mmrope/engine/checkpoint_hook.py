"""Checkpoints that survive a crash: written whole or not at all, and removed only after their successor is there."""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from glob import escape, glob
from pathlib import Path, PureWindowsPath
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from ..checkpoints.files import PART, write_whole
from ..registry import HOOKS


@register_backend('mmrope.whole_files')
class WholeFileBackend(LocalBackend):
    """MMEngine's backend for local files, with files that get their name only once all of them is on the disk."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write ``obj`` to ``filepath``.

        Raises:
            OSError: with the path, if it cannot be written; an earlier file stays.
        """
        try:
            with write_whole(filepath) as part:
                part.write_bytes(obj)
        except OSError as error:
            raise OSError(error.errno, error.strerror, os.fspath(filepath)) from error


class RemoveLater:
    """Storage backend that only notes in ``outdated`` what to remove and how.

    Args:
        backend: the backend for all else.
    """

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.outdated: list[tuple[str, Callable[[str], None]]] = []

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.backend, name)
        return (lambda path: self.outdated.append((path, call))) if name in ('remove', 'rmtree') else call


@HOOKS.register_module()
class WholeCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook``, with its arguments, for trainings that may be killed at any moment.

    Local files are written whole or not at all, and an outdated checkpoint is removed only after the new one is on the
    disk; MMEngine's own hook removes it first. Files in other folders are never removed: a resumed checkpoint holds the
    path of the best one at that time, where another training may have written since.
    """

    backend_args: dict[str, Any] | None
    file_backend: Any

    def before_train(self, runner: Runner) -> None:
        """Look for earlier checkpoints in this folder only, and remove half-written files of a killed training."""
        use_own_paths(runner.message_hub.runtime_info, checkpoint_folder(runner.work_dir, self.out_dir))
        if self.file_client_args is None and self.backend_args is None and '://' not in str(self.out_dir):
            self.backend_args = {'backend': 'mmrope.whole_files'}
        super().before_train(runner)
        self.file_backend = RemoveLater(self.file_backend)
        if is_main_process() and os.path.isdir(self.out_dir):
            for path in glob(os.path.join(escape(self.out_dir), f'*.pth*{PART}')):
                os.remove(path)

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint if one is due, then remove outdated ones."""
        super().after_train_iter(runner, *args, **kwargs)
        self._remove_outdated()

    def after_train_epoch(self, runner: Runner) -> None:
        """Save a checkpoint if one is due, then remove outdated ones."""
        super().after_train_epoch(runner)
        self._remove_outdated()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Save the best checkpoint, then remove outdated ones."""
        super().after_val_epoch(runner, metrics)
        self._remove_outdated()

    def _remove_outdated(self) -> None:
        """Remove files that MMEngine's hook no longer keeps, unless a new checkpoint has the same name."""
        best = getattr(self, 'best_ckpt_path_dict', {}).values()
        current = {self.last_ckpt, getattr(self, 'best_ckpt_path', None), *best}
        while self.file_backend.outdated:
            path, remove = self.file_backend.outdated.pop()
            if path not in current:
                remove(path)


def checkpoint_folder(work_dir: str, out_dir: str | os.PathLike[str] | None) -> str:
    """Return the folder in which MMEngine's ``CheckpointHook`` writes.

    Args:
        work_dir: the work dir of the training.
        out_dir: the argument of the hook.
    """
    work_dir = os.path.abspath(work_dir)
    if out_dir is None or os.fspath(out_dir) == work_dir:
        return work_dir
    return os.path.join(out_dir, os.path.basename(work_dir))


def own_path(folder: str | os.PathLike[str], stored: str) -> str:
    """Return the path in ``folder`` of a file whose stored path may be of another folder, or of Windows."""
    return os.path.join(folder, PureWindowsPath(stored.strip()).name)


def use_own_paths(info: dict[str, Any], folder: str) -> None:
    """Point the checkpoints that ``info`` names to a folder, and drop those that are not in it.

    Args:
        info: the ``runtime_info`` of MMEngine's message hub, changed in place.
        folder: the folder in which the training writes its checkpoints.
    """
    for key in [key for key in info if key == 'last_ckpt' or key.startswith('best_ckpt')]:
        path = own_path(folder, str(info.pop(key)))
        if '://' in folder or os.path.exists(path):
            info[key] = path


def last_checkpoint(work_dir: str | os.PathLike[str], folder: str | None = None) -> str | None:
    """Return the path of the checkpoint that ``last_checkpoint`` in a work dir names, whether or not it exists.

    The path in the file may be out of date; only its last part counts.

    Args:
        work_dir: the work dir of a training.
        folder: the folder of its checkpoints; the work dir by default.
    """
    named = ''
    with suppress(OSError, UnicodeDecodeError):
        named = Path(work_dir, 'last_checkpoint').read_text().strip()
    return own_path(folder or work_dir, named) if named else None


def latest_checkpoints(work_dir: str, template: str, folder: str | None = None) -> list[str]:
    """List the checkpoints of a training, the latest first.

    Args:
        work_dir: the work dir.
        template: name of the checkpoints, with ``{}`` for the number.
        folder: the folder of the checkpoints; the work dir by default.

    Returns:
        The one that ``last_checkpoint`` names, then those of lower numbers, then the others by the time of writing.
    """
    folder = folder or work_dir
    pattern = re.compile(re.escape(template).replace(re.escape('{}'), r'(\d+)'))
    numbers: dict[str, int] = {}
    with suppress(OSError):
        for name in os.listdir(folder):
            if match := pattern.fullmatch(name):
                numbers[os.path.join(folder, name)] = int(match[1]) if match.groups() else 0
    named = last_checkpoint(work_dir, folder)
    last = numbers.pop(named, -1) if named else -1

    def rank(path: str) -> tuple[bool, float, int]:
        earlier = numbers[path] < last
        return earlier, numbers[path] if earlier else os.path.getmtime(path), numbers[path]

    return [*filter(None, [named]), *sorted(numbers, key=rank, reverse=True)]
