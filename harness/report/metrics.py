"""`metrics.jsonl`: what was measured in a run, and the record that every picture of it is made of."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from harness.errors import CheckpointError
from harness.report.events import EventFile


class MetricsFile:
    """`metrics.jsonl`: one JSON object a line, in the order of iterations; a line is there whole or not at all."""

    def __init__(self, path: Path, after: int = 0) -> None:
        """Open the file.

        Args:
            path: of the file.
            after: the iteration that a run goes on from; lines of later ones, and a torn last line, are cut off.
        """
        if path.exists():
            _cut_back(path, after)
        self._path = path
        self._file = path.open("ab", buffering=0)
        self._events: EventFile | None = None

    def show_in(self, events: EventFile) -> None:
        """Write every line, those of the past too, to an event file as well."""
        self._events = events
        events.rewrite(self._lines())

    def _lines(self) -> Iterator[dict[str, Any]]:
        with self._path.open("rb") as file:
            for line in file:
                yield json.loads(line)

    def write(self, record: Mapping[str, object]) -> None:
        """Append one record; the clock (seconds since 1970) is added to it.

        Raises:
            CheckpointError: if it cannot be written; the file then ends with the line before.
        """
        timed = {**record, "time": round(time.time(), 3)}
        line = json.dumps(timed).encode() + b"\n"
        end = self._file.seek(0, os.SEEK_END)  # not where a write that failed had come to
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(end)
            raise CheckpointError(f"{self._path}: a line could not be written ({error.strerror}); make room") from error
        if self._events is not None:
            self._events.write(timed)

    def cut_back(self, after: int) -> None:
        """Drop the lines of iterations after one that the run has gone back to."""
        _cut_back(self._path, after)
        if self._events is not None:
            self._events.rewrite(self._lines())

    def sync(self) -> None:
        """Force every line to disk, so that no set is newer than the lines before it."""
        os.fsync(self._file.fileno())

    def __enter__(self) -> MetricsFile:
        """The file, open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file, with everything on disk."""
        with suppress(OSError):  # every line was checked when it was written
            os.fsync(self._file.fileno())
        self._file.close()
        if self._events is not None:
            self._events.close()


def _cut_back(path: Path, after: int) -> None:
    """Keep the lines up to an iteration, byte for byte."""
    kept = 0
    with path.open("rb") as file:
        for line in file:
            try:
                iteration = json.loads(line)["iteration"]
            except (ValueError, TypeError, KeyError):
                break
            if iteration > after or not line.endswith(b"\n"):
                break
            kept += len(line)
    os.truncate(path, kept)
