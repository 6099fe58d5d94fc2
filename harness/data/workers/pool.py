"""The worker processes of a rank, which it starts once: each reads a few items at a time, in order.

What an item becomes depends on (seed, epoch, index) alone, since the global generators are seeded around each: so
neither the number of workers nor their order can be seen in a batch. An error is that of the lowest row, on any number
of workers. A worker that has ended, or takes too long, is named, with the item that it was reading.
"""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from queue import SimpleQueue

import numpy as np

from harness.data.arrays import Indices
from harness.data.items import digest_of
from harness.data.sequences import SequenceDataset
from harness.data.threads import TICK_S, Threads
from harness.data.workers.handle import Accept, GoneError, Task, WorkerHandle
from harness.data.workers.orders import WorkerOrders
from harness.errors import DataError

_AT_ONCE = 4  # items that a worker takes: few enough to share a small batch out


class WorkerPool:
    """Worker processes; close it, or they end with this process.

    Attributes:
        count: of processes.

    Args:
        count: of processes, at least 1.
        orders: what they read.
        splits: the same items in this process, by split, with which theirs are compared.
    """

    def __init__(self, count: int, orders: WorkerOrders, splits: Mapping[str, SequenceDataset]) -> None:
        """Start them; they make their data sets while this process goes on."""
        self.count = count
        self._sources = {name: items.source for name, items in splits.items()}
        self._expected = {name: first_digest(items) for name, items in splits.items()}
        self._failure: tuple[int, DataError] | None = None
        self._threads = Threads(count, "data workers")
        self._idle: SimpleQueue[WorkerHandle] = SimpleQueue()
        self._workers: list[WorkerHandle] = []
        self._numbers = itertools.count()
        self._end = weakref.finalize(self, _end_all, os.getpid(), self._workers)
        for number in range(count):
            self._workers.append(WorkerHandle(number, count, orders))
            self._idle.put(self._workers[-1])

    @property
    def pids(self) -> list[int]:
        """The processes."""
        return [worker.pid for worker in self._workers]

    def read(self, split: str, indices: Indices, draws: Sequence[int], accept: Accept) -> None:
        """Read items in all workers.

        Args:
            split: that they are of.
            indices: which.
            draws: epoch and seed in training, none in evaluation.
            accept: called with the row and the arrays of each item, in any order and by several threads at once; the
                arrays are valid for the length of the call.

        Raises:
            HarnessError: what reading the item in the lowest row raised.
        """
        items, numbers = indices.tolist(), [int(one) for one in draws]
        tasks = [
            Task(next(self._numbers), split, items[first : first + _AT_ONCE], numbers, first)
            for first in range(0, len(items), _AT_ONCE)
        ]
        waiting = [self._threads.submit(self._work, task, accept) for task in tasks]
        try:
            for task, one in zip(tasks, waiting, strict=True):
                self._wait(task, one)
        except BaseException:
            for one in waiting:
                one.cancel()
            raise

    def _wait(self, task: Task, one: Future[None]) -> None:
        """Wait until a task is done, or will not be, because of one before it."""
        while True:
            try:
                return one.result(TICK_S)
            except TimeoutError:
                if one.done():  # it is the item's own
                    raise
                if self._failure is not None and self._failure[0] < task.number:
                    raise DataError(str(self._failure[1])) from None

    def close(self) -> None:
        """End the processes; calling this again does nothing."""
        self._end()
        self._threads.close()

    def _work(self, task: Task, accept: Accept) -> None:
        worker = self._idle.get()
        try:
            if self._failure is not None and self._failure[0] < task.number:
                raise DataError(str(self._failure[1]))
            try:
                if not worker.has_begun:
                    self._compare(worker.begin(task, self._sources[task.split]))
                worker.read(task, self._sources[task.split], accept)
            except GoneError as gone:
                error = DataError(str(gone))
                if self._failure is None or task.number < self._failure[0]:
                    self._failure = task.number, error
                raise error from None
        finally:
            self._idle.put(worker)

    def _compare(self, found: Mapping[str, str]) -> None:
        for name, digest in found.items():
            if digest != self._expected[name]:
                error = DataError(
                    f"{self._sources[name]}: items are others in a worker process than in the rank's own, so they "
                    "depend on more than their index: on what was done in the process before, or on its environment. "
                    "Make them functions of their index, or set data.worker_kind: thread"
                )
                self._failure = -1, error  # of all that follows
                raise error


def first_digest(items: SequenceDataset) -> str:
    """The number of items, and a digest of the first in evaluation, which are alike in all processes."""
    ((data, label),) = items.samples(np.arange(1))
    return f"{len(items)} {digest_of(data, label).hex()}"


def _end_all(owner: int, workers: list[WorkerHandle]) -> None:
    """End processes side by side, in the process that has started them."""
    if os.getpid() != owner:
        return
    for worker in workers:
        worker.end()
    for worker in workers:
        worker.reap()
