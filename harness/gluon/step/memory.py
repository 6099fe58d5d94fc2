"""The memory of MXNet's arrays on the CPU, read and written by NumPy; and numbers as MXNet's operators read them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import mxnet as mx
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_MOST_DECIMALS = 19  # that MXNet's reader of numbers looks at

# any function of C that does nothing; the engine's threads need not wait for Python to call it
_NOTHING = ctypes.cast(ctypes.pythonapi.Py_IsInitialized, ctypes.c_void_p)


def tell_written(arrays: Sequence[Any]) -> None:
    """Tell MXNet that NumPy has written to the memory of arrays on `cpu(0)`.

    The engine runs a function that does nothing and is said to write them. An array then has a new version, as after a
    write by MXNet: by it an operator that keeps a copy of its weights (oneDNN's RNN) knows that the copy is old.
    """
    cpu, handles = (ctypes.c_int * 2)(1, 0), (ctypes.c_void_p * len(arrays))(*(array.handle for array in arrays))
    push = mx.base._LIB.MXEnginePushSyncND
    mx.base.check_call(push(_NOTHING, None, None, cpu, None, 0, handles, len(arrays), None, 0, None))


def memory_of(array: Any) -> Floats:
    """The memory of an array on `cpu(0)`, flat; oneDNN has to give up a layout of its own for it.

    Who writes there has waited for all pending work, and tells what was written; no other thread may use the array.
    """
    address = ctypes.c_void_p()
    mx.base.check_call(mx.base._LIB.MXNDArrayGetData(array.handle, ctypes.byref(address)))
    return _numbers_at(address.value or 0, array.size)


@lru_cache(maxsize=1 << 12)
def _numbers_at(address: int, count: int) -> Floats:
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address))


@lru_cache(maxsize=1 << 6)
def as_operators_read(value: float) -> np.float32:
    """A number as MXNet's operators read it: from text, and below 1e-4 every third one comes out one unit off.

    Their reader (`dmlc::stof`) rounds to float32 before it applies the exponent. 1 / samples is so small from 10,000
    samples on, and so are learning rates. To ask an operator would wake the engine's threads in every update, hence the
    same arithmetic here. Operators on several weights read their lists of rates and decays otherwise, and rightly.
    """
    if not np.isfinite(value):
        return np.float32(value)
    mantissa, _, exponent = repr(abs(float(value))).partition("e")
    whole, _, decimals = mantissa.partition(".")
    decimals = decimals[:_MOST_DECIMALS]
    number = np.float32(float(whole)) + np.float32(float(decimals or 0) / float(10 ** len(decimals)))
    power = abs(int(exponent or 0))
    scale = np.float32(1)
    for step in [1e8] * (power // 8) + [10.0] * (power % 8):
        scale *= np.float32(step)
    number = number / scale if exponent.startswith("-") else number * scale
    return np.float32(-number if np.signbit(value) else number)
