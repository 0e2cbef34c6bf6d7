"""A file is there as a whole or not at all, whatever happens while it is written."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from mmrope.checkpoints.files import PART, is_whole, write_whole
from tests.helpers.killing import die, killed


def write(path: Path, content: bytes) -> None:
    with write_whole(path) as part:
        part.write_bytes(content)


@pytest.mark.parametrize(('call', 'when', 'new'), [('fsync', 1, False), ('replace', 1, False), ('fsync', 2, True)])
def test_a_file_is_the_old_or_the_new_one(
    call: str, when: int, new: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``os.fsync`` of the folder comes last, after the renaming."""
    path = tmp_path / 'iter_1.pth'
    path.write_bytes(b'old')
    calls, original = [], getattr(os, call)

    def die_in_time(*arguments: Any) -> Any:
        calls.append(arguments)
        return die() if len(calls) == when else original(*arguments)

    monkeypatch.setattr(os, call, die_in_time)
    assert killed(lambda: write(path, b'new' * 10**6))
    assert path.read_bytes() == (b'new' * 10**6 if new else b'old')
    assert bool(list(tmp_path.glob(f'iter_1.pth.*{PART}'))) != new


def test_an_error_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / 'a.txt'
    path.write_bytes(b'old')
    with pytest.raises(KeyboardInterrupt), write_whole(path) as part:
        part.write_bytes(b'new')
        raise KeyboardInterrupt
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [('a.txt', b'old')]


def test_two_that_write_the_same_file_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / 'new' / 'a.txt'
    with write_whole(path) as one, write_whole(path) as two:
        one.write_bytes(b'1' * 100)
        two.write_bytes(b'2')
    assert [(file.name, file.read_bytes()) for file in path.parent.iterdir()] == [('a.txt', b'1' * 100)]


@pytest.mark.parametrize('code', [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_that_cannot_flush_gets_a_whole_file(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, 'fsync', refuse)
    write(tmp_path / 'iter_1.pth', b'new')
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [('iter_1.pth', b'new')]


@pytest.mark.parametrize('code', [errno.EACCES, errno.EPERM, errno.EISDIR, errno.EINVAL, errno.EIO])
def test_a_folder_that_cannot_be_flushed_has_the_file_all_the_same(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows and SMB open no folders."""
    original = os.open

    def refuse(path: Any, *arguments: Any) -> int:
        if os.path.isdir(path):
            raise OSError(code, os.strerror(code))
        return original(path, *arguments)

    monkeypatch.setattr(os, 'open', refuse)
    write(tmp_path / 'iter_1.pth', b'new')
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [('iter_1.pth', b'new')]


@pytest.mark.parametrize('code', [errno.EIO, errno.ENOSPC])
def test_a_disk_that_fails_is_an_error(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'iter_1.pth').write_bytes(b'old')

    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, 'fsync', fail)
    with pytest.raises(OSError) as error:
        write(tmp_path / 'iter_1.pth', b'new')
    assert error.value.errno == code
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [('iter_1.pth', b'old')]


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
