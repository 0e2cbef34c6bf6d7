"""Loading checkpoints as data: tensors, numbers and the runner's own records, never code.

A ``.pth`` file is a pickle, and a pickle may ask for any function to be called while it loads. PyTorch's weights-only
load takes tensors and plain containers; what else MMEngine's runner writes (the history of the logged values) is named
here, and anything beyond that is refused.
"""

import os
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import load_from_http as download_and_load

STATISTICS = ('min', 'max', 'current', 'mean')
NUMBERS = (
    np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64,
    np.float16, np.float32, np.float64,
)  # fmt: skip


class UnsafeCheckpointError(ValueError):
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
    """Load a checkpoint file, weights only.

    Args:
        filename: A file of this machine; ``~`` is expanded.
        map_location: As in ``torch.load``.

    Returns:
        What the file holds, without ``meta['config']``.

    Raises:
        FileNotFoundError: If there is no such file.
        UnsafeCheckpointError: If the file asks for anything but tensors, plain containers and ``runner_globals()``, or
            is no checkpoint at all.
    """
    path = os.path.expanduser(filename)
    if not os.path.isfile(path):
        raise FileNotFoundError(f'the checkpoint {path} does not exist')
    with torch.serialization.safe_globals(runner_globals()):
        return _without_source(_refuse_code(torch.load, path, map_location=map_location, weights_only=True))


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Load a file for MMEngine's ``CheckpointLoader``, which passes the path and ``map_location``."""
    return load_checkpoint(filename, map_location)


def load_from_http(filename: str, map_location: Any = None) -> Any:
    """Load a URL for MMEngine's ``CheckpointLoader``: MMEngine downloads, and the result is held to the same rules."""
    with torch.serialization.safe_globals(runner_globals()):
        return _without_source(_refuse_code(download_and_load, filename, map_location=map_location))


def refuse_code_in_checkpoints() -> None:
    """Make every checkpoint that this process and its children load from now on a weights-only load.

    PyTorch's own switch forces it on every ``torch.load``, also where a library asks for a full unpickle (as
    onedl-mmengine does when a safe load fails, and PyTorch for a URL). Besides, local files and URLs go through this
    module, for its list of safe types and its errors.
    """
    os.environ.pop('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', None)
    os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] = '1'
    CheckpointLoader.register_scheme('', loader=load_from_local, force=True)
    CheckpointLoader.register_scheme(['http://', 'https://'], loader=load_from_http, force=True)


def _refuse_code(load: Callable[..., Any], source: str, **kwargs: Any) -> Any:
    try:
        return load(source, **kwargs)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        asked = re.search(r'GLOBAL (\S+)', str(error))
        if asked is not None:
            raise UnsafeCheckpointError(
                f'{source} was not loaded: it asks for {asked[1]}, which is no part of a checkpoint and could run code'
            ) from error
        if isinstance(error, RuntimeError) and 'PytorchStreamReader' not in str(error):
            raise  # the device, not the file
        raise UnsafeCheckpointError(f'{source} is not a checkpoint, or is damaged: no weights could be read') from error


def _without_source(checkpoint: Any) -> Any:
    """Drop ``meta['config']``, which a runner that resumes would run as Python; it writes its own under another key."""
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    if isinstance(meta, dict):
        meta.pop('config', None)
    return checkpoint
