"""Puts back what code of the user's own changes in this process, and bits could depend on."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from harness.data.generators import kept_generators

_FENV_BYTES = 64  # of glibc's fenv_t on x86-64, which has 32


@contextmanager
def kept_process() -> Iterator[None]:
    """Put back generators, floating-point modes, NumPy's error handling and the working directory after the block.

    Python's and NumPy's global generators; MXNet's cannot be read, and is seeded before anything in a run draws from
    it. Libraries that were compiled for speed switch the thread that loads them to flushing small numbers to 0.
    """
    modes, folder = ctypes.create_string_buffer(_FENV_BYTES), os.open(".", os.O_PATH)
    _math().fegetenv(modes)
    try:
        with kept_generators(), np.errstate():
            yield
    finally:
        _math().fesetenv(modes)
        os.fchdir(folder)
        os.close(folder)


@functools.cache
def _math() -> Any:
    return ctypes.CDLL("libm.so.6")
