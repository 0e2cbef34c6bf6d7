"""What is on the disk when a training is killed while it saves."""

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import save_checkpoint

from mmrope.checkpoints.files import PART, is_whole
from mmrope.engine.checkpoint_hook import (
    WholeCheckpointHook,
    WholeFileBackend,
    checkpoint_folder,
    latest_checkpoints,
)
from tests.helpers.killing import die, killed


def test_a_failed_write_names_the_file_and_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / 'iter_1.pth'
    path.write_bytes(b'old')

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match=re.escape(str(path))) as error:
        WholeFileBackend().put(b'new', path)
    assert error.value.errno == errno.ENOSPC and error.value.filename == str(path)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [('iter_1.pth', b'old')]


class Runner:
    """A runner with the parts that the hook uses; ``save`` is called in place of MMEngine's ``save_checkpoint``."""

    def __init__(self, folder: Path, save: Callable[[Path], None]) -> None:
        info: dict[str, Any] = {}
        self.work_dir, self.save, self.iter, self.epoch = str(folder), save, 0, 0
        self.logger = SimpleNamespace(info=print, warning=print)
        self.message_hub = SimpleNamespace(runtime_info=info, get_info=info.get, update_info=info.__setitem__)

    def save_checkpoint(self, out_dir: str, filename: str, *_: Any, **__: Any) -> None:
        self.save(Path(out_dir, filename))


@pytest.mark.parametrize(('hook', 'left'), [(WholeCheckpointHook, ['iter_1.pth']), (CheckpointHook, [])])
def test_the_only_checkpoint_is_kept_until_the_next_is_there(
    hook: type[CheckpointHook], left: list[str], tmp_path: Path
) -> None:
    """MMEngine's own hook fails here."""
    saver = hook(by_epoch=False, interval=1, max_keep_ckpts=1)
    runner = Runner(tmp_path, Path.touch)
    saver.before_train(runner)
    saver.after_train_iter(runner, 0)
    runner.iter, runner.save = 1, die
    assert killed(lambda: saver.after_train_iter(runner, 0))
    assert sorted(file.name for file in tmp_path.glob('*.pth')) == left
    assert Path((tmp_path / 'last_checkpoint').read_text()).exists() == (hook is WholeCheckpointHook)


@pytest.mark.parametrize('call', ['remove', 'replace', 'fsync'])
def test_a_kill_leaves_a_whole_checkpoint_which_last_checkpoint_names(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(out_dir: str, filename: str, *_: Any, backend_args: dict[str, str], **__: Any) -> None:
        save_checkpoint({'weight': torch.arange(1000.0)}, os.path.join(out_dir, filename), backend_args=backend_args)

    saver = WholeCheckpointHook(by_epoch=False, interval=1, max_keep_ckpts=1)
    runner = Runner(tmp_path, Path.touch)
    runner.save_checkpoint = save
    saver.before_train(runner)
    saver.after_train_iter(runner, 0)
    runner.iter = 1
    monkeypatch.setattr(os, call, die)
    assert killed(lambda: saver.after_train_iter(runner, 0))
    assert is_whole((tmp_path / 'last_checkpoint').read_text())
    assert all(map(is_whole, tmp_path.glob('*.pth')))
    assert len(list(tmp_path.glob('*.pth'))) == (2 if call == 'remove' else 1)


def test_other_writers_of_the_process_keep_mmengines_backend(tmp_path: Path) -> None:
    WholeCheckpointHook(by_epoch=False).before_train(Runner(tmp_path, Path.touch))
    assert type(get_file_backend(tmp_path)) is LocalBackend


def test_outdated_checkpoints_go_and_best_ones_stay(tmp_path: Path) -> None:
    saver = WholeCheckpointHook(by_epoch=False, interval=1, max_keep_ckpts=2, save_best='mIoU', rule='greater')
    (tmp_path / f'iter_9.pth.1{PART}').touch()  # of a training that was killed
    runner = Runner(tmp_path, Path.touch)
    saver.before_train(runner)
    for runner.iter, miou in enumerate((0.1, 0.3, 0.2, 0.4, 0.1)):
        saver.after_train_iter(runner, 0)
        runner.iter += 1  # as the loop does before it validates
        saver.after_val_epoch(runner, {'mIoU': miou})
    files = sorted(file.name for file in tmp_path.iterdir())
    assert files == ['best_mIoU_iter_4.pth', 'iter_4.pth', 'iter_5.pth', 'last_checkpoint']


@pytest.mark.parametrize('out_dir', [None, 'out'])
@pytest.mark.parametrize('several', [False, True])
def test_a_copy_of_a_training_leaves_the_original_unchanged(
    several: bool, out_dir: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed message hub names the files of the original."""
    monkeypatch.chdir(tmp_path)
    metrics = ['mIoU', 'mAcc'] if several else 'mIoU'
    options = dict(by_epoch=False, interval=1, save_best=metrics, rule='greater', max_keep_ckpts=1, out_dir=out_dir)
    saver = WholeCheckpointHook(**options)
    original = Runner(tmp_path / 'original', Path.touch)
    copy = Runner(tmp_path / 'copy', Path.touch)
    for runner in (original, copy):
        Path(runner.work_dir).mkdir()
        Path(checkpoint_folder(runner.work_dir, out_dir)).mkdir(parents=True, exist_ok=True)
    saver.before_train(original)
    original.iter = 1
    saver.after_train_iter(original, 0)
    saver.after_val_epoch(original, {'mIoU': 0.1, 'mAcc': 0.1})
    folder = Path(checkpoint_folder(original.work_dir, out_dir))
    before = sorted(path.name for path in folder.iterdir())
    copied = Path(checkpoint_folder(copy.work_dir, out_dir))
    (copied / 'best_mIoU_iter_1.pth').touch()  # the other best one was not copied
    copy.message_hub.runtime_info.update(original.message_hub.runtime_info)

    saver = WholeCheckpointHook(**options)
    saver.before_train(copy)
    assert 'last_ckpt' not in copy.message_hub.runtime_info
    copy.iter = 2
    saver.after_train_iter(copy, 0)
    copy.iter = 3
    saver.after_val_epoch(copy, {'mIoU': 0.2, 'mAcc': 0.2})
    assert sorted(path.name for path in folder.iterdir()) == before
    best = sorted(path.name for path in copied.glob('best_*'))
    assert best == ['best_mAcc_iter_3.pth', 'best_mIoU_iter_3.pth'][0 if several else 1 :]


def test_a_name_without_a_number_is_written_over_and_not_removed(tmp_path: Path) -> None:
    saver = WholeCheckpointHook(by_epoch=False, interval=1, max_keep_ckpts=1, filename_tmpl='latest.pth')
    runner = Runner(tmp_path, Path.touch)
    saver.before_train(runner)
    for runner.iter in range(3):
        saver.after_train_iter(runner, 0)
        assert (tmp_path / 'latest.pth').exists()


def test_the_order_in_which_checkpoints_are_tried(tmp_path: Path) -> None:
    names = ('iter_30.pth', 'iter_10.pth', 'iter_20.pth')  # 30 is of an earlier training
    for time, name in enumerate((*names, 'best_mIoU_iter_20.pth', 'epoch_7.pth')):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time, time))
    in_time = [str(tmp_path / name) for name in reversed(names)]
    assert latest_checkpoints(str(tmp_path), 'iter_{}.pth') == in_time
    (tmp_path / 'last_checkpoint').write_text(in_time[1])
    assert latest_checkpoints(str(tmp_path), 'iter_{}.pth') == [in_time[1], in_time[0], in_time[2]]
    (tmp_path / 'last_checkpoint').write_bytes(b'')  # killed while writing it
    assert latest_checkpoints(str(tmp_path), 'iter_{}.pth') == in_time
    assert latest_checkpoints(str(tmp_path / 'none'), 'iter_{}.pth') == []


@pytest.mark.parametrize('place', ['/moved/away', 'C:\\runs\\a', '{here}/original', ''])
def test_a_work_dir_has_checkpoints_of_its_own_only(place: str, tmp_path: Path) -> None:
    """``last_checkpoint`` was written elsewhere, and a copy without times has the checkpoints in any order."""
    original, folder = tmp_path / 'original', tmp_path / 'copy'
    for path in (original, folder):
        path.mkdir()
        for time, number in enumerate((12, 8, 4, 16)):
            (path / f'iter_{number}.pth').touch()
            os.utime(path / f'iter_{number}.pth', (time, time))
    separator = '\\' if '\\' in place else '/' if place else ''
    (folder / 'last_checkpoint').write_text(f'{place.format(here=tmp_path)}{separator}iter_12.pth\n')
    expected = [str(folder / f'iter_{number}.pth') for number in (12, 8, 4, 16)]
    assert latest_checkpoints(str(folder), 'iter_{}.pth') == expected


def test_the_folder_of_the_checkpoints(tmp_path: Path) -> None:
    work_dir = str(tmp_path / 'run')
    assert checkpoint_folder(f'{work_dir}/', None) == checkpoint_folder(work_dir, work_dir) == work_dir
    assert checkpoint_folder(work_dir, 'out') == 'out/run'
    hook = WholeCheckpointHook(out_dir=str(tmp_path / 'out'))
    hook.before_train(Runner(tmp_path / 'run', Path.touch))
    assert hook.out_dir == checkpoint_folder(work_dir, tmp_path / 'out')
