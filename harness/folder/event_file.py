"""TensorBoard's event files: the numbers of `metrics.jsonl`, from which they are rewritten whenever that is cut back.

So no iteration has two values, however often a run was stopped. The calling thread writes them. `SummaryWriter` uses a
second one, and when that dies on a full disk, the run waits for it for ever.
"""

from __future__ import annotations

import importlib
import shutil
import struct
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.errors import CheckpointError
from harness.folder.metrics import MetricsLine

_RGBA = 4  # TensorBoard's number of colours
_MOST_TAGS = 1000  # TensorBoard holds every one in memory


class EventFile:
    """One event file in a folder of its own."""

    def __init__(self, folder: Path, texts: Mapping[str, str], pictures: Mapping[str, Path]) -> None:
        """Nothing is written yet.

        Args:
            folder: belongs to this file alone.
            texts: shown as text, by name, such as the configuration.
            pictures: PNG files that are shown where they exist, by name.
        """
        self._folder, self._texts, self._pictures = folder, texts, pictures
        self._writer: Any = None
        self._tags: set[str] = set()

    def rewrite(self, lines: Iterable[MetricsLine]) -> None:
        """Start over with the lines of `metrics.jsonl`.

        Raises:
            CheckpointError: if it cannot be written.
        """
        import_tensorboardx()
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.summary import text

        self.close()
        try:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(parents=True)
            self._writer = EventsWriter(str(self._folder / "events"))
            for name, value in self._texts.items():
                self._add(0.0, 0, text(name, value))
            for name, path in self._pictures.items():
                if path.exists():
                    self._add(0.0, 0, _picture(name, path.read_bytes()))
        except OSError as error:
            raise self._failed(error) from None
        for line in lines:
            self._take(line)
        self._flush()

    def write(self, line: MetricsLine) -> None:
        """Add a line of `metrics.jsonl`.

        Raises:
            CheckpointError: if it cannot be written.
        """
        self._take(line)
        self._flush()

    def close(self) -> None:
        """Close the file; what is not on disk by then is in `metrics.jsonl`."""
        if self._writer is not None:
            with suppress(OSError):
                self._writer.flush()
            with suppress(OSError):  # closed even if not: Python 3.13 shows what it cannot write of a file left open
                self._writer._py_recordio_writer.close()
            self._writer = None

    def _take(self, line: MetricsLine) -> None:
        from tensorboardX.summary import scalar

        values = {f"{line.split}/{name}": value for name, value in line.values.items()}
        position = {"lr": line.lr, "momentum": line.momentum} if line.split == "train" else {}  # said once is enough
        for tag, value in {**position, **values}.items():
            if value is not None and len(self._tags | {tag}) <= _MOST_TAGS:
                self._tags.add(tag)
                self._add(line.time or 0.0, line.iteration, scalar(tag, value))

    def _add(self, wall_time: float, step: int, summary: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        try:
            self._writer.write_event(Event(wall_time=wall_time, step=step, summary=summary))
        except OSError as error:
            raise self._failed(error) from None

    def _flush(self) -> None:
        try:
            self._writer.flush()
        except OSError as error:
            raise self._failed(error) from None

    def _failed(self, error: OSError) -> CheckpointError:
        return CheckpointError(
            f"{self._folder}: an event file could not be written ({error.strerror}); free some disk space"
        )


def import_tensorboardx() -> None:
    """Import tensorboardX without PyTorch, which it would import if it is installed.

    PyTorch loads a Gloo of its own into the process, and Horovod's calls then end there: a segmentation fault in the
    first sum (PyTorch 2.13.0, Horovod 0.28.1).
    """
    if "torch" in sys.modules:
        return  # imported by the user, or in a program without Horovod
    blocked: dict[str, Any] = {"torch": None}  # an import of it fails
    sys.modules.update(blocked)
    try:
        importlib.import_module("tensorboardX")
    finally:
        del sys.modules["torch"]


def _picture(name: str, png: bytes) -> Any:
    """A PNG file as it is; its first chunk begins with width and height."""
    from tensorboardX.proto.summary_pb2 import Summary

    width, height = struct.unpack_from(">II", png, 16)
    shown = Summary.Image(width=width, height=height, colorspace=_RGBA, encoded_image_string=png)
    return Summary(value=[Summary.Value(tag=name, image=shown)])
