"""NumPy's numbers, strings, times and arrays of them in a checkpoint, rebuilt as data.

A pickle rebuilds an array by calls of NumPy's own functions, which believe what they are told: with a type of the wrong
size, or of objects, they read memory that is no array. The functions here take their place while a checkpoint loads,
and accept what NumPy writes for plain types and nothing else.
"""

import pickle
import re
from typing import Any, cast

import numpy as np
from mmengine.logging import HistoryBuffer

# Booleans, integers, floating-point and complex numbers, bytes, text, dates and durations: as NumPy spells them.
PLAIN = re.compile(r'[biufcSUmM]\d+')


class PlainDtype:
    """A type of plain data, in place of ``numpy.dtype``.

    Args:
        code: as NumPy writes it, ``'f8'`` say.
        align: without a meaning for plain data.
        copy: without a meaning here.

    Raises:
        pickle.UnpicklingError: if it is a type of objects, a structure, or none.
    """

    def __init__(self, code: Any, align: bool = False, copy: bool = False) -> None:
        if not isinstance(code, str) or not PLAIN.fullmatch(code):
            raise pickle.UnpicklingError(f'GLOBAL numpy.dtype({str(code)[:20]!r})')
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take over the order of the bytes and the unit of dates; the rest follows from the code."""
        byte_order, times = state[1], state[8:]
        if times:
            unit, count = times[0][1][:2]
            self.dtype = np.dtype(f'{self.dtype.kind}8[{int(count)}{unit.decode()}]')
        if byte_order in ('<', '>'):
            self.dtype = self.dtype.newbyteorder(byte_order)


class PlainArray(np.ndarray):
    """An array of plain data, in place of ``numpy.ndarray``, until ``to_numpy`` makes it one."""

    def __new__(cls) -> 'PlainArray':
        """Make an empty array, whose state comes later."""
        return np.empty(0).view(cls)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        version, shape, plain, by_columns, data = state
        super().__setstate__((version, shape, plain.dtype, by_columns, data))


def new_array(*_: Any) -> PlainArray:
    """Make an array that takes over its state later, in place of NumPy's ``_reconstruct``."""
    return PlainArray()


def new_scalar(plain: PlainDtype, data: bytes) -> np.generic:
    """Make a number, a string or a time of its bytes, in place of NumPy's ``scalar``."""
    return cast(np.generic, np.ndarray((), plain.dtype, data)[()])


def no_bytes() -> bytes:
    """Return what an empty array holds, in place of ``bytes``."""
    return b''


def numpy_globals() -> list[tuple[Any, str]]:
    """List the stand-ins and what they stand for, as ``torch.serialization.safe_globals`` takes it.

    NumPy 1 and 2 write the same functions under different module names, and each reads the other's files.
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
    """Make every ``PlainArray`` within dicts, lists, tuples and the runner's records an array of NumPy's own type."""
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
