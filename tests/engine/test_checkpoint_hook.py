"""What is on the disk when a training is killed while it saves."""

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.hooks import CheckpointHook

from mmrope.engine.checkpoint_hook import (
    PART,
    WholeCheckpointHook,
    WholeFileBackend,
    checkpoint_folder,
    is_whole,
    latest_checkpoints,
)


def killed(child: Callable[[], None]) -> bool:
    """Run a function in a child; return whether it was killed."""
    pid = os.fork()
    if pid == 0:
        try:
            child()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(('call', 'new'), [('fsync', False), ('replace', False), ('close', True)])
def test_a_file_is_the_old_or_the_new_one(
    call: str, new: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``os.close`` comes last, after the renaming."""
    path = tmp_path / 'iter_1.pth'
    path.write_bytes(b'old')
    monkeypatch.setattr(os, call, die)
    assert killed(lambda: WholeFileBackend().put(b'new' * 10**6, str(path)))
    assert path.read_bytes() == (b'new' * 10**6 if new else b'old')
    assert (tmp_path / f'iter_1.pth{PART}').exists() != new


def test_a_failed_write_names_the_file_and_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / 'iter_1.pth'
    path.write_bytes(b'old')

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match=r'No space left on device.*iter_1\.pth'):
        WholeFileBackend().put(b'new', path)
    assert [file.name for file in tmp_path.iterdir()] == ['iter_1.pth']
    assert path.read_bytes() == b'old'


@pytest.mark.parametrize('code', [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES])
@pytest.mark.parametrize('call', ['fsync', 'open'])
def test_a_file_system_that_cannot_flush_folders_gets_a_whole_file(
    call: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``os.fsync`` is refused for the file, too."""

    def refuse(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, refuse)
    WholeFileBackend().put(b'new', tmp_path / 'iter_1.pth')
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [('iter_1.pth', b'new')]


@pytest.mark.parametrize('call', ['fsync', 'open'])
def test_a_failing_disk_is_no_file_system_that_cannot_flush(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match='Input/output error'):
        WholeFileBackend().put(b'new', tmp_path / 'iter_1.pth')


class Runner:
    """As much of a runner as the hook uses; ``save`` is called in place of MMEngine's ``save_checkpoint``."""

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
    """As MMEngine's own hook does not."""
    saver = hook(by_epoch=False, interval=1, max_keep_ckpts=1)
    runner = Runner(tmp_path, Path.touch)
    saver.before_train(runner)
    saver._save_checkpoint(runner)
    runner.iter, runner.save = 1, die
    assert killed(lambda: saver._save_checkpoint(runner))
    assert sorted(file.name for file in tmp_path.glob('*.pth')) == left


def test_outdated_checkpoints_go_and_best_ones_stay(tmp_path: Path) -> None:
    saver = WholeCheckpointHook(by_epoch=False, interval=1, max_keep_ckpts=2, save_best='mIoU', rule='greater')
    (tmp_path / f'iter_9.pth{PART}').touch()  # of a training that was killed
    runner = Runner(tmp_path, Path.touch)
    saver.before_train(runner)
    for runner.iter, miou in enumerate((0.1, 0.3, 0.2, 0.4, 0.1)):
        saver._save_checkpoint(runner)
        runner.iter += 1  # as the loop does before it validates
        saver.after_val_epoch(runner, {'mIoU': miou})
    files = sorted(file.name for file in tmp_path.iterdir())
    assert files == ['best_mIoU_iter_4.pth', 'iter_4.pth', 'iter_5.pth', 'last_checkpoint']


@pytest.mark.parametrize('out_dir', [None, 'out'])
@pytest.mark.parametrize('several', [False, True])
def test_a_copy_of_a_training_leaves_the_original_as_it_is(
    several: bool, out_dir: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed message hub names the files of the original."""
    monkeypatch.chdir(tmp_path)
    metrics = ['mIoU', 'mAcc'] if several else 'mIoU'
    saver = WholeCheckpointHook(by_epoch=False, save_best=metrics, rule='greater', max_keep_ckpts=1, out_dir=out_dir)
    original = Runner(tmp_path / 'original', Path.touch)
    copy = Runner(tmp_path / 'copy', Path.touch)
    for runner in (original, copy):
        Path(runner.work_dir).mkdir()
        Path(checkpoint_folder(runner.work_dir, out_dir)).mkdir(parents=True, exist_ok=True)
    saver.before_train(original)
    original.iter = 1
    saver._save_checkpoint(original)
    saver.after_val_epoch(original, {'mIoU': 0.1, 'mAcc': 0.1})
    folder = Path(checkpoint_folder(original.work_dir, out_dir))
    before = sorted(path.name for path in folder.iterdir())
    copied = Path(checkpoint_folder(copy.work_dir, out_dir))
    (copied / 'best_mIoU_iter_1.pth').touch()  # the other best one was not copied
    copy.message_hub.runtime_info.update(original.message_hub.runtime_info)

    saver = WholeCheckpointHook(by_epoch=False, save_best=metrics, rule='greater', max_keep_ckpts=1, out_dir=out_dir)
    saver.before_train(copy)
    assert 'last_ckpt' not in copy.message_hub.runtime_info
    copy.iter = 2
    saver._save_checkpoint(copy)
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
        saver._save_checkpoint(runner)
        assert (tmp_path / 'latest.pth').exists()


def test_whole_and_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / 'a.pth'
    torch.save({'weight': torch.arange(10000.0), 'text': 'a'}, path)
    whole = path.read_bytes()
    assert is_whole(str(path))
    for size in range(0, len(whole), len(whole) // 50):
        path.write_bytes(whole[:size])
        assert not is_whole(str(path)), size
    for at in range(len(whole) // 4, len(whole) // 2, len(whole) // 50):  # within the tensor
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert not is_whole(str(path)), at
    assert not is_whole(str(tmp_path / 'none.pth')) and not is_whole(str(tmp_path))


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
