"""A .rec file while it is written: beside it lies a journal, by which a killed run is resumed.

`OUT.rec.part` holds records, one after the other, and `OUT.rec.journal` a line for each: its key, the byte where it
begins, its number of bytes, and their CRC-32. The first line says what is packed, and how. A line is
written after its record, so what has no line is packed again.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from io import BufferedWriter
from pathlib import Path
from typing import NamedTuple

from harness.data.arrays import Indices
from harness.data.record_format import Labels, framed, packed
from harness.errors import ConfigError
from harness.files import force_folder, open_regular, read_regular

_LEFT_OUT = -1  # where a picture begins that was left out


class Line(NamedTuple):
    """What the journal says of one picture.

    Attributes:
        key: of the record.
        start: the byte where it begins; -1 for a picture that was left out because it is damaged.
        size: of the record in the file, in bytes.
        checksum: CRC-32 of the record as it stands in the file.
    """

    key: int
    start: int
    size: int
    checksum: int

    @property
    def is_packed(self) -> bool:
        """Whether there is a record."""
        return self.start != _LEFT_OUT


class Journal:
    """Records that are being written, and what an earlier attempt has left of them.

    Attributes:
        records: the file that grows.
        lines: of all pictures so far, in order.

    Args:
        path: of the .rec file to be.
        keys: of the pictures, in order.
        what: what is packed, and how; an attempt continues only one of the same.
        skipping: whether pictures may stay left out.
        start_over: if what an earlier attempt has left is of something else.

    Raises:
        ConfigError: if it is, and is to be kept.
        OSError: if a file cannot be written.
    """

    def __init__(
        self, path: Path, keys: Indices, what: Mapping[str, object], *, skipping: bool, start_over: bool
    ) -> None:
        """Look at what there is, and cut off what is not complete."""
        self.records = path.with_name(f"{path.name}.part")
        self._path = path.with_name(f"{path.name}.journal")
        header = f"{json.dumps(what, sort_keys=True)}\n"
        self.lines = list(self._left(header, keys, skipping, start_over))
        self._end = max((line.start + line.size for line in self.lines), default=0)
        self._records = self._opened(self.records, self._end)
        kept = "".join([header, *map(_text, self.lines)]).encode()
        is_begun = self._path.exists() and read_regular(self._path).startswith(kept)
        self._lines = self._opened(self._path, len(kept) if is_begun else 0)
        self._lines.write(b"" if is_begun else kept)
        self._lines.flush()

    def add(self, key: int, labels: Labels, content: bytes) -> None:
        """Write a record, and its line.

        Raises:
            ValueError: if it is longer than a record can be.
            OSError: if it cannot be written.
        """
        record = framed(packed(key, labels, content))
        self._records.write(record)
        self._records.flush()
        self._add(Line(key, self._end, len(record), zlib.crc32(record)))
        self._end += len(record)

    def leave_out(self, key: int) -> None:
        """Write the line of a picture that is left out."""
        self._add(Line(key, _LEFT_OUT, 0, 0))

    def force(self) -> None:
        """Flush the records to disk.

        Raises:
            OSError: if they cannot be written.
        """
        os.fsync(self._records.fileno())

    def close(self) -> None:
        """Leave the files as they are, for another attempt."""
        for file in (self._records, self._lines):
            with suppress(OSError):  # what could not be flushed, of which there was an error already
                file.close()

    def publish(self, path: Path) -> None:
        """Give the records their name, and remove the journal.

        Raises:
            OSError: if that cannot be done.
        """
        self.records.rename(path)
        force_folder(path.parent)
        self._path.unlink()

    def discard(self) -> None:
        """Remove what was written."""
        for path in (self.records, self._path):
            path.unlink(missing_ok=True)

    def _add(self, line: Line) -> None:
        self._lines.write(_text(line).encode())
        self._lines.flush()
        self.lines.append(line)

    def _opened(self, path: Path, size: int) -> BufferedWriter:
        """A file, of which only so many bytes are kept."""
        file = open_regular(path, "ab")
        os.ftruncate(file.fileno(), size)
        return BufferedWriter(file, 1 << 20)

    def _left(self, header: str, keys: Indices, skipping: bool, start_over: bool) -> Iterator[Line]:
        """What an earlier attempt has written, up to the first record that is not as its line says, or is not there."""
        try:
            begun, *texts = read_regular(self._path).decode(errors="replace").splitlines(keepends=True) or [""]
            records = open_regular(self.records)
        except FileNotFoundError:
            return
        with records:
            if begun != header:
                if begun.endswith("\n") and not start_over:
                    raise ConfigError(
                        f"{self._path}: an earlier attempt packed other pictures, or with another --resize or "
                        "--quality; give what it was given, or start over with --overwrite"
                    )
                return
            end = 0
            for key, text in zip(keys.tolist(), texts, strict=False):
                line = _line(text)
                if line is None or line.key != key or not (skipping or line.is_packed):
                    return
                if not _is_there(records.fileno(), line, end):
                    return
                end += line.size
                yield line


def _text(line: Line) -> str:
    return "\t".join(map(str, line)) + "\n"


def _line(text: str) -> Line | None:
    """A line that was written completely."""
    words = text.removesuffix("\n").split("\t")
    try:
        return Line(*map(int, words)) if text.endswith("\n") and len(words) == len(Line._fields) else None
    except ValueError:
        return None


def _is_there(records: int, line: Line, end: int) -> bool:
    """Whether a file has the record of a line, after what it has before."""
    if not line.is_packed:
        return line.size == 0
    held = os.pread(records, line.size, end)
    return line.start == end and len(held) == line.size and zlib.crc32(held) == line.checksum
