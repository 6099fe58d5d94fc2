"""Times sums over ranks and whole updates, on real ranks. Every rank calls these functions; judges nothing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.comm import World
from harness.comm.half import HalfPrecision, HalfRounder
from harness.comm.tree import assign

if TYPE_CHECKING:
    from harness.command import JobContext

_REPEATS, _WARM_UP, _UPDATES = 15, 5, 30


def measure_reductions(
    world: World, kilobytes: Sequence[int], *, is_compressed: bool = False
) -> list[tuple[int, float]]:
    """Bytes and seconds of a sum over ranks: the median of the slowest rank's times, for arrays of several sizes.

    With compression the bytes are those of float32, and the times include all roundings.
    """
    from harness.gluon.gradient_buffer import Buffer

    measured, own = [], assign(world.size, world.size)
    for size in kilobytes:
        buffer, times, rounder = Buffer(size * 256), [], HalfRounder()
        half = HalfPrecision.of(size * 256, num_samples=1) if is_compressed else None
        for number in range(_REPEATS + 2):
            world.barrier("doctor.start")
            began = time.perf_counter()
            if half is not None:
                rounder(buffer.array, half, buffer.host)
            world.sum_parts([buffer], own, "doctor.sum", half)
            buffer.array.wait_to_read()
            taken = max(world.allgather_object(time.perf_counter() - began, "doctor.time"))
            if number >= 2:  # the first touch memory for the first time
                times.append(taken)
        measured.append((size * 1024, statistics.median(times)))
    return measured


def measure_update(job: JobContext) -> tuple[float, int]:
    """Seconds of an update of the configuration, the slowest rank's, and the bytes that ranks sum in it."""
    from harness.train.build import build_learner
    from harness.train.prepare import prepare_run

    run = prepare_run(job.config, job.world, threads=job.threads, guard=job.guard)
    with run.stream() as stream:
        learner = build_learner(run)
        times = []
        for t in range(1, min(_WARM_UP + _UPDATES, run.sizes.num_iterations) + 1):
            began = time.perf_counter()
            learner.update(stream(t), 0.0)
            learner.check_pending()
            times.append(time.perf_counter() - began)
    slowest = max(job.world.allgather_object(statistics.median(times[_WARM_UP:] or times), "doctor.update"))
    return slowest, learner.reduced_bytes
