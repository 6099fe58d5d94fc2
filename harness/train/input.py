"""Notices that updates wait for their samples, says so once with figures, and what would help. Changes no bit."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from harness.data import BatchStream, SequenceDataset
from harness.data.collated import innermost
from harness.gluon import Learner
from harness.train.run import Run

_NOT_YET = 5  # updates at the beginning, when workers start and graphs are compiled
_LEAST_UPDATES, _LEAST_S = 10, 2.0  # of a judgement
_SHARE = 0.1  # of an update, from which on waiting is worth a word


class InputTime(NamedTuple):
    """How long updates waited for samples, on average.

    Attributes:
        waited_s: of an update.
        update_s: all of it, the wait included.
    """

    waited_s: float
    update_s: float

    @property
    def matters(self) -> bool:
        """Whether it is worth a word."""
        return self.waited_s > _SHARE * self.update_s

    def workers_needed(self, workers: int) -> int:
        """How many workers would make samples as fast as updates use them.

        Args:
            workers: that there are; 0 if the training thread reads, and then nothing else happens meanwhile.

        >>> InputTime(0.038, 0.061).workers_needed(2), InputTime(0.038, 0.061).workers_needed(0)
        (6, 2)
        """
        made_s = self.update_s if workers else self.waited_s  # of a batch, if updates wait for each
        return max(1, math.ceil(max(workers, 1) * made_s / max(self.update_s - self.waited_s, 1e-9) - 1e-6))


class InputWatch:
    """Times every update of this rank, until it has had something to say.

    Where Python runs ahead of the device, waiting for samples may cost nothing, since the device computes meanwhile. So
    before anything is said, some updates begin only when the device has done the one before.

    Args:
        stream: whose batches are waited for.
        learner: which updates.
        say: is told, once, after which update and how long updates wait.
        clock: seconds.
    """

    def __init__(
        self,
        stream: BatchStream,
        learner: Learner,
        say: Callable[[int, InputTime], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Nothing is timed yet."""
        self._stream, self._learner, self._say, self._clock = stream, learner, say, clock
        self._left_out = _NOT_YET
        self._is_sure = self._is_done = False
        self._begin_again()

    @contextmanager
    def update(self, t: int) -> Iterator[None]:
        """Time the block, which does update `t`, its samples included; not one that fails."""
        if self._is_done:
            yield
            return
        begun_s, waited_s = self._clock(), self._stream.waited_s
        if self._is_sure:
            self._learner.check_pending()
        yield
        self._timed(t, self._clock() - begun_s, self._stream.waited_s - waited_s)

    def _timed(self, t: int, update_s: float, waited_s: float) -> None:
        if self._left_out:
            self._left_out -= 1
            return
        self._count += 1
        self._update_s += update_s
        self._waited_s += waited_s
        if self._count < _LEAST_UPDATES or self._update_s < _LEAST_S:
            return
        found = InputTime(self._waited_s / self._count, self._update_s / self._count)
        if found.matters and self._is_sure:
            self._is_done, self._is_sure = True, False
            self._say(t, found)
        else:
            self._is_sure = found.matters
        self._begin_again()

    def _begin_again(self) -> None:
        self._count, self._update_s, self._waited_s = 0, 0.0, 0.0


def advice(run: Run, found: InputTime) -> str:
    """What would make samples come fast enough, as the end of a sentence; empty if nothing is known."""
    data, items = run.config.data, innermost(run.data.splits.train)
    threads = run.config.threads_per_rank
    if data.pictures is None and not isinstance(items, SequenceDataset):
        return ""
    workers = int(threads) if data.workers == "auto" else int(data.workers)
    is_process = data.worker_kind == "process"
    if data.pictures is not None:
        workers = max(workers, 1)  # with 0 the thread that makes batches decodes
    elif not is_process:
        workers = 0 if items.seeding is not None or data.workers == 0 else 1
    needed = found.workers_needed(workers)
    kind = "" if is_process or data.pictures is not None else "data.worker_kind: process and "
    cores = len(os.sched_getaffinity(0))
    beyond = f", which are more than the {cores} cores of this process" if needed > cores else ""
    return f"; {kind}data.workers: {needed} would do{beyond}"
