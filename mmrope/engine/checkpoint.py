"""Loading checkpoints as data: tensors, numbers and the runner's own records, never code.

A ``.pth`` file is a pickle, and a pickle may ask for any function to be called while it loads. PyTorch's weights-only
load takes tensors and plain containers; what else MMEngine's runner writes (the history of the logged values) is named
here, and anything beyond that is refused. A ``.safetensors`` file can hold nothing but tensors.
"""

import errno
import os
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from safetensors import SafetensorError
from safetensors.torch import load_file

from .sources import CheckpointError, fetch

STATISTICS = ('min', 'max', 'current', 'mean')
NUMBERS = (
    np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64,
    np.float16, np.float32, np.float64,
)  # fmt: skip


class UnsafeCheckpointError(CheckpointError):
    """A file that holds more than data, or no data at all."""


def history_statistic(owner: type, name: str) -> Callable[..., Any]:
    """Return ``owner.name``, where these name one of the four statistics of ``HistoryBuffer``.

    A pickled ``HistoryBuffer`` carries its statistics as calls of ``getattr``. This function takes the place of
    ``getattr`` while a checkpoint loads: the real one would give a checkpoint the attributes of all that it can reach.

    Raises:
        pickle.UnpicklingError: If anything else is asked for.
    """
    if owner is HistoryBuffer and name in STATISTICS:
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f'GLOBAL builtins.getattr was asked for {name!r} of {owner!r}')


def runner_globals() -> list[Any]:
    """List what a checkpoint of MMEngine's runner may name, as ``torch.serialization.add_safe_globals`` takes it.

    NumPy 1 and 2 write the same two functions under different module names, and each reads the other's files.
    """
    rebuild_array, rebuild_scalar = np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]
    modules = ('numpy.core.multiarray', 'numpy._core.multiarray')
    return [
        HistoryBuffer,
        (history_statistic, 'builtins.getattr'),
        np.ndarray,
        np.dtype,
        *(type(np.dtype(number)) for number in NUMBERS),
        *((rebuild_array, f'{module}._reconstruct') for module in modules),
        *((rebuild_scalar, f'{module}.scalar') for module in modules),
    ]


def load_checkpoint(filename: str | os.PathLike[str], map_location: Any = None) -> Any:
    """Load a checkpoint, weights only.

    Args:
        filename: A path, a URL or another name that ``sources.fetch`` knows.
        map_location: As in ``torch.load``.

    Returns:
        What the file holds, without ``meta['config']``.

    Raises:
        FileNotFoundError: If there is no such file.
        SourceError: If it cannot be downloaded.
        UnsafeCheckpointError: If the file asks for anything but tensors, plain containers and ``runner_globals()``, or
            is no checkpoint at all.
    """
    path = fetch(filename)
    if path.endswith('.safetensors'):
        return _load_safetensors(path, map_location)
    with torch.serialization.safe_globals(runner_globals()):
        return _without_source(_refuse_code(torch.load, path, map_location=map_location, weights_only=True))


def load_trusted_checkpoint(filename: str | os.PathLike[str], map_location: Any = None) -> Any:
    """Load a checkpoint with Python's own pickle, which runs any code that the file holds.

    Only for an old file of one's own that ``load_checkpoint`` refuses.

    Raises:
        FileNotFoundError: If there is no such file.
        SourceError: If it cannot be downloaded.
    """
    path = fetch(filename)
    if path.endswith('.safetensors'):
        return _load_safetensors(path, map_location)
    with _full_unpickling():
        return _without_source(torch.load(path, map_location=map_location, weights_only=False))


def refuse_code_in_checkpoints(trusted: str | None = None) -> None:
    """Make every checkpoint that this process and its children load from now on a weights-only load.

    PyTorch's own switch forces it on every ``torch.load``, also where a library asks for a full unpickle (as
    onedl-mmengine does when a safe load fails, and PyTorch for a URL). Besides, what ``sources.fetch`` knows goes
    through this module, for its list of safe types and its errors, also when MMEngine's runner loads it.

    Args:
        trusted: The one checkpoint that may run code, by the name that it will be loaded by.
    """
    os.environ.pop('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', None)
    os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] = '1'

    def load_from_source(filename: str, map_location: Any = None) -> Any:
        load = load_trusted_checkpoint if filename == trusted else load_checkpoint
        return load(filename, map_location)

    schemes = ['', 'http://', 'https://', 'hf-hub:', 'timm:']
    CheckpointLoader.register_scheme(schemes, loader=load_from_source, force=True)


@contextmanager
def _full_unpickling() -> Iterator[None]:
    """Suspend PyTorch's switch."""
    switch = os.environ.pop('TORCH_FORCE_WEIGHTS_ONLY_LOAD', None)
    try:
        yield
    finally:
        if switch is not None:
            os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] = switch


def _load_safetensors(path: str, map_location: Any) -> dict[str, torch.Tensor]:
    device = str(map_location) if isinstance(map_location, (str, torch.device)) else 'cpu'
    try:
        return load_file(path, device)
    except SafetensorError as error:
        raise UnsafeCheckpointError(f'{path} is not a checkpoint, or is damaged: no weights could be read') from error


def _refuse_code(load: Callable[..., Any], source: str, **kwargs: Any) -> Any:
    try:
        return load(source, **kwargs)
    except (pickle.UnpicklingError, EOFError, RuntimeError, OSError) as error:
        asked = re.search(r'GLOBAL (\S+)', str(error))
        if asked is not None:
            raise UnsafeCheckpointError(
                f'{source} was not loaded: it asks for {asked[1]}, which is no part of a checkpoint and could run code'
            ) from error
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise  # what keeps the file from being read, not what it holds
        if isinstance(error, RuntimeError) and not re.search('PytorchStreamReader|unexpected EOF', str(error)):
            raise  # the device, not the file
        raise UnsafeCheckpointError(f'{source} is not a checkpoint, or is damaged: no weights could be read') from error


def _without_source(checkpoint: Any) -> Any:
    """Drop ``meta['config']``, which a runner that resumes would run as Python; it writes its own under another key."""
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    if isinstance(meta, dict):
        meta.pop('config', None)
    return checkpoint
