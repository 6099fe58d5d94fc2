"""Workers are killed, join and are removed at random iterations: the bits are those of a run that nothing befell."""

from __future__ import annotations

import os
import random
import signal
import time
from itertools import pairwise

import pytest

from tests.conftest import THOROUGH
from tests.elastic.conftest import SETTINGS
from tests.jobs.elastic import Fault, host
from tests.programs.streams import SETTINGS as STREAMS

BATCH_NORM = "network={name: cnn, params: {channels: [6, 16], hidden: 32, dropout: 0.3, batch_norm: true}}"
ADAM = ("optimizer={name: adam}", "lr.base=0.001")
CARRIED = (
    "name=streams",
    *STREAMS["reader"],
    "batch.shards=8",
    "optimizer={name: adam, params: {}}",
    "lr={base: 0.02, schedule: 1x}",
    "evaluation.every=10it",
    *SETTINGS[-2:],
)
VARIANTS = {  # all but the last with dropout and augmentation
    "sgd": SETTINGS,
    "adam": (*SETTINGS, *ADAM),
    "batch norm": (*SETTINGS, BATCH_NORM),
    "adam, batch norm": (*SETTINGS, BATCH_NORM, *ADAM),
    "carried": CARRIED,
}
if THOROUGH:
    ITERATIONS, SIZES = 400, (4, 3, 5, 2, 8, 1)
    CASES = [(seed, list(VARIANTS)[seed % len(VARIANTS)]) for seed in range(20)]
else:
    ITERATIONS, SIZES = 80, (1, 4, 3, 1)
    CASES = [(0, "adam, batch norm")]


def fewer(job, number, generator, how):
    """Let a number of workers go: killed, or their hosts removed."""
    chosen = generator.sample(job.workers(), number)
    if how == "kill":
        for worker in chosen:
            job.send(worker, signal.SIGKILL)
    else:
        job.remove_hosts([worker.host for worker in chosen])


@pytest.mark.long
@pytest.mark.parametrize(("seed", "variant"), CASES)
def test_the_bits_are_those_of_the_unbroken_run(elastic, end_as_unbroken, seed, variant):
    generator = random.Random(seed)
    settings = (*VARIANTS[variant], f"train={{iterations: {ITERATIONS}}}")
    job = elastic(settings, SIZES[0])
    # the first loss is a kill, what joins are hosts; later ones are removed, as the story goes
    step, is_lost = ITERATIONS // len(SIZES), False
    for number, (before, size) in enumerate(pairwise(SIZES)):
        t = number * step + generator.randrange(2, step // 2)
        job.wait_for(f"iteration {t}", lambda t=t: job.iteration() >= t)
        time.sleep(generator.uniform(0, 0.03))
        is_kill = size < before and (not is_lost or generator.random() < 0.3)
        is_lost = is_lost or is_kill
        if size > before:
            job.add_hosts(size - before)
        else:
            fewer(job, before - size, generator, "kill" if is_kill else "remove")
        if not is_kill:
            job.pause(0.4)  # there is no hurry until they are here
        job.wait_for(f"{size} workers", lambda size=size: job.size() == size)
        job.pause(0)
    end_as_unbroken(job, settings)
    sizes = [world["size"] for world in job.worlds()]
    print(f"seed {seed}, {variant}: worlds of {sizes} from iterations {[world['t'] for world in job.worlds()]}")
    rest = iter(sizes)
    assert all(size in rest for size in SIZES), f"{sizes} and not {SIZES}"


@pytest.mark.long
def test_workers_that_are_still_joining_end_with_the_job(elastic, end_as_unbroken):
    settings = (*VARIANTS["adam, batch norm"], f"train={{iterations: {ITERATIONS}}}")
    job = elastic(settings, 2, faults=[Fault("freeze", "start", host=host(2))])
    job.pause(0.2)
    job.wait_for("an update", lambda: job.iteration() > 1)
    job.add_hosts(1)
    frozen = job.wait_for("one that joins", job.strikes)[0]["pid"]
    job.add_hosts(1)
    time.sleep(3)  # horovodrun looks for hosts every second; then it calls all together, and waits for the frozen one
    job.pause(0)
    job.wait_for("the end", lambda: job.digest)
    time.sleep(1)
    os.kill(frozen, signal.SIGCONT)
    end_as_unbroken(job, settings)
