"""Predicts how a run scales: measure what sums over ranks cost, fit a model, and apply it to more ranks."""

from __future__ import annotations

import math

from harness.comm import World
from harness.comm.collective_fold import WHOLE_BYTES as ALL_WHOLE_BYTES
from harness.comm.fold import BLOCK_BYTES, WHOLE_BYTES
from harness.command import JobContext
from harness.doctor.changes import explain_changes
from harness.doctor.cost_model import Changes, Reduction, fit, ranks_from
from harness.doctor.gather import count_cores
from harness.doctor.measure import measure_reductions, measure_start, measure_update
from harness.doctor.meeting import measure_meeting
from harness.errors import ConfigError
from harness.shipped import name_command

_KILOBYTES = (64, 256, 1024, 4096, 16384, 65536)


def predict(job: JobContext) -> None:
    """Measure on all ranks, predict on rank 0 and print it.

    Raises:
        ConfigError: on fewer than two ranks.
    """
    world = job.world
    if world.size == 1:
        raise ConfigError(
            "--scaling measures communication between ranks; start at least two: mpirun -np 2 "
            f"{name_command('doctor')} --scaling"
        )
    is_compressed = job.config.compression == "fp16"
    start_s = measure_start(world)  # first of all: it is the age of this process
    measured = measure_reductions(world, _KILOBYTES, is_compressed=is_compressed)
    if world.kind.startswith("mpi"):
        algorithm = "half" if is_compressed else "fold"
    else:
        algorithm = "slices" if world.sum_by == "tree" else "ring"
    reduction = fit(algorithm, world.size, *zip(*measured, strict=True))
    update = measure_update(job)
    met = measure_meeting(world)
    if world.rank == 0:
        lines = explain(world, count_cores(), reduction, update.update_s, update.summed_bytes)
        if met is None:
            lines += [
                "",
                "What a change of the workers costs cannot be predicted: not all ranks reach each other by TCP.",
            ]
        else:
            changes = Changes(world.size, *met, update.state_s, start_s + update.prepare_s)
            lines += ["", *explain_changes(world.kind, changes, reduction, update)]
        print("\n".join(lines), flush=True)


def explain(world: World, cores: int, reduction: Reduction, update_s: float, num_bytes: int) -> list[str]:
    """The prediction, with its formula and its assumptions."""
    ranks = world.size
    own_s = reduction.seconds(ranks, num_bytes)
    alone_s = max(update_s - own_s, 0.0)
    lines = [
        f"measured on {ranks} ranks ({world.kind}), {world.local_size} of them on {world.hostname}, {cores} cores",
        f"latency {1e6 * reduction.latency_s:.1f} us per message, "
        + (
            f"bandwidth {1e-9 / reduction.seconds_per_byte:.2f} GB/s"
            if reduction.seconds_per_byte
            else "bandwidth too high to measure"
        ),
        f"the model is off by {reduction.error:.0%} (median of {len(_KILOBYTES)} sizes)",
        f"an update takes {1e3 * update_s:.2f} ms here, including {1e3 * own_s:.2f} ms (by the model) for the sum of "
        f"{num_bytes / 1e6:.2f} MB",
        "",
        f"update(p) = {1e3 * alone_s:.2f} ms + {_formula(reduction.algorithm, num_bytes)}",
        "",
        " ranks   sum, ms   update, ms   efficiency",
    ]
    for p in ranks_from(ranks):
        sum_s = reduction.seconds(p, num_bytes)
        total_s = alone_s + sum_s
        lines.append(f"{p:6d}  {1e3 * sum_s:8.2f}  {1e3 * total_s:11.2f}  {alone_s / total_s:10.0%}")
    lines += [
        "",
        "Assumptions: every rank processes one shard on its own cores, any two ranks are as far apart as those",
        "measured, links are not shared, all ranks are equally fast, and nothing overlaps.",
    ]
    if world.local_size == ranks:
        lines.append(
            "All ranks were on one host, so this holds for more ranks on one host. For a cluster, measure on two."
        )
    if world.local_size > cores:
        lines.append(f"warning: {world.local_size} ranks share {cores} cores; measure with at most {cores}")
    return lines


def _formula(algorithm: str, num_bytes: int) -> str:
    """The formula of a sum: the messages that are sent one after another, and the bytes in them."""
    if algorithm == "fold" and num_bytes <= WHOLE_BYTES:
        return "log2(p) (latency + bytes / bandwidth)"
    twice_blocks, most = 2 * math.ceil(num_bytes / BLOCK_BYTES), ALL_WHOLE_BYTES // num_bytes
    if algorithm == "half":
        return f"{twice_blocks} (p - 1) latency + (p - 1)/p bytes / bandwidth"
    if algorithm in ("slices", "ring"):
        whole = (
            f"; up to {most} ranks (p - 1) (latency + bytes / bandwidth)" if algorithm == "slices" and most > 2 else ""
        )
        return f"2 (p - 1) latency + 2 (p - 1)/p bytes / bandwidth{whole}"
    return f"{twice_blocks} log2(p) latency + 2 (p - 1)/p bytes / bandwidth"
