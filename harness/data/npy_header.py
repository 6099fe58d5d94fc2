r"""The header of a `.npy` file, read by ourselves: nothing that it says is believed before it is checked.

The format is NumPy's (NEP 1): the magic `\x93NUMPY`, a version of two bytes, the length of what follows (two bytes in
version 1, four in 2 and 3), and a dict as Python writes it, with `descr`, `fortran_order` and `shape`.
"""

from __future__ import annotations

import ast
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from harness.data.leaves import Shape

_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {(1, 0): 2, (2, 0): 4, (3, 0): 4}
_LARGEST_BYTES = 10_000  # of the dict; NumPy's own limit
_MOST_DIMENSIONS = 32
_NUMBERS = re.compile(r"[<>|=]?[biufc]\d{1,2}")
_KINDS = {
    "O": "Python objects; write numbers, an array without objects",
    "U": "text; number the strings, and write the numbers",
    "S": "byte strings; write bytes as uint8",
    "M": "dates; write the time since a beginning as floats or integers",
    "m": "time differences; divide them by a unit first",
    "V": "records; write each field as an array of its own",
}
_ADVICE = "write it with numpy.save, as numbers and not as Python objects"


@dataclass(frozen=True)
class Header:
    """What a file says it holds.

    Attributes:
        dtype: of the numbers.
        shape: of the array.
        is_fortran: whether the first index changes fastest.
        start: the byte at which the numbers begin.
    """

    dtype: np.dtype[Any]
    shape: Shape
    is_fortran: bool
    start: int


def read_header(path: Path) -> Header:
    """The header of a file, checked against its size.

    Raises:
        DataError: if it is damaged, holds what is not numbers, or does not fit the file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            begin = file.read(12)
            header_bytes, start = _where(path, begin)
            file.seek(start - header_bytes)
            text = file.read(header_bytes)
    except OSError as error:
        raise _damaged(path, str(error)) from error
    if len(text) < header_bytes:
        raise _damaged(path, f"its header is cut off after {len(text)} of {header_bytes} bytes")
    dtype, is_fortran, shape = _parse(path, text)
    wanted = start + dtype.itemsize * math.prod(shape)
    if wanted != size:
        raise _damaged(
            path, f"by its header it holds {dtype} {_short(shape)}, which is another size than its {size} bytes"
        )
    return Header(dtype, shape, is_fortran, start)


def _where(path: Path, begin: bytes) -> tuple[int, int]:
    """The length of the dict, and the byte after it."""
    if begin[:2] == b"PK":
        raise DataError(f"{path}: an archive of several arrays; write one array with numpy.save")
    if len(begin) < 10 or begin[:6] != _MAGIC:
        raise _damaged(path, "it does not begin like one")
    version = (begin[6], begin[7])
    if version not in _LENGTH_BYTES:
        raise _damaged(path, f"its version is {version[0]}.{version[1]}, known are 1.0, 2.0 and 3.0")
    end = 8 + _LENGTH_BYTES[version]
    header_bytes = int.from_bytes(begin[8:end], "little")
    if header_bytes > _LARGEST_BYTES:
        raise _damaged(path, f"its header is {header_bytes} bytes long, allowed are {_LARGEST_BYTES}")
    return header_bytes, end + header_bytes


def _parse(path: Path, text: bytes) -> tuple[np.dtype[Any], bool, Shape]:
    try:
        found = ast.literal_eval(text.decode("utf-8", "replace").strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise _damaged(path, f"its header cannot be read: {_short(text)}") from None
    if not isinstance(found, dict) or set(found) != {"descr", "fortran_order", "shape"}:
        raise _damaged(path, f"its header must name descr, fortran_order and shape; found {_short(found)}")
    descr, is_fortran, shape = found["descr"], found["fortran_order"], found["shape"]
    if not isinstance(is_fortran, bool):
        raise _damaged(path, f"fortran_order is {_short(is_fortran)}, and must be True or False")
    sizes_are_whole = isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)
    if not sizes_are_whole or len(shape) > _MOST_DIMENSIONS:
        raise _damaged(path, f"shape is {_short(shape)}, and must be at most {_MOST_DIMENSIONS} whole numbers")
    if 0 in shape:
        raise DataError(f"{path}: the array has the shape {_short(shape)}, so nothing is in it; write one with samples")
    return _dtype(path, descr), is_fortran, shape


def _dtype(path: Path, descr: object) -> np.dtype[Any]:
    if isinstance(descr, str) and _NUMBERS.fullmatch(descr):
        try:
            return np.dtype(descr)
        except (TypeError, ValueError):
            pass  # such as an integer of three bytes
    kind = descr.lstrip("<>|=")[:1] if isinstance(descr, str) else "V"
    what = _KINDS.get(kind, f"numbers of an unknown type, {_short(descr)}")
    raise DataError(f"{path}: not an array that can be memory-mapped (it holds {what}); {_ADVICE}")


def _damaged(path: Path, why: str) -> DataError:
    return DataError(f"{path}: not an array that can be memory-mapped ({why}); {_ADVICE}, or fetch it anew")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
