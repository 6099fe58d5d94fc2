"""How a run would scale: what ranks cost each other is measured, a model is fitted, and more ranks are predicted."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence

from harness.comm import World
from harness.comm.fold import BLOCK_BYTES, WHOLE_BYTES
from harness.command import JobContext
from harness.doctor.cost_model import Reduction, fit
from harness.doctor.gather import count_cores
from harness.errors import ConfigError

_RANKS = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
_KILOBYTES = (64, 256, 1024, 4096, 16384, 65536)
_REPEATS, _WARM_UP, _UPDATES = 15, 5, 30


def predict(job: JobContext) -> None:
    """Measure on all ranks, predict on rank 0 and print it.

    Raises:
        ConfigError: on fewer than two ranks.
    """
    world = job.world
    if world.size == 1:
        raise ConfigError(
            "--scaling measures what ranks send each other; start at least two: mpirun -np 2 python "
            "launch/doctor.py --scaling"
        )
    measured = measure_reductions(world, _KILOBYTES)
    algorithm = "fold" if world.kind.startswith("mpi") else "ring"
    reduction = fit(algorithm, world.size, *zip(*measured, strict=True))
    update_s, num_bytes = measure_update(job)
    if world.rank == 0:
        print("\n".join(explain(world, count_cores(), reduction, update_s, num_bytes)), flush=True)


def measure_reductions(world: World, kilobytes: Sequence[int]) -> list[tuple[int, float]]:
    """Bytes and seconds of a sum over ranks: the median of the slowest rank's times, for arrays of several sizes."""
    from harness.gluon.gradient_buffer import Buffer

    measured = []
    for size in kilobytes:
        buffer, times = Buffer(size * 256), []
        for number in range(_REPEATS + 2):
            world.barrier("doctor.start")
            began = time.perf_counter()
            world.sum_buffer(buffer, "doctor.sum")
            buffer.array.wait_to_read()
            taken = max(world.allgather_object(time.perf_counter() - began, "doctor.time"))
            if number >= 2:  # the first touch memory for the first time
                times.append(taken)
        measured.append((size * 1024, statistics.median(times)))
    return measured


def measure_update(job: JobContext) -> tuple[float, int]:
    """Seconds of an update of the configuration, the slowest rank's, and the bytes that ranks sum in it."""
    from harness.train.run import Run

    run = Run(job.config, job.world, threads=job.threads, guard=job.guard)
    with run.stream() as stream:
        learner = run.learner()
        times = []
        for t in range(1, min(_WARM_UP + _UPDATES, run.sizes.num_iterations) + 1):
            began = time.perf_counter()
            learner.update(stream(t), 0.0)
            learner.finish()
            times.append(time.perf_counter() - began)
    slowest = max(job.world.allgather_object(statistics.median(times[_WARM_UP:] or times), "doctor.update"))
    return slowest, learner.reduced_bytes


def explain(world: World, cores: int, reduction: Reduction, update_s: float, num_bytes: int) -> list[str]:
    """The prediction, with its formula and what it assumes."""
    ranks = world.size
    own_s = reduction.seconds(ranks, num_bytes)
    alone_s = max(update_s - own_s, 0.0)
    lines = [
        f"measured on {ranks} ranks ({world.kind}), {world.local_size} of them on {world.hostname}, {cores} cores",
        f"latency {1e6 * reduction.latency_s:.1f} us a message, bandwidth {1e-9 / reduction.seconds_per_byte:.2f} GB/s"
        if reduction.seconds_per_byte
        else f"latency {1e6 * reduction.latency_s:.1f} us a message, bandwidth too high to be seen",
        f"the model is off by {reduction.error:.0%} in the median of {len(_KILOBYTES)} sizes",
        f"an update takes {1e3 * update_s:.2f} ms here, of which the sum of {num_bytes / 1e6:.2f} MB is "
        f"{1e3 * own_s:.2f} ms by the model",
        "",
        f"update(p) = {1e3 * alone_s:.2f} ms + {_formula(reduction.algorithm, num_bytes)}",
        "",
        " ranks   sum, ms   update, ms   efficiency",
    ]
    for p in (ranks, *(p for p in _RANKS if p > ranks)):
        sum_s = reduction.seconds(p, num_bytes)
        total_s = alone_s + sum_s
        lines.append(f"{p:6d}  {1e3 * sum_s:8.2f}  {1e3 * total_s:11.2f}  {alone_s / total_s:10.0%}")
    lines += [
        "",
        "It assumes that every rank plays one shard on cores of its own, that any two ranks are as far apart as those",
        "measured, that links are not shared, that all ranks are equally fast, and that nothing overlaps.",
    ]
    if world.local_size == ranks:
        lines.append(
            "All ranks were on one host: it holds for more ranks on such a host. For a cluster, measure on two."
        )
    if world.local_size > cores:
        lines.append(f"warning: {world.local_size} ranks share {cores} cores; measure with at most {cores}")
    return lines


def _formula(algorithm: str, num_bytes: int) -> str:
    """What a sum takes: messages that are sent one after another, and the bytes in them."""
    if algorithm == "fold" and num_bytes <= WHOLE_BYTES:
        return "log2(p) (latency + bytes / bandwidth)"
    messages = "2 (p - 1)" if algorithm == "ring" else f"{2 * math.ceil(num_bytes / BLOCK_BYTES)} log2(p)"
    return f"{messages} latency + 2 (p - 1)/p bytes / bandwidth"
