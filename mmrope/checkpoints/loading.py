"""Loading checkpoints as data: tensors, numbers and the runner's own records, never code.

A ``.pth`` file is a pickle, and a pickle can call any function while it loads. PyTorch's weights-only load accepts
tensors and plain containers. This module and ``numpy_data`` add the other types that MMEngine's runner writes (the
history of logged values); everything else is refused. A ``.safetensors`` file can hold nothing but tensors. The content
of a file decides which of the two it is, not its name.
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
    """A file that holds more than data, or is no checkpoint."""


def history_statistic(owner: type, name: str) -> Callable[..., Any]:
    """Return ``owner.name`` if it is one of the four statistics of ``HistoryBuffer``.

    A pickled ``HistoryBuffer`` stores its statistics as calls of ``getattr``. This function replaces ``getattr`` while
    a checkpoint loads, since the real one would give the checkpoint access to any attribute.

    Raises:
        pickle.UnpicklingError: for any other ``owner`` or ``name``.
    """
    if owner is HistoryBuffer and name in STATISTICS:
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f'GLOBAL builtins.getattr was asked for {name!r} of {owner!r}')


def runner_globals() -> list[Any]:
    """List the types that a checkpoint of MMEngine's runner may use, for ``torch.serialization.safe_globals``."""
    return [HistoryBuffer, (history_statistic, 'builtins.getattr'), *numpy_globals()]


def load_checkpoint(filename: str | os.PathLike[str], map_location: Any = None) -> Any:
    """Load a checkpoint, weights only.

    Args:
        filename: a path, a URL or another name that ``sources.fetch`` accepts.
        map_location: as in ``torch.load``.

    Returns:
        The content of the file, without ``meta['config']``.

    Raises:
        FileNotFoundError: if there is no such file.
        SourceError: if it cannot be downloaded.
        UnsafeCheckpointError: if the file asks for anything but tensors, plain containers and ``runner_globals()``, or
            is not a checkpoint.
    """
    path = fetch(filename)
    if is_safetensors(path):
        return _load_safetensors(path, map_location)
    with torch.serialization.safe_globals(runner_globals()):
        loaded = _unpickle(path, map_location, weights_only=True)
    return _without_source(to_numpy(loaded))


def load_trusted_checkpoint(filename: str | os.PathLike[str], map_location: Any = None) -> Any:
    """Load a checkpoint with Python's pickle, which runs any code in the file.

    Use it only for a file of your own that ``load_checkpoint`` refuses.

    Args:
        filename: as for ``load_checkpoint``.
        map_location: as in ``torch.load``.

    Returns:
        The content of the file, without ``meta['config']``.

    Raises:
        FileNotFoundError: if there is no such file.
        SourceError: if it cannot be downloaded.
        UnsafeCheckpointError: if the file is not a checkpoint, or needs a module that is not installed.
    """
    path = fetch(filename)
    if is_safetensors(path):
        return _load_safetensors(path, map_location)
    with _full_unpickling():
        return _without_source(_unpickle(path, map_location, weights_only=False))


def refuse_code_in_checkpoints(trusted: str | None = None) -> None:
    """Force weights-only loading of checkpoints in this process and its children.

    PyTorch's switch applies to every ``torch.load``, even if a library asks for full unpickling (as onedl-mmengine does
    when a safe load fails, and PyTorch for a URL). MMEngine's runner also loads every name that ``sources.fetch``
    accepts through this module, with its list of safe types and its errors.

    Args:
        trusted: the one checkpoint that may run code, by the name it will be loaded under.
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
    """Suspend PyTorch's switch for weights-only loading."""
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
        state._metadata = OrderedDict({'': noted})  # where PyTorch keeps the notes of modules
        return state
    except (SafetensorError, ValueError) as error:
        raise _no_checkpoint(path) from error


def _unpickle(path: str, map_location: Any, weights_only: bool) -> Any:
    """Call ``torch.load``; turn its errors about the file into one sentence, and let those about the device pass."""
    try:
        return torch.load(path, map_location=map_location, weights_only=weights_only)
    except Exception as error:  # unpickling text can end in any of Python's errors
        refused = _refusal(error, weights_only)
        if refused is not None:
            raise UnsafeCheckpointError(f'{path} was not loaded: it asks for {refused}') from error
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise  # the file could not be read at all
        of_file = 'PytorchStreamReader|unexpected EOF|enforce fail|weights_only=True'
        if isinstance(error, (RuntimeError, MemoryError)) and not re.search(of_file, str(error)):
            raise  # the device, not the file
        raise _no_checkpoint(path) from error


def _refusal(error: Exception, weights_only: bool) -> str | None:
    """Describe what the file asks for and does not get; ``None`` if the error is about something else."""
    if not weights_only:
        missing = isinstance(error, (ImportError, AttributeError))
        return f'something that is not installed: {error}' if missing else None
    asked = isinstance(error, pickle.UnpicklingError) and re.search(r'GLOBAL (\S+)', str(error))
    if not asked:
        return None
    return (
        f'{asked[1]}, which does not belong in a checkpoint and could run code '
        '(for a file of your own, mmrope convert --trust-checkpoint extracts the weights)'
    )


def _no_checkpoint(path: str) -> UnsafeCheckpointError:
    kind = kind_of(path)
    what = '' if kind is None else f' (it is {kind})'
    return UnsafeCheckpointError(f'{path} is not a checkpoint, or is damaged: no weights could be read{what}')


def _without_source(checkpoint: Any) -> Any:
    """Drop ``meta['config']``, which a resuming runner would run as Python; MMEngine stores its own under ``cfg``."""
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    if isinstance(meta, dict):
        meta.pop('config', None)
    return checkpoint
