"""Writes checkpoints in a thread of its own, one at a time, so that training continues during the write."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from harness.checkpoint.places import checkpoint_path
from harness.checkpoint.store import Arrays, keep_newest, write_checkpoint, write_json
from harness.errors import CheckpointError

BEST = "best.json"


class CheckpointWriter:
    """The checkpoints of one run: what is written, how many are kept, and which is the best.

    Only one write is under way at any time: whoever wants the next waits for it, and the arrays handed in must not
    change before that.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        """Start.

        Args:
            folder: of the checkpoints; it must exist.
            keep: how many of the newest stay; the best stays as well.
        """
        self._folder = folder
        self._keep = keep
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: Future[Path] | None = None
        self._written: deque[Path] = deque()  # by the thread

    def start(
        self,
        iteration: int,
        arrays: Mapping[str, Arrays],
        manifest: Mapping[str, Any],
        *,
        best: Mapping[str, Any] | None = None,
        first: Callable[[], None] | None = None,
    ) -> None:
        """Start writing a checkpoint; `wait` for the last one before.

        Args:
            iteration: of the checkpoint.
            arrays: as `write_checkpoint` takes them; they belong to the writer until `wait` returns.
            manifest: see `write_checkpoint`.
            best: `iteration`, `metric` and `value` of the best checkpoint so far, which may be this one.
            first: is done in the thread before the checkpoint is written.
        """
        if self._pending is not None:
            raise RuntimeError("a checkpoint is still being written: wait() comes first")
        self._pending = self._worker.submit(self._write, iteration, arrays, manifest, best, first)

    def wait(self) -> CheckpointError | None:
        """Wait for the write under way, if there is one; what went wrong with it is returned once."""
        pending, self._pending = self._pending, None
        if pending is None:
            return None
        error = pending.exception()
        if error is None or isinstance(error, CheckpointError):
            return error
        raise error

    def poll(self) -> CheckpointError | None:
        """What went wrong with the last write, if it has ended; does not wait."""
        return self.wait() if self._pending is not None and self._pending.done() else None

    def pop_written(self) -> Iterator[Path]:
        """The checkpoints that have become complete since the last call, each with its `best.json`."""
        while self._written:
            yield self._written.popleft()

    def close(self) -> None:
        """End the thread, after the write under way."""
        self._worker.shutdown()

    def _write(
        self,
        iteration: int,
        arrays: Mapping[str, Arrays],
        manifest: Mapping[str, Any],
        best: Mapping[str, Any] | None,
        first: Callable[[], None] | None,
    ) -> Path:
        written: Path | None = None
        try:
            if first is not None:
                first()
            written = write_checkpoint(self._folder, iteration, arrays, manifest)
            if best is not None:
                mark_best(self._folder, best)
            protected = [checkpoint_path(self._folder, best["iteration"])] if best is not None else []
            keep_newest(self._folder, self._keep, protected)
        except OSError as error:
            where = error.filename or self._folder
            raise CheckpointError(
                f"{where}: iteration {iteration} could not be saved ({error.strerror or error}); older checkpoints are "
                "untouched"
            ) from error
        finally:
            if written is not None:
                self._written.append(written)
        return written


def mark_best(folder: Path, best: Mapping[str, Any]) -> None:
    """Let `best.json` name the best checkpoint, its metric and the value."""
    write_json(folder / BEST, {"set": checkpoint_path(folder, best["iteration"]).name, **best})
