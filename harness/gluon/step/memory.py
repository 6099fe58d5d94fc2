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
    """A number as MXNet's operators take it: as text, and below 1e-4 they read every third one unit off.

    1 / samples is so small from 10,000 samples on. Their reader is not to be had from Python, so it is asked through an
    operator: `0 - value * 1`. Rates and decays go another way, and are rounded rightly.
    """
    read = mx.nd.zeros((1,))
    mx.nd.sgd_update(read, mx.nd.ones((1,)), lr=1.0, wd=0.0, rescale_grad=value, out=read)
    return np.float32(-read.asnumpy()[0])
