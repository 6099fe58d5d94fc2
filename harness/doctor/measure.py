"""Times sums over ranks, whole updates and what a start consists of, on real ranks.

Every rank calls these functions. They judge nothing.
"""

from __future__ import annotations

import importlib
import os
import statistics
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from harness import processes
from harness.comm import World
from harness.comm.half import HalfPrecision, HalfRounder
from harness.comm.tree import assign
from harness.units import ClockTime

if TYPE_CHECKING:
    from harness.command import JobContext

_REPEATS, _WARM_UP, _UPDATES = 15, 5, 30


class UpdateCosts(NamedTuple):
    """What an update of a configuration costs, and what surrounds it; of the slowest rank.

    Attributes:
        update_s: seconds of an update.
        summed_bytes: that ranks sum in it.
        prepare_s: seconds to read the data and build the network, and what the first update takes longer.
        state_s: seconds to give the whole state of rank 0 to all.
        state_bytes: in it.
        saved_every: updates, or a time, between two checkpoints; `None` if there is none before the end.
    """

    update_s: float
    summed_bytes: int
    prepare_s: float
    state_s: float
    state_bytes: int
    saved_every: int | ClockTime | None


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


def measure_start(world: World) -> float:
    """Seconds from the start of this process until it has imported all that trains, and joined; the slowest rank's."""
    importlib.import_module("harness.train.build")
    return float(max(world.allgather_object(processes.age_s(os.getpid()), "doctor.age")))


def measure_update(job: JobContext) -> UpdateCosts:
    """Build what the configuration says, and train a little."""
    from harness.train.build import build_learner
    from harness.train.prepare import prepare_run

    began = time.perf_counter()
    run = prepare_run(job.config, job.world, threads=job.threads, guard=job.guard)
    with run.stream() as stream:
        learner = build_learner(run)
        built_s, times = time.perf_counter() - began, []
        for t in range(1, min(_WARM_UP + _UPDATES, run.sizes.num_iterations) + 1):
            began = time.perf_counter()
            learner.update(stream(t), 0.0)
            learner.check_pending()
            times.append(time.perf_counter() - began)
        usual_s = statistics.median(times[_WARM_UP:] or times)
        state = learner.snapshot()
        began = time.perf_counter()
        learner.broadcast_state(compared=True)
        given_s = time.perf_counter() - began
    everyone = job.world.allgather_object((usual_s, built_s + times[0] - usual_s, given_s), "doctor.update")
    update_s, prepare_s, state_s = (max(column) for column in zip(*everyone, strict=True))
    arrays = [state.parameters, state.optimizer_state, state.carried, state.averages]
    state_bytes = sum(array.nbytes for kind in arrays for array in kind.values())
    every = job.config.checkpoint.every
    saved_every = every if every is None or isinstance(every, ClockTime) else max(1, run.sizes.iterations(every))
    return UpdateCosts(update_s, learner.reduced_bytes, prepare_s, state_s, state_bytes, saved_every)
