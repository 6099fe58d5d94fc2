"""Small files and files of lines: read within limits, written completely or not at all. Knows no particular record."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

from harness.files import open_regular, replace_file
from harness.folder.unread import RecordError

MB = 1 << 20
_LONGEST_LINE = 1 << 18


def open_plain(path: Path, *, follow: bool = False) -> BinaryIO:
    """Open a regular file for reading.

    Args:
        path: of the file.
        follow: whether it may be a link to one, for paths that a user has typed.

    Raises:
        RecordError: if it cannot be opened, or is something else: a link may point anywhere, a pipe may never end.
    """
    try:
        return BufferedReader(open_regular(path.resolve() if follow else path))
    except (OSError, ValueError, RuntimeError) as error:  # also a NUL in the path, or circular links
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise RecordError(f"cannot be read ({reason})") from None


def is_there(path: Path) -> bool:
    """Whether anything has that name, even a broken link."""
    return path.is_symlink() or path.exists()


def read_small(path: Path, most: int, *, follow: bool = False) -> bytes:
    """The bytes of a file that should be small; see `open_plain`.

    Raises:
        RecordError: if it cannot be read, or is larger than `most` bytes, in which case it is not read.
    """
    with open_plain(path, follow=follow) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            data = file.read(most + 1) if size <= most else b""
        except OSError as error:
            raise RecordError(f"cannot be read ({error.strerror})") from None
    if size > most or len(data) > most:
        raise RecordError(f"has {max(size, len(data)):,} bytes; at most {most:,} are read")
    return data


def lines_of(file: BinaryIO) -> Iterator[tuple[bytes | None, bool]]:
    """The lines of a file without line feeds, and whether each had one; `None` for a line that is too long.

    A file with one endless line takes no more memory than one with short lines.
    """
    while line := file.readline(_LONGEST_LINE):
        whole = line.endswith(b"\n")
        if whole or len(line) < _LONGEST_LINE:
            yield line.rstrip(b"\n"), whole
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(_LONGEST_LINE)
        yield None, line.endswith(b"\n")


def write_object(path: Path, content: Mapping[str, Any]) -> None:
    """Write a small file completely or not at all, as JSON that `read_object` reads.

    Raises:
        OSError: if it cannot be written; an existing file is unchanged.
    """
    replace_file(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def append_line(path: Path, content: Mapping[str, Any]) -> None:
    """Append a line of JSON; an incomplete last line stays separate.

    Raises:
        OSError: if it cannot be written.
    """
    with open_regular(path, "a+b") as file:
        end = file.seek(0, os.SEEK_END)
        torn = end > 0 and file.seek(end - 1) >= 0 and file.read(1) != b"\n"
        file.write((b"\n" if torn else b"") + json.dumps(content, allow_nan=False).encode() + b"\n")
