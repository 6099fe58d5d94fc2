"""Writes `metrics.jsonl`, and continues it when a run is resumed, even if it was damaged meanwhile."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from harness.errors import CheckpointError
from harness.files import must_be_regular, open_regular
from harness.folder.event_file import EventFile
from harness.folder.files import lines_of, open_plain
from harness.folder.metrics import MetricsLine, iteration_of_line, parse_line, read_metrics_lines
from harness.folder.unread import RecordError, Unread

_PIECE = 1 << 20
_MOST_STRETCHES = 100_000


class MetricsFile:
    """`metrics.jsonl`: one JSON object per line, in the order of iterations. A line is complete or missing.

    Attributes:
        unread: lines of an earlier attempt that cannot be read; they stay as they are.
    """

    def __init__(self, path: Path, after: int = 0) -> None:
        """Open the file.

        Args:
            path: of the file.
            after: the iteration that a run resumes from; later lines, and an incomplete last line, are cut off.

        Raises:
            CheckpointError: if it cannot be opened.
        """
        self._path = path
        self._events: EventFile | None = None
        self.unread = Unread()
        try:
            self._file = self._open(after)
        except (OSError, RecordError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise CheckpointError(
                f"{path}: cannot be continued ({reason}); move it aside, or start over with --overwrite"
            ) from None

    def show_in(self, events: EventFile) -> None:
        """Write every line to an event file as well, beginning with those that are there."""
        self._events = events
        events.rewrite(self._lines())

    def _open(self, after: int) -> FileIO:
        if os.path.lexists(self._path):
            must_be_regular(self._path)
            _cut_back(self._path, after, self.unread)
        return open_regular(self._path, "ab")

    def _lines(self) -> Iterator[MetricsLine]:
        return read_metrics_lines(self._path, Unread())

    def write(self, record: Mapping[str, object]) -> None:
        """Append one record; the clock (seconds since 1970) is added to one without a time.

        Raises:
            CheckpointError: if it cannot be written; the file then ends with the line before.
        """
        clock = {} if "time" in record else {"time": round(time.time(), 3)}
        data = json.dumps({**record, **clock}).encode()
        end = self._file.seek(0, os.SEEK_END)  # not where a failed write stopped
        try:
            if self._file.write(data + b"\n") != len(data) + 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(end)
            raise CheckpointError(
                f"{self._path}: a line could not be written ({error.strerror}); free some disk space"
            ) from error
        if self._events is not None:
            with suppress(RecordError):  # a line that could not be read again is not shown either
                self._events.write(MetricsLine.read(data))

    def cut_back(self, after: int) -> None:
        """Drop the lines after an iteration to which the run has rewound.

        Raises:
            CheckpointError: if the file cannot be written.
        """
        try:
            self._file.close()
            self._file = self._open(after)
        except (OSError, RecordError) as error:
            raise CheckpointError(f"{self._path}: cannot be cut back ({error}); free some disk space") from None
        if self._events is not None:
            self._events.rewrite(self._lines())

    def sync(self) -> None:
        """Force every line to disk, so that no checkpoint is newer than the lines before it."""
        os.fsync(self._file.fileno())

    def __enter__(self) -> MetricsFile:
        """The open file."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file with every line on disk."""
        with suppress(OSError, ValueError):  # each write was checked; the file may be closed already
            os.fsync(self._file.fileno())
        self._file.close()
        if self._events is not None:
            self._events.close()


def _cut_back(path: Path, after: int, unread: Unread) -> None:
    """Keep the lines up to an iteration, byte for byte, and unreadable lines between them.

    Usually the rest is one piece at the end, which is cut off. If a damaged line claims a later iteration than those
    after it, the file is rewritten without that line, and replaced when the new one is complete.
    """
    kept: list[list[int]] = []  # ranges [begin, end) in bytes
    damaged: list[list[int]] = []  # since the last kept line; they stay if another kept line follows
    with open_plain(path) as file:
        begin = 0
        for number, (data, is_whole) in enumerate(lines_of(file), start=1):
            end = file.tell()
            try:
                if is_whole and iteration_of_line(parse_line(data)) <= after:
                    for stretch in (*damaged, [begin, end]):
                        _extend(kept, stretch)
                    damaged = []
            except RecordError as error:
                unread.add(path.name, error, number)
                _extend(damaged, [begin, end])
            begin = end
        if kept and (len(kept) > 1 or kept[0][0] > 0):
            _rewrite(path, file, kept)
            return
    os.truncate(path, kept[0][1] if kept else 0)


def _extend(stretches: list[list[int]], stretch: list[int]) -> None:
    if stretches and stretches[-1][1] == stretch[0]:
        stretches[-1][1] = stretch[1]
    else:
        stretches.append(stretch)
    if len(stretches) > _MOST_STRETCHES:
        raise RecordError(f"is damaged in more than {_MOST_STRETCHES:,} places")


def _rewrite(path: Path, file: BinaryIO, stretches: list[list[int]]) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    with temporary.open("xb") as out:
        for begin, end in stretches:
            file.seek(begin)
            while begin < end:
                piece = file.read(min(_PIECE, end - begin))
                out.write(piece)
                begin += len(piece)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)
