r"""The header of a `.npy` file, read by our own code: nothing is trusted before it is checked.

The format is NumPy's (NEP 1): the magic `\x93NUMPY`, a version of two bytes, the length of what follows (two bytes in
version 1, four in 2 and 3), and a dict in Python syntax with `descr`, `fortran_order` and `shape`.
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
    "U": "text; map the strings to integers",
    "S": "byte strings; write bytes as uint8",
    "M": "dates; write the time since a reference date as floats or integers",
    "m": "time differences; divide them by a unit first",
    "V": "records; write each field as a separate array",
}
_ADVICE = "write it with numpy.save, as numbers rather than Python objects"


@dataclass(frozen=True)
class Header:
    """What a file claims to contain.

    Attributes:
        dtype: of the numbers.
        shape: of the array.
        is_fortran: whether the first index varies fastest.
        start: the byte where the numbers begin.
    """

    dtype: np.dtype[Any]
    shape: Shape
    is_fortran: bool
    start: int


def read_header(path: Path) -> Header:
    """The header of a file, checked against its size.

    Raises:
        DataError: if it is damaged, does not describe numbers, or does not match the file.
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
        raise _damaged(path, f"its header ends after {len(text)} of {header_bytes} bytes")
    dtype, is_fortran, shape = _parse(path, text)
    wanted = start + dtype.itemsize * math.prod(shape)
    if wanted != size:
        raise _damaged(path, f"its header says {dtype} {_short(shape)}, which does not match its size of {size} bytes")
    return Header(dtype, shape, is_fortran, start)


def _where(path: Path, begin: bytes) -> tuple[int, int]:
    """The length of the dict, and the byte after it."""
    if begin[:2] == b"PK":
        raise DataError(f"{path}: an archive of several arrays; write one array with numpy.save")
    if len(begin) < 10 or begin[:6] != _MAGIC:
        raise _damaged(path, "it does not start like one")
    version = (begin[6], begin[7])
    if version not in _LENGTH_BYTES:
        raise _damaged(path, f"its version is {version[0]}.{version[1]}; supported are 1.0, 2.0 and 3.0")
    end = 8 + _LENGTH_BYTES[version]
    header_bytes = int.from_bytes(begin[8:end], "little")
    if header_bytes > _LARGEST_BYTES:
        raise _damaged(path, f"its header is {header_bytes} bytes long; at most {_LARGEST_BYTES} are allowed")
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
        raise _damaged(path, f"fortran_order is {_short(is_fortran)}; it must be True or False")
    sizes_are_whole = isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)
    if not sizes_are_whole or len(shape) > _MOST_DIMENSIONS:
        raise _damaged(path, f"shape is {_short(shape)}; it must be at most {_MOST_DIMENSIONS} whole numbers")
    if 0 in shape:
        raise DataError(f"{path}: the array has the shape {_short(shape)}, so it is empty; write one with samples")
    return _dtype(path, descr), is_fortran, shape


def _dtype(path: Path, descr: object) -> np.dtype[Any]:
    if isinstance(descr, str) and _NUMBERS.fullmatch(descr):
        try:
            return np.dtype(descr)
        except (TypeError, ValueError):
            pass  # such as a three-byte integer
    kind = descr.lstrip("<>|=")[:1] if isinstance(descr, str) else "V"
    what = _KINDS.get(kind, f"numbers of an unknown type, {_short(descr)}")
    raise DataError(f"{path}: not an array that can be memory-mapped (it contains {what}); {_ADVICE}")


def _damaged(path: Path, why: str) -> DataError:
    return DataError(f"{path}: not an array that can be memory-mapped ({why}); {_ADVICE}, or download it again")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
