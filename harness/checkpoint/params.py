"""Gluon's `.params` files as NumPy arrays. Every length is compared with the file's before memory is taken for it.

MXNet's own reader is native code that believes what a file says of itself: a changed byte in a count or a shape makes
it take memory without bounds, or end the process. Read here: what `mx.nd.save` has written since 2016, if dense.

A file is: 0x112 and 0 (uint64 each); how many arrays (uint64); each array; how many names (uint64); each name as its
length (uint64) and bytes. An array is a magic number (uint32), its storage type (int32, from 2017 on), its shape
(number of dimensions, then each), its device (two int32), its dtype (int32) and its numbers, all little-endian.
"""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from harness.errors import CheckpointError
from harness.folder import RecordError, seen
from harness.folder.files import open_plain

_MAGIC = 0x112
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA  # without storage types; with; with shapes of NumPy's meaning
_DTYPES = {0: "<f4", 1: "<f8", 2: "<f2", 3: "u1", 4: "<i4", 5: "i1", 6: "<i8", 7: "?"}
_STORAGE = {1: "row_sparse", 2: "csr"}
_MOST_ARRAYS = 200_000
_MOST_DIMENSIONS = 32
_LONGEST_NAME = 4096
_DEVICES = (1, 2, 3, 5)  # CPU, GPU, pinned and shared memory


def read_params(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a `.params` file by name, names as the file has them.

    Raises:
        CheckpointError: if it cannot be read, is damaged, or has arrays that are sparse or without names.
    """
    try:
        with open_plain(path) as file:
            try:
                return _Reader(file).arrays()
            except OSError as error:
                raise RecordError(error.strerror or "it cannot be read") from None
    except RecordError as error:
        raise CheckpointError(f"{path}: no Gluon .params file can be read there ({error})") from None


class _Reader:
    """Reads forward through a file whose size is known."""

    def __init__(self, file: BinaryIO) -> None:
        self._file: Any = file
        self._left = os.fstat(file.fileno()).st_size

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        if self._left < 24 or self._numbers("<QQ") != (_MAGIC, 0):
            raise RecordError("it does not begin as one")
        arrays = [self._array(index) for index in range(self._count("arrays"))]
        names = [self._name(index) for index in range(self._count("names"))]
        if arrays and not names:
            raise RecordError("it holds arrays without names; write it with net.save_parameters")
        if len(names) != len(arrays):
            raise RecordError(f"it has {len(arrays)} arrays and {len(names)} names")
        if self._left:
            raise RecordError(f"{self._left:,} bytes follow its last name")
        twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
        if twice is not None:
            raise RecordError(f"the name {seen(twice, 60)!r} appears twice")
        return dict(zip(names, arrays, strict=True))

    def _array(self, index: int) -> npt.NDArray[Any]:
        what = f"array {index}"
        (magic,) = self._numbers("<I")
        if magic in (_V2, _V3):
            (storage,) = self._numbers("<i")
            if storage:
                raise RecordError(f"{what} is {_STORAGE.get(storage, f'of storage type {storage}')}, not dense")
        shape = self._shape(what, magic)
        device, number, kind = self._numbers("<iii")
        if device not in _DEVICES or number < 0:
            raise RecordError(f"{what} is said to lie on device ({device}, {number}), of which there is none")
        if kind not in _DTYPES:
            raise RecordError(f"{what} has the dtype number {kind}; known: 0 to {max(_DTYPES)}")
        return self._values(what, shape, np.dtype(_DTYPES[kind]))

    def _shape(self, what: str, magic: int) -> tuple[int, ...]:
        """A shape; before 2016 the number of dimensions stood where the magic number is, and each took 4 bytes."""
        is_old = magic not in (_V1, _V2, _V3)
        (dimensions,) = (magic,) if is_old else self._numbers("<i")
        if not 0 <= dimensions <= _MOST_DIMENSIONS:
            raise RecordError(f"{what} is said to have {dimensions:,} dimensions; at most {_MOST_DIMENSIONS} are read")
        if dimensions == 0 and magic != _V3:
            raise RecordError(f"{what} is empty")
        shape = self._numbers(f"<{dimensions}{'I' if is_old else 'q'}")
        if any(length < 0 for length in shape):
            raise RecordError(f"{what} has the shape {shape}")
        return shape

    def _values(self, what: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        size = math.prod(shape)
        if size * dtype.itemsize > self._left:
            raise RecordError(f"{what} of shape {shape} needs {size * dtype.itemsize:,} bytes, {self._left:,} are left")
        if size == 0 and max(shape) > self._left:
            raise RecordError(f"{what} has the shape {shape}")
        values = np.empty(size, dtype)
        if self._file.readinto(values.view(np.uint8).data) != values.nbytes:
            raise RecordError(f"it ends within {what}")
        self._left -= values.nbytes
        if dtype.kind == "b":
            values = values.view(np.uint8) != 0
        return values.reshape(shape)

    def _name(self, index: int) -> str:
        (length,) = self._numbers("<Q")
        if not 0 < length <= min(_LONGEST_NAME, self._left):
            raise RecordError(f"name {index} is said to have {length:,} bytes")
        try:
            return self._bytes(length).decode("utf-8")
        except UnicodeDecodeError:
            raise RecordError(f"name {index} is not UTF-8 text") from None

    def _count(self, what: str) -> int:
        (count,) = self._numbers("<Q")
        if count > min(_MOST_ARRAYS, self._left // 8):
            raise RecordError(f"it is said to have {count:,} {what}")
        return int(count)

    def _numbers(self, form: str) -> tuple[int, ...]:
        return struct.unpack(form, self._bytes(struct.calcsize(form)))

    def _bytes(self, count: int) -> bytes:
        data: bytes = self._file.read(count) if count <= self._left else b""
        if len(data) != count:
            raise RecordError("it ends too early")
        self._left -= count
        return data
