"""No checkpoint runs code, and the runner's own can be loaded."""

import gzip
import io
import os
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from safetensors.torch import save_file

from mmrope.checkpoints import loading as module
from mmrope.checkpoints.file_kinds import kind_of
from mmrope.checkpoints.loading import (
    UnsafeCheckpointError,
    history_statistic,
    load_checkpoint,
    load_trusted_checkpoint,
    refuse_code_in_checkpoints,
)
from mmrope.checkpoints.sources import SourceError


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


def test_checkpoints_of_the_runner_load(tmp_path: Path) -> None:
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


DATA = {
    'text': np.str_('box'),
    'no text': np.str_(''),
    'bytes': np.bytes_(b'box'),
    'number': np.float64(0.5),
    'extended': np.longdouble(0.5),
    'complex': np.complex64(1j),
    'date': np.datetime64('2026-01-31'),
    'duration': np.timedelta64(90, 's'),
    'names': np.array(['box', 'car']),
    'dates': np.array(['2020', '2021'], 'M8[25s]'),
    'other byte order': np.array([1, 256], '>i4'),
    'by columns': np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    'empty': np.empty((0, 3)),
    'no axes': np.array(3),
    'boolean': np.array([True, False]),
}


@pytest.mark.parametrize('value', DATA.values(), ids=DATA)
def test_plain_data_of_numpy_loads_as_it_was(tmp_path: Path, value: Any) -> None:
    path = tmp_path / 'data.pth'
    torch.save({'meta': {'it': value, 'within': [(value,)]}, 'state_dict': {}}, path)
    meta = load_checkpoint(path)['meta']
    for loaded in (meta['it'], meta['within'][0][0]):
        assert type(loaded) is type(value) and loaded.dtype == value.dtype.newbyteorder('=')
        assert loaded.shape == value.shape and np.all(loaded == value)


def test_the_runners_history_is_made_of_plain_arrays(tmp_path: Path) -> None:
    torch.save(runner_records(), tmp_path / 'epoch_1.pth')
    history, counts = load_checkpoint(tmp_path / 'epoch_1.pth')['message_hub']['log_scalars']['train/loss'].data
    assert type(history) is type(counts) is np.ndarray and history.tolist() == [0.5, 0.25]


class Call:
    """Pickled as a call, and a state that its result takes over."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


REBUILD_ARRAY, REBUILD_SCALAR = np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]


def dtype(code: Any, *state: Any) -> Call:
    return Call(np.dtype, (code, False, True), *([state] if state else []))


def array(shape: tuple[int, ...], kind: Any, data: Any) -> Call:
    return Call(REBUILD_ARRAY, (np.ndarray, (0,), b'b'), (1, shape, kind, False, data))


MISUSES_OF_NUMPY = {
    'objects': lambda folder: np.array([Malicious(folder)], dtype=object),
    'objects by hand': lambda folder: array((1,), dtype('O8'), [Malicious(folder)]),
    'pointers for objects': lambda _: array((1,), dtype('O8', 3, '|', None, None, None, -1, -1, 0), bytes(8)),
    'an object as a scalar': lambda folder: Call(REBUILD_SCALAR, (dtype('O8'), Malicious(folder))),
    'a structure': lambda _: np.zeros(1, 'i4,f8'),
    'a structure with objects': lambda _: array((1,), dtype([('a', 'O')]), [(None,)]),
    'a type by its class': lambda _: array((1,), dtype(np.float64), bytes(8)),
    'several types in one code': lambda _: array((1,), dtype('f8,O'), [(0, None)]),
    'more shape than data': lambda _: array((1000,), dtype('f8'), bytes(8)),
    'a negative shape': lambda _: array((-1,), dtype('f8'), bytes(8)),
    'too little for a number': lambda _: Call(REBUILD_SCALAR, (dtype('f8'), b'1')),
    'an array without a state': lambda _: Call(np.ndarray, ((1 << 40,),)),
    'bytes without data': lambda _: Call(bytes, (1 << 40,)),
    'a state that is none': lambda _: Call(REBUILD_ARRAY, (np.ndarray, (0,), b'b'), (1, (1,), 'f8', False, bytes(8))),
    'a unit that is none': lambda _: array((1,), dtype('M8', 4, '<', *[None] * 6, ({}, (b'x', 1))), bytes(8)),
}


@pytest.mark.parametrize('make', MISUSES_OF_NUMPY.values(), ids=MISUSES_OF_NUMPY)
def test_numpys_functions_get_nothing_but_plain_data(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    folder = tmp_path / 'was_here'
    torch.save({'meta': make(folder)}, tmp_path / 'misuse.pth')
    with pytest.raises(UnsafeCheckpointError, match='misuse.pth'):
        load_checkpoint(tmp_path / 'misuse.pth')
    assert not folder.exists()


@pytest.mark.parametrize(
    'kind',
    [
        dtype('f8', 3, '<', (np.dtype('f8'), (1000,)), None, None, 8000, 8, 0),
        dtype('f8', 3, '<', None, ('a',), {'a': (np.dtype('f4'), 400)}, 8, 8, 63),
        dtype('U2', 3, '<', None, None, None, -8, 4, 8),
    ],
    ids=['an array in each place', 'fields beyond the end', 'a negative size'],
)
def test_the_state_of_a_type_cannot_change_its_size(tmp_path: Path, kind: Call) -> None:
    """NumPy itself believes it, and reads beyond the data."""
    torch.save({'it': array((1,), kind, bytes(8))}, tmp_path / 'misuse.pth')
    loaded = load_checkpoint(tmp_path / 'misuse.pth')['it']
    assert loaded.nbytes == 8 and loaded.dtype in (np.dtype('f8'), np.dtype('U2'))


def test_a_checkpoint_with_code_is_refused_and_runs_nothing(malicious: tuple[str, Path]) -> None:
    path, folder = malicious
    with pytest.raises(UnsafeCheckpointError, match=r'malicious\.pth\b.*\w+\.mkdir\b.*--trust-checkpoint'):
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
    """MMEngine gets every name through here; this test uses no network."""
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
    with pytest.raises(UnsafeCheckpointError, match=r'b\.safetensors\b.*checkpoint'):
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


def written_by(write: Callable[..., Any], *args: Any, **kwargs: Any) -> bytes:
    """Return the content that a function writes to a file."""
    file = io.BytesIO()
    write(*args, file, **kwargs)
    return file.getvalue()


def archive_of(name: str) -> bytes:
    """A tar archive."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode='w') as archive:
        archive.addfile(tarfile.TarInfo(name))
    return file.getvalue()


def zip_of(**parts: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return file.getvalue()


WEIGHTS = {'weight': torch.ones(1000)}
WHOLE = written_by(torch.save, WEIGHTS)
NOT_CHECKPOINTS = {
    'empty': (b'', r'empty\b'),
    'a word': (b'hello', "text .*'hello'"),
    'YAML': (b'a: 1\nb: [2]\n', "text .*'a: 1'"),
    'JSON': (b'{"weight": 1}', 'text .*weight'),
    'text beyond ASCII': ('\u00e9t\u00e9'.encode() * 600, r'text\b'),
    'blank': (b'\n\n', r'blank\b'),
    'HTML': (b'<html>not found</html>', 'HTML'),
    'XML': (b'<?xml version="1.0"?><Error>AccessDenied</Error>', 'XML'),
    'Git LFS': (b'version https://git-lfs.github.com/spec/v1\noid sha256:1\n', 'Git LFS'),
    'zeros': (bytes(5000), 'zeros'),
    'cut': (WHOLE[:2000], r'cut\b'),
    'cut at its end': (WHOLE[:-10], r'cut\b'),
    'zeros at its end': (WHOLE[:2000] + bytes(len(WHOLE) - 2000), r'cut\b'),
    'old format, cut': (written_by(torch.save, WEIGHTS, _use_new_zipfile_serialization=False)[:-100], ''),
    'noise': (bytes(range(255, 0, -1)) * 9, ''),
    'tar': (archive_of('model.pth'), r'tar\b'),
    'gzip': (gzip.compress(WHOLE), 'gzip'),
    'zip': (zip_of(readme=b'hello'), r'zip\b.*readme'),
    'npz': (zip_of(**{'weight.npy': b''}), r'(?=.*\bNumPy\b).*\barchive\b'),
    'npy': (b'\x93NUMPY\x01\x00', r'(?=.*\bNumPy\b).*\barray\b'),
    'HDF5': (b'\x89HDF\r\n\x1a\n' + bytes(50), 'HDF5'),
    'ONNX': (b'\x08\x08\x12\x07pytorch\x1a\x052.11', 'ONNX'),
    'PNG': (b'\x89PNG\r\n\x1a\n' + bytes(50), 'PNG'),
    'another protocol': (written_by(torch.save, WEIGHTS, pickle_protocol=4), 'protocol 4'),
    'a pickle': (pickle.dumps({'model': 1}, 4), 'protocol 4'),
}


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
@pytest.mark.parametrize('load', [load_checkpoint, load_trusted_checkpoint])
@pytest.mark.parametrize('name', ['broken.pth', 'broken.safetensors'])
@pytest.mark.parametrize('content, kind', NOT_CHECKPOINTS.values(), ids=NOT_CHECKPOINTS)
def test_other_files_are_named(
    tmp_path: Path, content: bytes, kind: str, name: str, load: Callable[[Path], Any]
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    if load is load_trusted_checkpoint and 'protocol' in kind:
        return  # Python's own pickle reads each
    with pytest.raises(UnsafeCheckpointError, match=rf'{name}\b.*checkpoint.*{kind}') as error:
        load(path)
    assert '\n' not in str(error.value) and len(str(error.value)) < 300
    assert (kind_of(str(path)) is None) == (kind == '')


@pytest.mark.filterwarnings('ignore:.*TorchScript')
def test_a_torchscript_program_is_named(tmp_path: Path) -> None:
    path = tmp_path / 'program.pth'
    torch.jit.save(torch.jit.trace(torch.nn.Linear(1, 1), torch.ones(1, 1)), path)
    with pytest.raises(UnsafeCheckpointError, match=r'program\.pth\b.*TorchScript'):
        load_checkpoint(path)


@pytest.mark.parametrize('load', [load_checkpoint, load_trusted_checkpoint])
def test_the_content_of_a_file_counts_and_not_its_name(tmp_path: Path, load: Callable[[Path], Any]) -> None:
    save_file(WEIGHTS, tmp_path / 'safetensors.pth')
    torch.save(WEIGHTS, tmp_path / 'torch.safetensors')
    for name in ('safetensors.pth', 'torch.safetensors'):
        assert torch.equal(load(tmp_path / name)['weight'], WEIGHTS['weight'])


def test_missing_names_of_a_trusted_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / 'old.pth'
    torch.save({'model': Malicious(tmp_path)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b'mkdir', b'mkdin'))
    with pytest.raises(UnsafeCheckpointError, match=r"old\.pth\b.*'mkdin'"):
        load_trusted_checkpoint(path)


def test_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=rf'{tmp_path}\b.*folder'):
        load_checkpoint(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='nowhere.pth'):
        load_checkpoint(tmp_path / 'nowhere.pth')
