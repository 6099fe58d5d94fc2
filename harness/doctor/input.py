"""How fast the samples of a configuration can be made on this host, by itself and with how many workers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from harness.command import JobContext
from harness.data import SequenceDataset
from harness.data.collated import innermost
from harness.doctor.gather import count_cores
from harness.processes import cpu_s
from harness.report.record import read_record
from harness.train.prepare import prepare_run
from harness.train.run import Run

_SECONDS = 3.0  # of measuring, for each number of workers
_WARM_UP = 2  # batches
_MANY = 4  # workers, above which not every number is tried


class _Way(NamedTuple):
    """A way to make samples.

    Attributes:
        name: as it is shown.
        settings: of `data`.
        workers: 0 where the training thread reads.
    """

    name: str
    settings: dict[str, Any]
    workers: int


class _Speed(NamedTuple):
    samples_per_s: float
    cpu_ms: float


def show_input(job: JobContext) -> None:
    """Measure, and print a line for each number of workers, and what the last run of this name would need.

    Raises:
        HarnessError: of the kind that failed.
    """
    run = _prepared(job, {"workers": "auto", "worker_kind": "thread"})
    ways = list(_ways(run, count_cores()))
    run.close()
    sizes = run.sizes
    batch = f"batches of {sizes.shards} x {sizes.batch_size}"
    print(f"input of {run.config.run_name} in one rank: {sizes.num_samples} samples, {batch}", flush=True)
    print(f"{'':16}{'samples/s':>12}{'ms a sample':>14}{'CPU ms a sample':>18}", flush=True)
    found = []
    for way in ways:
        speed = _measured(job, way)
        found.append((way, speed))
        each_ms = 1e3 / speed.samples_per_s
        print(f"{way.name:16}{speed.samples_per_s:12.1f}{each_ms:14.3f}{speed.cpu_ms:18.3f}", flush=True)
    print(_compared(run, found), flush=True)


def _ways(run: Run, cores: int) -> Iterator[_Way]:
    """What can be chosen for these samples, on so many cores."""
    counts = [count for count in range(1, cores + 1) if count <= _MANY or count in (cores, cores // 2)]
    if run.config.data.pictures is not None:
        for count in counts:
            yield _Way(_count(count, "thread"), {"workers": count}, count)
        return
    items = innermost(run.data.splits.train)
    if not isinstance(items, SequenceDataset):
        yield _Way("1 thread", {}, 1)
        return
    is_seeded = items.seeding is not None
    yield _Way("training thread" if is_seeded else "1 thread", {"worker_kind": "thread"}, 0 if is_seeded else 1)
    for count in counts:
        yield _Way(_count(count, "process"), {"worker_kind": "process", "workers": count}, count)


def _measured(job: JobContext, way: _Way) -> _Speed:
    run = _prepared(job, way.settings)
    with closing(run), run.stream() as stream:
        for t in range(1, _WARM_UP + 1):
            stream(t)
        pids = [os.getpid(), *(run.data.workers.pids if run.data.workers is not None else [])]
        begun_s, worked_s, samples = time.perf_counter(), sum(map(cpu_s, pids)), 0
        while time.perf_counter() - begun_s < _SECONDS or not samples:
            t += 1
            samples += sum(batch.count for batch in stream(t).batches)
        seconds, worked_s = time.perf_counter() - begun_s, sum(map(cpu_s, pids)) - worked_s
    return _Speed(samples / seconds, 1e3 * worked_s / samples)


def _prepared(job: JobContext, settings: dict[str, Any]) -> Run:
    """The run with other settings of `data`, which is never begun."""
    config, defaults = job.config, {"workers": "auto", "worker_kind": "thread"}
    if settings.get("worker_kind") == "thread":
        defaults["timeout_s"] = type(config.data).model_fields["timeout_s"].default
    data = config.data.model_copy(update={**defaults, **settings})
    return prepare_run(config.model_copy(update={"data": data}), job.world, threads=job.threads, guard=job.guard)


def _compared(run: Run, found: list[tuple[_Way, _Speed]]) -> str:
    """What the newest run of this name needs."""
    folder = Path(run.config.output) / run.config.run_name
    if not (folder / "metrics.jsonl").is_file():
        return f"how many samples an update needs is not known: there is no run in {folder}"
    record = read_record(folder)
    rates = record.metrics.training["images_per_s"]
    rates = rates[np.isfinite(rates)][-20:]
    ranks = record.attempts[-1].start.ranks if record.attempts else None
    if not len(rates):
        return f"how many samples an update needs is not known: {folder} has no speeds"
    each = float(np.median(rates)) / (ranks or 1)
    said = f"the last run in {folder} trained {each:,.0f} samples/s on each of {_count(ranks or 1, 'rank')}"
    for way, speed in found:
        if speed.samples_per_s >= 1.1 * each:
            return f"{said}; {way.name} would do"
    return f"{said}, which nothing above exceeds by a tenth: input limits this run"


def _count(number: int, noun: str) -> str:
    plural = "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{'' if number == 1 else plural}"
