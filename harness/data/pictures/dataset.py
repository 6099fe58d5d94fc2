"""A split of picture files, decoded by several threads of the rank's own process.

Threads, not processes: the decoders let go of Python's lock, nothing is copied between processes, and no process is
forked beside MXNet and MPI. What a sample becomes depends on (seed, epoch, sample) alone, so neither the number of
threads nor their order can be seen in a batch.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from harness.data.arrays import Indices, Subset
from harness.data.augment import Bits
from harness.data.memory import BatchMemory
from harness.data.pictures.decoding import Picture
from harness.data.pictures.draws import Draws, sample_words
from harness.data.pictures.recipe import Floats, Recipe
from harness.data.pictures.replacement import Replacement
from harness.data.threads import TICK_S, RunningClock, Threads
from harness.errors import DataError

EVERY_HOST = "every host has to reach every file, because each epoch deals all samples anew to all ranks"
_MEND = "replace the file, leave it out, or set data.pictures.damaged: replace"
_MOST_IN_A_ROW = 1000  # damaged samples, after which no other is looked for
_AT_ONCE = 4  # samples that a thread takes: few enough to share a small batch out, enough to hide the hand-over


class PictureSource(Protocol):
    """Picture files with labels: `PictureFiles`, or `RecordPictures`."""

    def __len__(self) -> int:
        """The number of pictures."""

    def name_of(self, row: int) -> str:
        """What messages call a picture."""

    def read(self, row: int) -> tuple[memoryview, npt.NDArray[np.float32]]:
        """The bytes of its file, and its labels `(k,)`.

        Raises:
            DataError: if the record is damaged; from an OSError, if it cannot be read.
        """

    def listing(self) -> str:
        """A digest of all names or keys, which is the same wherever the same pictures are."""


class PictureDataset:
    """A split: pictures as arrays `(3, height, width)` of float32, and labels.

    Attributes:
        source: where the samples come from, for messages.
        full_scale: 1, since pictures are normalised already.
        num_workers: threads that decode.

    Args:
        pictures: the files.
        recipe: what becomes of them.
        where: they come from, for messages.
        workers: threads that decode; with 0 the caller does.
        timeout_s: that a thread may take for a picture.
        num_classes: if labels are classes; `None` leaves them numbers.
        replace_damaged: whether a damaged picture is replaced by the one whose number follows.
        memory: of batches; splits may share one.
    """

    full_scale = 1.0

    def __init__(
        self,
        pictures: PictureSource,
        recipe: Recipe,
        where: str,
        *,
        workers: int = 0,
        timeout_s: float = 120.0,
        num_classes: int | None = None,
        replace_damaged: bool = False,
        memory: BatchMemory | None = None,
    ) -> None:
        """Start no thread yet; the first batch does."""
        self.source, self.num_workers = where, workers
        self._pictures, self._recipe, self._num_classes = pictures, recipe, num_classes
        self._replace_damaged = replace_damaged
        self._workers = Workers(workers, timeout_s)
        self._memory = memory or BatchMemory()
        self._of_thread = threading.local()
        self._among: Indices | None = None  # the samples that may replace a damaged one, rising; by default all

    @property
    def pictures(self) -> PictureSource:
        """The files."""
        return self._pictures

    def __len__(self) -> int:
        """The number of samples."""
        return len(self._pictures)

    def take(self, indices: Indices, *draws: int) -> tuple[Floats, npt.NDArray[Any]]:
        """Pictures `(n, 3, height, width)`, and labels `(n,)` or, if a sample has several, `(n, k)`.

        Args:
            indices: which samples.
            draws: epoch and seed, in training; in evaluation nothing is drawn.

        Raises:
            DataError: naming the damaged picture, of several the one in the lowest row, or the one that takes too long.
        """
        pixels = self._memory.empty((len(indices), 3, *self._recipe.size))
        labels: list[npt.NDArray[np.float32]] = [np.empty(0, np.float32)] * len(indices)
        replaced: list[Replacement | None] = [None] * len(indices)
        epoch, seed = draws or (0, 0)
        words = sample_words(seed, epoch, indices) if draws else None

        def fill(row: int) -> None:
            own = None if words is None else words[row]
            labels[row], replaced[row] = self._fill(int(indices[row]), own, pixels[row])

        def name(row: int) -> str:
            sample = int(indices[row])
            return f"{self.source}: sample {sample}: {self._pictures.name_of(sample)}"

        self._workers.run(fill, len(indices), name)
        self._of_thread.replaced = tuple(one for one in replaced if one is not None)
        return pixels, self._joined(indices, labels)

    @property
    def last_replaced(self) -> tuple[Replacement, ...]:
        """The damaged samples that others replaced in the last `take` of the calling thread, in the order of rows."""
        return getattr(self._of_thread, "replaced", ())

    def subset(self, indices: Indices) -> Subset:
        """A data set of these samples, of which a damaged one is replaced by another of these."""
        part = copy.copy(self)
        part._among = np.unique(indices)
        return Subset(part, indices)

    def labels(self) -> None:
        """None: reading them all would mean reading every file."""
        return

    def listing(self) -> str:
        """How many pictures were found, and a digest of their names."""
        return f"{len(self):,} pictures (digest {self._pictures.listing()})"

    def close(self) -> None:
        """End the threads, and give memory back; calling this again does nothing."""
        self._workers.close()
        self._memory.clear()

    def _fill(self, index: int, words: Bits | None, out: Floats) -> tuple[npt.NDArray[np.float32], Replacement | None]:
        """Write one picture, or the next that is not damaged if so wished; its labels, and what it has replaced."""
        first: DataError | None = None  # of the sample itself; those after it only take its place
        count = len(self) if self._among is None else len(self._among)
        tried = min(count, _MOST_IN_A_ROW) if self._replace_damaged else 1
        for step in range(tried):
            row = self._following(index, step)
            try:
                labels = self._written(row, words, out)
            except DataError as error:
                if is_unreadable(error):
                    raise DataError(f"{self.source}: sample {row}: {error}; {what_to_do(error)}") from error
                first = first or error
            else:
                return labels, None if first is None else Replacement(index, row, str(first))
        where = f"{self.source}: sample {index}: {first}"
        if not self._replace_damaged:
            raise DataError(f"{where}; {_MEND}") from first
        others = f"so is every other one of {tried}" if tried == count else f"so are the {tried - 1} samples after it"
        raise DataError(f"{where}; {others}, and none can replace it; look at where they come from") from first

    def _following(self, index: int, step: int) -> int:
        """The sample so many places behind another; after the last comes the first."""
        if self._among is None:
            return (index + step) % len(self)
        return int(self._among[(int(np.searchsorted(self._among, index)) + step) % len(self._among)])

    def _written(self, row: int, words: Bits | None, out: Floats) -> npt.NDArray[np.float32]:
        """Write one picture, and return its labels."""
        content, labels = self._pictures.read(row)
        try:
            picture = Picture(content)
            if words is None:
                self._recipe.evaluate(picture, out)
            else:
                self._recipe.train(picture, Draws(words), out)
        except ValueError as error:
            raise DataError(f"{self._pictures.name_of(row)}: {error}") from error
        return labels

    def _joined(self, indices: Indices, labels: list[npt.NDArray[np.float32]]) -> npt.NDArray[Any]:
        widths = {len(one) for one in labels}
        if len(widths) > 1:
            row = next(row for row, one in enumerate(labels) if len(one) != len(labels[0]))
            raise DataError(
                f"{self.source}: sample {indices[row]} has {len(labels[row])} labels, and sample {indices[0]} has "
                f"{len(labels[0])}; give all samples equally many"
            )
        joined = np.stack(labels) if labels else np.empty((0, 1), np.float32)
        if joined.shape[1] == 1:
            joined = joined[:, 0]
        if self._num_classes is None:
            return joined
        with np.errstate(invalid="ignore"):  # of a damaged header: NaN is no class either
            classes = joined.astype(np.int32)
        wrong = np.argwhere((classes != joined) | (classes < 0) | (classes >= self._num_classes))
        if len(wrong):
            place = tuple(wrong[0].tolist())
            raise DataError(
                f"{self.source}: sample {indices[place[0]]}: the label is {joined[place]:g}, but classes are 0 to "
                f"{self._num_classes - 1}; mend it, or set data.pictures.num_classes"
            )
        return classes


def is_unreadable(error: DataError) -> bool:
    """Whether not the picture is damaged, but the way to it: another rank may reach it, so none may replace it."""
    return isinstance(error.__cause__, OSError)


def what_to_do(error: DataError) -> str:
    """The end of the message that a sample cannot be used."""
    return EVERY_HOST if is_unreadable(error) else _MEND


class Workers:
    """Threads that share out the rows of a batch, a few at a time, in order.

    Args:
        count: of threads; with 0 the caller does the work.
        timeout_s: that a row may take.
    """

    def __init__(self, count: int, timeout_s: float = 120.0) -> None:
        """Start none; the first batch does."""
        self.count = count
        self._timeout_s = timeout_s
        self._threads = Threads(max(1, count), "pictures")
        self._stuck: DataError | None = None

    def run(self, function: Callable[[int], None], count: int, name: Callable[[int], str] = "row {}".format) -> None:
        """Call a function with each row of `range(count)`, and wait for all.

        Args:
            function: called by several threads at once.
            count: of rows.
            name: what messages call a row.

        Raises:
            Exception: what it raised for the lowest row; rows that have not begun are then left out.
            DataError: if a row takes too long.
        """
        if self.count == 0:
            for row in range(count):
                function(row)
            return
        parts = [_Part(range(first, min(first + _AT_ONCE, count))) for first in range(0, count, _AT_ONCE)]
        waiting = [self._threads.submit(part.work, function) for part in parts]
        try:
            for part, one in zip(parts, waiting, strict=True):
                self._wait(part, one, name)
        except BaseException:
            for one in waiting:
                one.cancel()
            raise

    def _wait(self, part: _Part, one: Future[None], name: Callable[[int], str]) -> None:
        clock = RunningClock()
        reached, since_s = part.reached, clock.begin()
        while True:
            try:
                one.result(TICK_S)
            except TimeoutError:
                if one.done():  # it is the function's own
                    raise
                if self._stuck is not None:  # and with it a thread that this may wait for
                    raise DataError(str(self._stuck)) from None
                now_s = clock.look()
                if reached is None or part.reached != reached:
                    reached, since_s = part.reached, now_s
                elif now_s - since_s > self._timeout_s:
                    self._stuck = DataError(
                        f"{name(reached)}: reading and decoding takes longer than data.timeout_s = "
                        f"{self._timeout_s:g} s; see whether its disk answers, or allow more seconds"
                    )
                    raise self._stuck from None
            else:
                return

    def close(self) -> None:
        """End the threads, after what they do; one that hangs is left alone."""
        self._threads.close(timeout_s=1.0)


class _Part:
    """A few rows.

    Attributes:
        reached: the row that is being worked on; `None` before the first.
    """

    def __init__(self, rows: range) -> None:
        self.reached: int | None = None
        self._rows = rows

    def work(self, function: Callable[[int], None]) -> None:
        for row in self._rows:
            self.reached = row
            function(row)
