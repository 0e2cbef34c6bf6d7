"""No checkpoint runs code, and the runner's own can be loaded."""

import os
import pickle
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from safetensors.torch import save_file

from mmrope.engine import checkpoint as module
from mmrope.engine.checkpoint import (
    UnsafeCheckpointError,
    history_statistic,
    load_checkpoint,
    refuse_code_in_checkpoints,
)


class Malicious:
    """Makes a folder when it is unpickled by Python's own pickle."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def restored_loaders(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ('TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'):
        monkeypatch.setenv(name, '0')
    monkeypatch.setattr(CheckpointLoader, '_schemes', CheckpointLoader._schemes)
    yield


@pytest.fixture
def malicious(tmp_path: Path) -> tuple[str, Path]:
    """A checkpoint, and the folder that appears when its code runs."""
    path, folder = tmp_path / 'malicious.pth', tmp_path / 'was_here'
    torch.save({'state_dict': {}, 'meta': Malicious(folder)}, path)
    return str(path), folder


def runner_records() -> dict[str, Any]:
    buffer = HistoryBuffer([0.5, 0.25], [1, 1])
    return {
        'meta': {'epoch': 1, 'iter': 5, 'dataset_meta': {'classes': ('box',), 'palette': [(1, 2, 3)]}},
        'state_dict': OrderedDict(weight=torch.arange(6.0).view(2, 3)),
        'message_hub': {
            'log_scalars': OrderedDict({'train/loss': buffer}),
            'runtime_info': OrderedDict(best_score=np.float64(0.5), flag=np.bool_(True), step=np.int64(3)),
        },
        'extra': {kind: np.ones(2, kind) for kind in ('float32', 'float64', 'int64', 'uint8', 'bool')},
    }


def test_what_the_runner_writes_loads(tmp_path: Path) -> None:
    path = tmp_path / 'epoch_1.pth'
    torch.save(runner_records(), path)
    loaded = load_checkpoint(path)
    hub = loaded['message_hub']
    assert hub['log_scalars']['train/loss'].mean() == 0.375
    assert hub['runtime_info']['best_score'] == 0.5
    assert loaded['extra']['uint8'].dtype == np.uint8
    assert torch.equal(loaded['state_dict']['weight'], torch.arange(6.0).view(2, 3))


@pytest.mark.parametrize('name', ['numpy.core.multiarray', 'numpy._core.multiarray'])
def test_arrays_of_both_numpy_generations_load(tmp_path: Path, name: str) -> None:
    path = tmp_path / 'array.pth'
    torch.save({'array': np.arange(3.0), 'number': np.float64(2)}, path, _use_new_zipfile_serialization=False)
    text = path.read_bytes()
    here = np.empty(0).__reduce__()[0].__module__.encode()
    path.write_bytes(text.replace(b'c' + here + b'\n', b'c' + name.encode() + b'\n'))
    assert name.encode() in path.read_bytes()
    assert load_checkpoint(path)['array'].tolist() == [0, 1, 2]


def test_a_checkpoint_with_code_is_refused_and_runs_nothing(malicious: tuple[str, Path]) -> None:
    path, folder = malicious
    with pytest.raises(UnsafeCheckpointError, match=r'malicious.pth was not loaded: it asks for \w+.mkdir'):
        load_checkpoint(path)
    assert not folder.exists()
    torch.load(path, weights_only=False)
    assert folder.exists()  # it would have


@pytest.mark.parametrize('forced_off', [False, True])
def test_mmengine_refuses_it_too(
    malicious: tuple[str, Path], restored_loaders: None, monkeypatch: pytest.MonkeyPatch, forced_off: bool
) -> None:
    path, folder = malicious
    if forced_off:
        monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    refuse_code_in_checkpoints()
    with pytest.raises(UnsafeCheckpointError, match='mkdir'):
        CheckpointLoader.load_checkpoint(path)
    assert not folder.exists()


def test_a_library_that_asks_for_a_full_unpickle_gets_none(malicious: tuple[str, Path], restored_loaders: None) -> None:
    path, folder = malicious
    refuse_code_in_checkpoints()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=False)
    assert not folder.exists()


@pytest.mark.parametrize('name', ['https://example.org/a.pth', 'hf-hub:owner/name', 'timm:vit_tiny', '~/a.pth'])
def test_a_download_is_held_to_the_same_rules(
    malicious: tuple[str, Path], restored_loaders: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whatever the name, what MMEngine gets comes through here, without the network in this test."""
    path, folder = malicious
    asked = []
    monkeypatch.setattr(module, 'fetch', lambda name: asked.append(name) or path)
    refuse_code_in_checkpoints()
    with pytest.raises(UnsafeCheckpointError, match='mkdir'):
        CheckpointLoader.load_checkpoint(name)
    assert asked == [name] and not folder.exists()


def test_one_checkpoint_can_be_trusted_and_no_other(
    malicious: tuple[str, Path], restored_loaders: None, tmp_path: Path
) -> None:
    path, folder = malicious
    other = tmp_path / 'other.pth'
    torch.save(Malicious(tmp_path / 'other_was_here'), other)
    refuse_code_in_checkpoints(trusted=path)
    with pytest.raises(UnsafeCheckpointError, match='mkdir'):
        CheckpointLoader.load_checkpoint(str(other))
    assert CheckpointLoader.load_checkpoint(path)['state_dict'] == {}
    assert folder.exists() and not (tmp_path / 'other_was_here').exists()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=False)  # the switch is back


def test_safetensors_load_like_any_other(tmp_path: Path) -> None:
    weights = {'weight': torch.arange(6.0).view(2, 3)}
    save_file(weights, tmp_path / 'a.safetensors')
    loaded = load_checkpoint(tmp_path / 'a.safetensors')
    assert list(loaded) == ['weight'] and torch.equal(loaded['weight'], weights['weight'])
    content = (tmp_path / 'a.safetensors').read_bytes()
    (tmp_path / 'b.safetensors').write_bytes(content[:-5])
    with pytest.raises(UnsafeCheckpointError, match='b.safetensors is not a checkpoint, or is damaged'):
        load_checkpoint(tmp_path / 'b.safetensors')


@pytest.mark.parametrize('owner', [os, HistoryBuffer, dict])
@pytest.mark.parametrize('name', ['__init__', '__class__', 'system', 'register_statistics'])
def test_getattr_reaches_nothing_but_the_statistics(owner: Any, name: str) -> None:
    with pytest.raises(pickle.UnpicklingError):
        history_statistic(owner, name)
    assert history_statistic(HistoryBuffer, 'mean') is HistoryBuffer.mean


def test_a_config_in_the_checkpoint_is_not_handed_on(tmp_path: Path) -> None:
    """The runner would run it as Python."""
    path = tmp_path / 'old.pth'
    torch.save({'meta': {'config': 'import os', 'cfg': 'kept', 'epoch': 1}, 'state_dict': {}}, path)
    assert load_checkpoint(path)['meta'] == {'cfg': 'kept', 'epoch': 1}


@pytest.mark.parametrize('content', [b'', b'<html>not found</html>', None])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / 'broken.pth'
    if content is None:
        torch.save({'weight': torch.ones(1000)}, path)
        content = path.read_bytes()[:2000]
    path.write_bytes(content)
    with pytest.raises(UnsafeCheckpointError, match='broken.pth is not a checkpoint, or is damaged'):
        load_checkpoint(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='nowhere.pth'):
        load_checkpoint(tmp_path / 'nowhere.pth')
