"""RecordIO files, as MXNet's im2rec writes them: read by many threads at once, with or without an index.

A record is a magic number, a 32-bit word with the number of bytes (29 bits) and a flag (3 bits), the bytes, and zeros
up to a multiple of four. Bytes that hold the magic number at such a multiple are split there into several parts, and
the magic number between two parts is left out (dmlc-core, include/dmlc/recordio.h). A picture's record starts with a
header: the number of labels if there are several, a label, and two numbers, of which the first is its key (MXNet,
python/mxnet/recordio.py).

Files are read by `pread`, which keeps no position, so threads need no lock; MXNet's own reader has one position for
all (apache/mxnet#13945).
"""

from __future__ import annotations

import os
import struct
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from harness.data.arrays import Indices
from harness.errors import DataError

Labels = npt.NDArray[np.float32]

_MAGIC = 0xCED7230A
_MAGIC_BYTES = struct.pack("<I", _MAGIC)
_FRAME = struct.Struct("<II")
_HEADER = struct.Struct("<IfQQ")
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)  # flags: which part of a record this is
_LENGTH_BITS = 29
_MOST_LABELS = 1 << 20
_REINDEX = "write the index again (MXNet's tools/rec2idx.py), or remove it: records are found without one too"


class Record(NamedTuple):
    """A record with a header.

    Attributes:
        labels: of the sample, `(k,)`.
        key: the number that im2rec gave it.
        content: what was packed, such as a JPEG file.
    """

    labels: Labels
    key: int
    content: memoryview


@dataclass(frozen=True)
class _Table:
    """Where the records of a file are, in the order of their keys.

    Attributes:
        keys: `(n,)`, rising.
        starts: `(n,)`, the byte where each begins.
        sizes: `(n,)`, the bytes up to the next one in the file.
    """

    keys: Indices
    starts: Indices
    sizes: Indices


class RecordFile:
    """One .rec file.

    Row i is the record with the i-th key in rising order, wherever it lies: im2rec with several threads writes records
    in another order every time. Keys come from the index; without one, from the records' headers, or, if these have a
    key twice, they are the records' numbers in the file.

    Args:
        path: the .rec file.
        index: the .idx file; `None` is the one beside it, if there is one.

    Raises:
        DataError: naming the file, if it cannot be read, or the index does not fit it.
    """

    def __init__(self, path: Path, index: Path | None = None) -> None:
        """Open the file, and read where its records are; not the records."""
        self.path = path
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); give a .rec file that im2rec wrote") from error
        weakref.finalize(self, os.close, self._file)
        self._size = os.fstat(self._file).st_size
        if self._size == 0:
            raise DataError(f"{path}: is empty; a .rec file has at least one record")
        beside = path.with_suffix(".idx")
        if index is None and beside.is_file():
            index = beside
        self.index = index
        self._table = self._walked() if index is None else self._indexed(index)

    def __len__(self) -> int:
        """The number of records."""
        return len(self._table.keys)

    @property
    def keys(self) -> Indices:
        """The keys of all rows, `(n,)`, rising."""
        return self._table.keys

    def name_of(self, row: int) -> str:
        """What messages call a record."""
        return f"{self.path}, record {self._table.keys[row]} at byte {self._table.starts[row]}"

    def read(self, row: int) -> memoryview:
        """The bytes of a record.

        Raises:
            DataError: naming the record, if it is damaged.
        """
        start, size = int(self._table.starts[row]), int(self._table.sizes[row])
        try:
            held = memoryview(os.pread(self._file, size, start))
            return _joined(held)
        except OSError as error:
            raise DataError(f"{self.name_of(row)}: cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise DataError(f"{self.name_of(row)}: {error}; copy the file again, or pack it anew") from error

    def record(self, row: int) -> Record:
        """A record with its header taken apart.

        Raises:
            DataError: naming the record, if it is damaged, or has no header.
        """
        held = self.read(row)
        try:
            return _unpacked(held)
        except ValueError as error:
            raise DataError(f"{self.name_of(row)}: {error}; pack it with im2rec or `mx.recordio.pack`") from error

    def labels(self, row: int) -> Labels:
        """The labels of a record, `(k,)`, without reading what follows them.

        Raises:
            DataError: as `record`.
        """
        start = int(self._table.starts[row])
        try:
            held = os.pread(self._file, _FRAME.size + _HEADER.size, start)
        except OSError:
            held = b""  # reading the record says why
        if len(held) == _FRAME.size + _HEADER.size and _frame(held, 0, f"{self.name_of(row)}: ")[0] == _WHOLE:
            count, label, _, _ = _HEADER.unpack_from(held, _FRAME.size)
            if count == 0:
                return np.array([label], np.float32)
        return self.record(row).labels

    def _indexed(self, index: Path) -> _Table:
        """The table that an index holds: a line `key<TAB>start` for each record."""
        try:
            text = index.read_bytes()
        except OSError as error:
            raise DataError(f"{index}: cannot be read ({error.strerror}); {_REINDEX}") from error
        keys, starts = _numbers_in(text, index)
        if len(keys) == 0:
            raise DataError(f"{index}: has no record; {_REINDEX}")
        order = np.argsort(keys, kind="stable")
        keys, starts = keys[order], starts[order]
        twice = np.flatnonzero(np.diff(keys) == 0)
        if len(twice):
            raise DataError(f"{index}: key {keys[twice[0]]} is there twice; {_REINDEX}")
        wrong = np.flatnonzero((starts < 0) | (starts > self._size - _FRAME.size) | (starts % 4 != 0))
        if len(wrong):
            raise DataError(
                f"{index}: key {keys[wrong[0]]} is at byte {starts[wrong[0]]}, but {self.path} has {self._size} bytes "
                f"and records at multiples of 4; {_REINDEX}"
            )
        by_place = np.argsort(starts, kind="stable")
        sizes = np.empty_like(starts)
        sizes[by_place] = np.diff(np.append(starts[by_place], self._size))
        same = np.flatnonzero(sizes == 0)
        if len(same):
            raise DataError(f"{index}: two keys are at byte {starts[same[0]]}; {_REINDEX}")
        return _Table(keys, starts, sizes)

    def _walked(self) -> _Table:
        """The table that walking through the file gives; reads the frame and the header of each record alone."""
        starts, keys, place, inside = [], [], 0, False
        while place < self._size:
            held = os.pread(self._file, _FRAME.size + _HEADER.size, place)
            part, length = _frame(held, 0, f"{self.path}: at byte {place}: ")
            if inside != (part in (_MIDDLE, _LAST)) or place + _FRAME.size + length > self._size:
                raise DataError(
                    f"{self.path}: at byte {place}: the record is cut off, or a part of it is missing; copy the file "
                    "again, or pack it anew"
                )
            if not inside:
                starts.append(place)
                keys.append(_HEADER.unpack_from(held, _FRAME.size)[2] if len(held) == _FRAME.size + _HEADER.size else 0)
            inside = part in (_FIRST, _MIDDLE)
            place += _FRAME.size + length + (-length) % 4
        if inside:
            raise DataError(f"{self.path}: the last record is cut off; copy the file again, or pack it anew")
        places = np.array(starts, np.int64)
        sizes = np.diff(np.append(places, self._size))
        found = np.array(keys, np.uint64)
        if len(np.unique(found)) < len(found) or int(found.max()) > np.iinfo(np.int64).max:
            return _Table(np.arange(len(places)), places, sizes)
        order = np.argsort(found, kind="stable")
        return _Table(found[order].astype(np.int64), places[order], sizes[order])


class RecordFiles:
    """Several .rec files as one: the rows of the first, then those of the second.

    Args:
        files: at least one.
    """

    def __init__(self, files: Sequence[RecordFile]) -> None:
        """Count the rows."""
        self.files = tuple(files)
        self._ends = np.cumsum([len(one) for one in files])

    def __len__(self) -> int:
        """The number of records."""
        return int(self._ends[-1])

    def place(self, row: int) -> tuple[RecordFile, int]:
        """The file that a row is in, and its row there."""
        number = int(np.searchsorted(self._ends, row, side="right"))
        return self.files[number], row - (int(self._ends[number - 1]) if number else 0)


def _numbers_in(text: bytes, index: Path) -> tuple[Indices, Indices]:
    """Keys and starts; `numpy.fromstring` reads a million lines in a third of a second."""
    lines = text.count(b"\n") + (not text.endswith(b"\n") and len(text) > 0)
    if text.translate(None, b"0123456789\t\r\n -"):
        raise DataError(f"{index}: is not a table of keys and bytes; {_REINDEX}")
    numbers = np.fromstring(text.decode("ascii"), np.int64, sep=" ")
    if len(numbers) != 2 * lines:
        raise DataError(f"{index}: has {len(numbers)} numbers in {lines} lines, not two in each; {_REINDEX}")
    return numbers[::2], numbers[1::2]


def _frame(held: bytes | memoryview, place: int, where: str = "") -> tuple[int, int]:
    """Which part of a record begins here, and its number of bytes."""
    if len(held) - place < _FRAME.size:
        raise _damaged(where, "cut off within a record's frame")
    magic, word = _FRAME.unpack_from(held, place)
    if magic != _MAGIC:
        raise _damaged(where, f"found {magic:#010x} where a record begins with {_MAGIC:#010x}")
    part = word >> _LENGTH_BITS
    if part > _LAST:
        raise _damaged(where, f"found the flag {part}; allowed: {_WHOLE} to {_LAST}")
    return part, word & ((1 << _LENGTH_BITS) - 1)


def _damaged(where: str, what: str) -> Exception:
    return DataError(f"{where}{what}; copy the file again, or pack it anew") if where else ValueError(what)


def _joined(held: memoryview) -> memoryview:
    """The bytes of a record, whose parts lie one after the other."""
    parts: list[bytes | memoryview] = []
    place = 0
    while True:
        part, length = _frame(held, place)
        if (part in (_WHOLE, _FIRST)) != (not parts):
            raise ValueError("a part of the record is missing")
        place += _FRAME.size
        if len(held) - place < length:
            raise ValueError(f"the record has {length} bytes, of which {len(held) - place} are there")
        if part == _WHOLE:
            return held[place : place + length]
        parts += [held[place : place + length], *([_MAGIC_BYTES] if part != _LAST else [])]
        if part == _LAST:
            return memoryview(b"".join(parts))
        place += length + (-length) % 4


def _unpacked(held: memoryview) -> Record:
    if len(held) < _HEADER.size:
        raise ValueError(f"the record has {len(held)} bytes, and its header alone {_HEADER.size}")
    count, label, key, _ = _HEADER.unpack_from(held)
    if count == 0:
        return Record(np.array([label], np.float32), key, held[_HEADER.size :])
    if count > _MOST_LABELS or len(held) < _HEADER.size + 4 * count:
        raise ValueError(f"the record's header claims {count} labels, in {len(held)} bytes")
    labels = np.frombuffer(held, "<f4", count, _HEADER.size)
    return Record(labels, key, held[_HEADER.size + 4 * count :])


class RecordPictures:
    """The pictures of .rec files.

    Args:
        files: that they are in.
    """

    def __init__(self, files: RecordFiles) -> None:
        """Keep the files."""
        self._files = files

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self._files)

    def name_of(self, row: int) -> str:
        """What messages call a picture."""
        file, own = self._files.place(row)
        return file.name_of(own)

    def labels(self, row: int) -> Labels:
        """The labels of a picture, `(k,)`, without reading its file.

        Raises:
            DataError: naming the record, if it is damaged.
        """
        file, own = self._files.place(row)
        return file.labels(own)

    def read(self, row: int) -> tuple[memoryview, Labels]:
        """The bytes of a picture's file, and its labels `(k,)`.

        Raises:
            DataError: naming the record, if it is damaged.
        """
        file, own = self._files.place(row)
        labels, _, content = file.record(own)
        return content, labels
