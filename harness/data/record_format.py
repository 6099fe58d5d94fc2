"""RecordIO, as MXNet's im2rec writes it: the bytes of a record, taken apart and put together.

A record is a magic number, a 32-bit word with the number of bytes (29 bits) and a flag (3 bits), the bytes, and zeros
up to a multiple of four. Bytes that hold the magic number at such a multiple are split there into several parts, and
the magic number between two parts is left out (dmlc-core, include/dmlc/recordio.h). A picture's record starts with a
header: the number of labels if there are several, a label, and two numbers, of which the first is its key (MXNet,
python/mxnet/recordio.py).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from harness.errors import DataError

Labels = npt.NDArray[np.float32]

FRAME = struct.Struct("<II")
HEADER = struct.Struct("<IfQQ")
WHOLE, FIRST, MIDDLE, LAST = range(4)  # flags: which part of a record this is
_MAGIC = 0xCED7230A
_MAGIC_BYTES = struct.pack("<I", _MAGIC)
_LENGTH_BITS = 29
_MOST_LABELS = 1 << 20


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


def frame_at(held: bytes | memoryview, place: int, where: str = "") -> tuple[int, int]:
    """Which part of a record begins at a place, and its number of bytes.

    Args:
        held: bytes of a file.
        place: in them.
        where: the beginning of messages.

    Raises:
        DataError: if no part begins there; a ValueError without `where`.
    """
    if len(held) - place < FRAME.size:
        raise _damaged(where, "cut off within a record's frame")
    magic, word = FRAME.unpack_from(held, place)
    if magic != _MAGIC:
        raise _damaged(where, f"found {magic:#010x} where a record begins with {_MAGIC:#010x}")
    part = word >> _LENGTH_BITS
    if part > LAST:
        raise _damaged(where, f"found the flag {part}; allowed: {WHOLE} to {LAST}")
    return part, word & ((1 << _LENGTH_BITS) - 1)


def _damaged(where: str, what: str) -> Exception:
    return DataError(f"{where}{what}; copy the file again, or pack it anew") if where else ValueError(what)


def joined(held: memoryview) -> memoryview:
    """The bytes of a record, whose parts lie one after the other.

    Args:
        held: from its first byte on.

    Raises:
        ValueError: if it is damaged.
    """
    parts: list[bytes | memoryview] = []
    place = 0
    while True:
        part, length = frame_at(held, place)
        if (part in (WHOLE, FIRST)) != (not parts):
            raise ValueError("a part of the record is missing")
        place += FRAME.size
        if len(held) - place < length:
            raise ValueError(f"the record has {length} bytes, of which {len(held) - place} are there")
        if part == WHOLE:
            return held[place : place + length]
        parts += [held[place : place + length], *([_MAGIC_BYTES] if part != LAST else [])]
        if part == LAST:
            return memoryview(b"".join(parts))
        place += length + (-length) % 4


def unpacked(held: memoryview) -> Record:
    """A record with its header taken apart.

    Args:
        held: of `joined`.

    Raises:
        ValueError: if there is no such header.
    """
    if len(held) < HEADER.size:
        raise ValueError(f"the record has {len(held)} bytes, and its header alone {HEADER.size}")
    count, label, key, _ = HEADER.unpack_from(held)
    if count == 0:
        return Record(np.array([label], np.float32), key, held[HEADER.size :])
    if count > _MOST_LABELS or len(held) < HEADER.size + 4 * count:
        raise ValueError(f"the record's header claims {count} labels, in {len(held)} bytes")
    labels = np.frombuffer(held, "<f4", count, HEADER.size)
    return Record(labels, key, held[HEADER.size + 4 * count :])


def packed(key: int, labels: Labels, content: bytes) -> bytes:
    """A picture with its header, as `mx.recordio.pack` makes it: the inverse of `unpacked`.

    Args:
        key: of the record.
        labels: `(k,)`; one is written into the header, several between header and picture.
        content: of the picture's file.
    """
    if len(labels) == 1:
        return HEADER.pack(0, float(labels[0]), key, 0) + content
    return HEADER.pack(len(labels), 0.0, key, 0) + labels.astype("<f4").tobytes() + content


def framed(record: bytes) -> bytes:
    """A record as it stands in a file: the inverse of `joined`.

    >>> framed(b"abcde").hex(" ", 4)
    '0a23d7ce 05000000 61626364 65000000'

    Raises:
        ValueError: if it is longer than the format allows, 512 MB.
    """
    if len(record) >= 1 << _LENGTH_BITS:
        raise ValueError(f"has {len(record):,} bytes; a record has fewer than {1 << _LENGTH_BITS:,}")
    words = np.frombuffer(record, "<u4", len(record) // 4)
    cuts = (4 * np.flatnonzero(words == _MAGIC)).tolist()
    pieces: list[bytes] = []
    for number, (start, end) in enumerate(zip([0, *(cut + 4 for cut in cuts)], [*cuts, len(record)], strict=True)):
        part = WHOLE if not cuts else FIRST if number == 0 else LAST if number == len(cuts) else MIDDLE
        pieces += [FRAME.pack(_MAGIC, part << _LENGTH_BITS | end - start), record[start:end]]
    return b"".join([*pieces, bytes(-len(record) % 4)])
