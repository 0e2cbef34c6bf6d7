"""NumPy's numbers, strings, times and arrays of them in a checkpoint, rebuilt as data.

A pickle rebuilds an array by calls of NumPy's functions, which trust their arguments: with a type of the wrong size, or
of objects, they read memory outside the array. The functions here replace them while a checkpoint loads. They accept
only what NumPy writes for plain types.
"""

import pickle
import re
from typing import Any, cast

import numpy as np
from mmengine.logging import HistoryBuffer

# NumPy's codes of booleans, integers, floating-point and complex numbers, bytes, text, dates and durations.
PLAIN = re.compile(r'[biufcSUmM]\d+')


class PlainDtype:
    """Type of plain data, in place of ``numpy.dtype``.

    Args:
        code: NumPy's code of the type, such as ``'f8'``.
        align: ignored.
        copy: ignored.

    Raises:
        pickle.UnpicklingError: if ``code`` is not a plain type (objects or a structure, say).
    """

    def __init__(self, code: Any, align: bool = False, copy: bool = False) -> None:
        if not isinstance(code, str) or not PLAIN.fullmatch(code):
            raise pickle.UnpicklingError(f'GLOBAL numpy.dtype({str(code)[:20]!r})')
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Set the byte order and the unit of dates; the rest follows from the code."""
        byte_order, times = state[1], state[8:]
        if times:
            unit, count = times[0][1][:2]
            self.dtype = np.dtype(f'{self.dtype.kind}8[{int(count)}{unit.decode()}]')
        if byte_order in ('<', '>'):
            self.dtype = self.dtype.newbyteorder(byte_order)


class PlainArray(np.ndarray):
    """Array of plain data, in place of ``numpy.ndarray`` until ``to_numpy`` converts it."""

    def __new__(cls) -> 'PlainArray':
        """Make an empty array; ``__setstate__`` fills it."""
        return np.empty(0).view(cls)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        version, shape, plain, by_columns, data = state
        super().__setstate__((version, shape, plain.dtype, by_columns, data))


def new_array(*_: Any) -> PlainArray:
    """Make an array to be filled by its ``__setstate__``, in place of NumPy's ``_reconstruct``."""
    return PlainArray()


def new_scalar(plain: PlainDtype, data: bytes) -> np.generic:
    """Make a number, a string or a time from its bytes, in place of NumPy's ``scalar``."""
    return cast(np.generic, np.ndarray((), plain.dtype, data)[()])


def no_bytes() -> bytes:
    """Return the bytes of an empty array, in place of ``bytes``."""
    return b''


def numpy_globals() -> list[tuple[Any, str]]:
    """List the stand-ins and the names they replace, for ``torch.serialization.safe_globals``.

    NumPy 1 and 2 store the same functions under different module names; files of both can be loaded.
    """
    modules = ('numpy.core.multiarray', 'numpy._core.multiarray')
    return [
        (PlainArray, 'numpy.ndarray'),
        (PlainDtype, 'numpy.dtype'),
        (no_bytes, 'builtins.bytes'),
        *((new_array, f'{module}._reconstruct') for module in modules),
        *((new_scalar, f'{module}.scalar') for module in modules),
    ]


def to_numpy(value: Any) -> Any:
    """Convert every ``PlainArray`` in dicts, lists, tuples and the runner's records to ``numpy.ndarray``."""
    if isinstance(value, PlainArray):
        return value.view(np.ndarray)
    if type(value) is tuple:
        return tuple(map(to_numpy, value))
    if isinstance(value, list):
        value[:] = map(to_numpy, value)
    elif isinstance(value, dict):
        value.update({key: to_numpy(item) for key, item in value.items()})
    elif isinstance(value, HistoryBuffer):
        to_numpy(vars(value))
    return value
