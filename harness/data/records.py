"""RecordIO files, as MXNet's im2rec writes them: read by many threads at once, with or without an index.

Files are read by `pread`, which keeps no position, so threads need no lock; MXNet's own reader has one position for
all (apache/mxnet#13945). What a record is, `record_format.py` says.
"""

from __future__ import annotations

import hashlib
import os
import stat
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.data.arrays import Indices
from harness.data.record_format import (
    FIRST,
    FRAME,
    HEADER,
    LAST,
    MIDDLE,
    WHOLE,
    Labels,
    Record,
    frame_at,
    joined,
    unpacked,
)
from harness.errors import DataError
from harness.shipped import name_command

_REINDEX = f"write the index again ({name_command('data')} index), or remove it: records are found without one too"


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
        walk: find the records by going through the file, whatever index there is.

    Raises:
        DataError: naming the file, if it cannot be read, or the index does not fit it.
    """

    def __init__(self, path: Path, index: Path | None = None, *, walk: bool = False) -> None:
        """Open the file, and read where its records are; not the records."""
        self.path = path
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); give a .rec file that im2rec wrote") from error
        weakref.finalize(self, os.close, self._file)
        facts = os.fstat(self._file)
        if not stat.S_ISREG(facts.st_mode):
            raise DataError(f"{path}: is no regular file; give a .rec file that im2rec wrote")
        self._size = facts.st_size
        if self._size == 0:
            raise DataError(f"{path}: is empty; a .rec file has at least one record")
        beside = path.with_suffix(".idx")
        if index is None and not walk and beside.is_file():
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

    @property
    def starts(self) -> Indices:
        """The byte where each row begins, `(n,)`."""
        return self._table.starts

    @property
    def sizes(self) -> Indices:
        """The bytes up to the next record in the file, of all rows, `(n,)`."""
        return self._table.sizes

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
            return joined(held)
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
            return unpacked(held)
        except ValueError as error:
            raise DataError(f"{self.name_of(row)}: {error}; pack it with im2rec or `mx.recordio.pack`") from error

    def labels(self, row: int) -> Labels:
        """The labels of a record, `(k,)`, without reading what follows them.

        Raises:
            DataError: as `record`.
        """
        start = int(self._table.starts[row])
        try:
            held = os.pread(self._file, FRAME.size + HEADER.size, start)
        except OSError:
            held = b""  # reading the record says why
        if len(held) == FRAME.size + HEADER.size and frame_at(held, 0, f"{self.name_of(row)}: ")[0] == WHOLE:
            count, label, _, _ = HEADER.unpack_from(held, FRAME.size)
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
        wrong = np.flatnonzero((starts < 0) | (starts > self._size - FRAME.size) | (starts % 4 != 0))
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
            held = os.pread(self._file, FRAME.size + HEADER.size, place)
            part, length = frame_at(held, 0, f"{self.path}: at byte {place}: ")
            if inside != (part in (MIDDLE, LAST)) or place + FRAME.size + length > self._size:
                raise DataError(
                    f"{self.path}: at byte {place}: the record is cut off, or a part of it is missing; copy the file "
                    "again, or pack it anew"
                )
            if not inside:
                starts.append(place)
                keys.append(HEADER.unpack_from(held, FRAME.size)[2] if len(held) == FRAME.size + HEADER.size else 0)
            inside = part in (FIRST, MIDDLE)
            place += FRAME.size + length + (-length) % 4
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

    def listing(self) -> str:
        """A digest of the keys and sizes of all records; in which order they lie does not matter."""
        total = hashlib.blake2b(digest_size=8)
        for file in self._files.files:
            total.update(file.keys.tobytes())
            total.update(file.sizes.tobytes())
        return total.hexdigest()

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
