"""From a picture's file to the bytes that are packed: checked, and made smaller where that is asked for.

Several processes do it, each a fresh interpreter: nothing is forked beside MXNet or MPI. Each has a pipe to the one
that packs, and ends when that pipe does, however the other process has ended.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from harness.data.pictures.decoding import Picture, decoders
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.data.pictures.decoding import Pixels

QUALITY = 95  # of im2rec
_AT_ONCE = 8  # pictures that a process takes
_AHEAD = 4  # times as many chunks as processes: finished before their turn


@dataclass(frozen=True)
class Preparation:
    """What becomes of a picture's file before it is packed.

    Attributes:
        resize: pictures whose short edge is longer are made smaller, so that it has so many pixels; `None` packs every
            file as it is.
        quality: of the JPEG files that these become, 1 to 100.
    """

    resize: int | None = None
    quality: int = QUALITY

    def content(self, path: Path) -> bytes:
        """The bytes to pack.

        Raises:
            ValueError: if the file cannot be read, or not be decoded.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ValueError(f"cannot be read ({error.strerror})") from error
        picture = Picture(content)
        pixels = picture.decode()
        height, width = picture.size
        if self.resize is None or min(height, width) <= self.resize:
            return content
        if height <= width:
            return self._encoded(pixels, self.resize, self.resize * width // height)
        return self._encoded(pixels, self.resize * height // width, self.resize)

    def _encoded(self, pixels: Pixels, height: int, width: int) -> bytes:
        """A JPEG file of the pixels, each the mean of those that it stands for."""
        cv2, simplejpeg = decoders().cv2, decoders().simplejpeg
        smaller = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        content: bytes = simplejpeg.encode_jpeg(smaller, quality=self.quality, colorsubsampling="420")
        return content


class Damaged(str):
    """Why there are no bytes to pack."""

    __slots__ = ()


Content = bytes | Damaged


def prepared(folder: Path, names: Sequence[str], preparation: Preparation, workers: int = 1) -> Generator[Content]:
    """The bytes to pack of each picture, in order.

    Args:
        folder: that the names are relative to.
        names: of the pictures.
        preparation: of each.
        workers: processes; 1 is this one.

    Raises:
        ConfigError: if what decodes pictures is not installed.
        HarnessError: if a process has ended, such as for lack of memory.
    """
    decoders()  # whoever lacks them hears of it here, and not from each process
    if workers == 1:
        return (_prepared(folder / name, preparation) for name in names)
    return _shared_out(folder, names, preparation, workers)


def _prepared(path: Path, preparation: Preparation) -> Content:
    try:
        return preparation.content(path)
    except ValueError as error:
        return Damaged(error)


def _shared_out(folder: Path, names: Sequence[str], preparation: Preparation, workers: int) -> Generator[Content]:
    chunks = range(0, len(names), _AT_ONCE)
    with closing(_Processes(min(workers, len(chunks)), folder, preparation)) as processes:
        ready: dict[int, list[Content]] = {}
        given = 0
        for wanted in range(len(chunks)):
            while wanted not in ready:
                while processes.idle and given < min(len(chunks), wanted + _AHEAD * workers):
                    processes.give(given, names[chunks[given] : chunks[given] + _AT_ONCE])
                    given += 1
                ready |= processes.take()
            yield from ready.pop(wanted)


class _Processes:
    """Processes that prepare pictures, each a few at a time.

    Attributes:
        idle: the pipes of those that have nothing to do.
    """

    def __init__(self, count: int, folder: Path, preparation: Preparation) -> None:
        context = multiprocessing.get_context("spawn")
        self._processes: list[BaseProcess] = []
        self._busy: dict[Connection, tuple[int, Sequence[str]]] = {}
        self.idle: list[Connection] = []
        try:
            for _ in range(count):
                own, other = context.Pipe()
                self.idle.append(own)
                process = context.Process(target=serve, args=(other, folder, preparation), daemon=True)
                process.start()
                self._processes.append(process)
                other.close()
        except BaseException:
            self.close()
            raise

    def give(self, number: int, names: Sequence[str]) -> None:
        """Hand a chunk to one that is idle."""
        pipe = self.idle.pop()
        self._busy[pipe] = number, names
        with suppress(OSError):  # of a process that has ended, which taking notices
            pipe.send(names)

    def take(self) -> dict[int, list[Content]]:
        """The chunks that are ready, at least one, by number.

        Raises:
            HarnessError: if a process has ended.
        """
        found = {}
        for pipe in wait(list(self._busy)):
            assert isinstance(pipe, Connection)
            number, names = self._busy.pop(pipe)
            try:
                found[number] = pipe.recv()
            except (EOFError, OSError):
                raise HarnessError(
                    f"a process that reads pictures has ended, at one of {names[0]} to {names[-1]}: it was killed, or "
                    "memory ran out; run the command again, which resumes, with fewer --workers"
                ) from None
            self.idle.append(pipe)
        return found

    def close(self) -> None:
        """End them, whatever they do."""
        for pipe in (*self.idle, *self._busy):
            pipe.close()
        for process in self._processes:
            process.terminate()
            process.join()


def serve(pipe: Connection, folder: Path, preparation: Preparation) -> None:
    """What each process does: prepare what the pipe names, until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the one that packs ends the others
    with suppress(EOFError, OSError):
        while True:
            pipe.send([_prepared(folder / name, preparation) for name in pipe.recv()])
