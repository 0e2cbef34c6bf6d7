"""Loading checkpoints as data: tensors, numbers and the runner's own records, never code.

A ``.pth`` file is a pickle, and a pickle may ask for any function to be called while it loads. PyTorch's weights-only
load takes tensors and plain containers; what else MMEngine's runner writes (the history of the logged values) is named
here and in ``numpy_data``, and anything beyond that is refused. A ``.safetensors`` file can hold nothing but tensors.
Which of the two a file is, its content says and not its name.
"""

import errno
import json
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from safetensors import SafetensorError, safe_open

from .file_kinds import is_safetensors, kind_of
from .numpy_data import numpy_globals, to_numpy
from .sources import CheckpointError, fetch

STATISTICS = ('min', 'max', 'current', 'mean')


class UnsafeCheckpointError(CheckpointError):
    """A file that holds more than data, or no data at all."""


def history_statistic(owner: type, name: str) -> Callable[..., Any]:
    """Return ``owner.name``, where these name one of the four statistics of ``HistoryBuffer``.

    A pickled ``HistoryBuffer`` carries its statistics as calls of ``getattr``. This function takes the place of
    ``getattr`` while a checkpoint loads: the real one would give a checkpoint the attributes of all that it can reach.

    Raises:
        pickle.UnpicklingError: if anything else is asked for.
    """
    if owner is HistoryBuffer and name in STATISTICS:
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f'GLOBAL builtins.getattr was asked for {name!r} of {owner!r}')


def runner_globals() -> list[Any]:
    """List what a checkpoint of MMEngine's runner may name, as ``torch.serialization.safe_globals`` takes it."""
    return [HistoryBuffer, (history_statistic, 'builtins.getattr'), *numpy_globals()]


def load_checkpoint(filename: str | os.PathLike[str], map_location: Any = None) -> Any:
    """Load a checkpoint, weights only.

    Args:
        filename: a path, a URL or another name that ``sources.fetch`` knows.
        map_location: as in ``torch.load``.

    Returns:
        What the file holds, without ``meta['config']``.

    Raises:
        FileNotFoundError: if there is no such file.
        SourceError: if it cannot be downloaded.
        UnsafeCheckpointError: if the file asks for anything but tensors, plain containers and ``runner_globals()``, or
            is no checkpoint at all.
    """
    path = fetch(filename)
    if is_safetensors(path):
        return _load_safetensors(path, map_location)
    with torch.serialization.safe_globals(runner_globals()):
        loaded = _unpickle(path, map_location, weights_only=True)
    return _without_source(to_numpy(loaded))


def load_trusted_checkpoint(filename: str | os.PathLike[str], map_location: Any = None) -> Any:
    """Load a checkpoint with Python's own pickle, which runs any code that the file holds.

    Only for an old file that you wrote yourself and that ``load_checkpoint`` refuses.

    Raises:
        FileNotFoundError: if there is no such file.
        SourceError: if it cannot be downloaded.
        UnsafeCheckpointError: if it is no checkpoint, or needs a module that is not installed.
    """
    path = fetch(filename)
    if is_safetensors(path):
        return _load_safetensors(path, map_location)
    with _full_unpickling():
        return _without_source(_unpickle(path, map_location, weights_only=False))


def refuse_code_in_checkpoints(trusted: str | None = None) -> None:
    """Make every checkpoint that this process and its children load from now on a weights-only load.

    PyTorch's own switch forces it on every ``torch.load``, also where a library asks for a full unpickle (as
    onedl-mmengine does when a safe load fails, and PyTorch for a URL). Besides, what ``sources.fetch`` knows goes
    through this module, for its list of safe types and its errors, also when MMEngine's runner loads it.

    Args:
        trusted: the one checkpoint that may run code, by the name that it will be loaded by.
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
        with safe_open(path, 'pt', device) as file:
            state: Any = OrderedDict((key, file.get_tensor(key)) for key in file.keys())  # noqa: SIM118
            noted = json.loads((file.metadata() or {}).get('mmrope', '{}'))
        state._metadata = OrderedDict({'': noted})  # as PyTorch keeps what modules note beside their weights
        return state
    except (SafetensorError, ValueError) as error:
        raise _no_checkpoint(path) from error


def _unpickle(path: str, map_location: Any, weights_only: bool) -> Any:
    """Call ``torch.load``, whose errors about the file become one sentence; those about the device pass through."""
    try:
        return torch.load(path, map_location=map_location, weights_only=weights_only)
    except Exception as error:  # text that is taken for a pickle ends in any of Python's errors
        refused = _refusal(error, weights_only)
        if refused is not None:
            raise UnsafeCheckpointError(f'{path} was not loaded: it asks for {refused}') from error
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise  # what keeps the file from being read, not what it holds
        of_file = 'PytorchStreamReader|unexpected EOF|enforce fail|weights_only=True'
        if isinstance(error, (RuntimeError, MemoryError)) and not re.search(of_file, str(error)):
            raise  # the device, not the file
        raise _no_checkpoint(path) from error


def _refusal(error: Exception, weights_only: bool) -> str | None:
    """Say what a file asks for that it does not get, ``None`` if the error is about something else."""
    if not weights_only:
        missing = isinstance(error, (ImportError, AttributeError))
        return f'what is not there on this machine: {error}' if missing else None
    asked = isinstance(error, pickle.UnpicklingError) and re.search(r'GLOBAL (\S+)', str(error))
    if not asked:
        return None
    return (
        f'{asked[1]}, which is no part of a checkpoint and could run code '
        '(mmrope convert --trust-checkpoint takes the weights out of a file of your own)'
    )


def _no_checkpoint(path: str) -> UnsafeCheckpointError:
    kind = kind_of(path)
    what = '' if kind is None else f' (it is {kind})'
    return UnsafeCheckpointError(f'{path} is not a checkpoint, or is damaged: no weights could be read{what}')


def _without_source(checkpoint: Any) -> Any:
    """Drop ``meta['config']``, which a runner that resumes would run as Python; it writes its own under another key."""
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    if isinstance(meta, dict):
        meta.pop('config', None)
    return checkpoint
