"""A worker is killed or freezes at any moment of a run: in time the others go on, and end with the same bits."""

from __future__ import annotations

import random
import signal

import pytest

from tests.conftest import THOROUGH
from tests.elastic.conftest import SETTINGS
from tests.jobs.elastic import Fault, host

STALL_S = 6.0
ITERATIONS = 20
RUN = (
    *SETTINGS,
    f"train={{iterations: {ITERATIONS}}}",
    "evaluation.every=5it",
    "checkpoint={every: 4it, keep: 2}",
    *(f"guard.stall_after{name}_s={STALL_S}" for name in ("", "_first", "_evaluation")),
    "guard.stall_after_start_s=60",
)
FINDER = ("lr.base=auto",)
MOMENTS = ("forward", "sum", "step", "after the update", "evaluation", "finder", "checkpoint", "first", "reshape")


def fault_at(generator, moment, what):
    """One or (in the middle of a change that another has caused) two faults of a job of four."""
    rank, t, delay_s = generator.randrange(4), generator.randrange(2, 15), 0.0
    if moment == "sum":
        delay_s = generator.uniform(0.0, 0.01)
    if moment == "evaluation":
        t = generator.choice((5, 10))
    if moment == "checkpoint":
        t, delay_s = generator.choice((4, 8, 12)), generator.uniform(0.0, 0.03)
    if moment == "finder":
        t = None
    if moment == "first":
        moment, t = "forward", 1
    if moment not in ("reshape", "enter"):
        return [Fault(what, moment, rank, t=t, delay_s=delay_s)]
    other = generator.choice([one for one in range(4) if one != rank])
    first = Fault("kill", generator.choice(("forward", "sum", "step")), other, t=t)
    return [first, Fault(what, moment, rank, delay_s=generator.uniform(0.001, 0.7), after=0)]


if THOROUGH:
    CASES = [
        (moment, what, seed)
        for seed in range(6)
        for what in ("kill", "freeze")
        for moment in MOMENTS[: 5 if seed == 5 else None]
    ][:100]
else:
    CASES = []


def assert_in_time(job, faults):
    strikes = job.strikes()
    assert sorted(strikes) == list(range(len(faults))), job.describe()
    for number, fault in enumerate(faults):
        taken_s = job.next_update_after(strikes[number]["time"])
        if any(other.after == number for other in faults):
            continue  # the next one befell the change that this one caused
        print(f"{fault.what} in {fault.moment}, t={fault.t}, rank {fault.rank}: {taken_s:.2f} s to the next update")
        limit_s = STALL_S + 10.0 if fault.what in ("freeze", "cut") else 10.0
        assert taken_s < limit_s, job.describe()


@pytest.mark.thorough
@pytest.mark.parametrize(("moment", "what", "seed"), CASES)
def test_a_loss_at_any_moment(elastic, end_as_unbroken, moment, what, seed):
    faults = fault_at(random.Random(f"{moment} {what} {seed}"), moment, what)
    settings = (*RUN, *FINDER) if moment == "finder" else RUN
    job = elastic(settings, 4, faults=faults)
    end_as_unbroken(job, settings, timeout_s=150)
    assert_in_time(job, faults)


@pytest.mark.thorough
@pytest.mark.parametrize("moment", ["forward", "sum", "after the update", "reshape", "enter"])
def test_one_that_cannot_be_reached_is_done_without_as_one_that_is_frozen(elastic, end_as_unbroken, moment):
    faults = fault_at(random.Random(moment), moment, "cut")
    job = elastic(RUN, 4, faults=faults)
    end_as_unbroken(job, RUN, timeout_s=150)
    assert_in_time(job, faults)


@pytest.mark.thorough
def test_one_in_reserve_waits_as_long_as_it_takes_for_a_place(elastic, end_as_unbroken):
    settings = (*RUN, "batch.shards=2")
    job = elastic(settings, 2)
    job.wait_for("the first update", job.iteration)
    job.pause(0.5)
    job.add_hosts(1)
    job.wait_for("one in reserve", lambda: len(job.workers()) == 3)
    reserve = job.workers()[-1]
    since = job.iteration()
    job.wait_for("longer than a stall", lambda: job.iteration() >= since + 2 * STALL_S / 0.5 or job.iteration() >= 18)
    assert reserve in job.workers()
    job.send(job.workers()[0], signal.SIGKILL)
    job.pause(0)
    end_as_unbroken(job, settings)
    assert [world["size"] for world in job.worlds()] == [2, 2]


@pytest.mark.long
def test_those_that_are_lost_before_the_first_world_are_done_without(elastic, end_as_unbroken):
    settings = (*SETTINGS, "train={iterations: 5}")
    faults = [Fault("kill", "start", host=host(1)), Fault("kill", "connect", host=host(2))]
    job = elastic(settings, 4, faults=faults)
    end_as_unbroken(job, settings, timeout_s=150)
    assert len(job.strikes()) == 2
    assert [world["size"] for world in job.worlds()] == [2]


@pytest.mark.long
@pytest.mark.parametrize(
    "faults",
    [
        [
            Fault("kill", "sum", 0, t=4, delay_s=0.003),
            Fault("term", "after the update", 1, t=8),
            Fault("freeze", "evaluation", 1, t=15),
        ],
        [
            Fault("kill", "finder", 1),
            Fault("kill", "checkpoint", 2, t=8, delay_s=0.01),
            Fault("kill", "enter", 1, after=1),
        ],
    ],
)
def test_several_losses_in_one_run(elastic, end_as_unbroken, faults):
    settings = (*RUN, *FINDER) if faults[0].moment == "finder" else RUN
    job = elastic(settings, 4, faults=faults)
    end_as_unbroken(job, settings, timeout_s=150)
    assert_in_time(job, faults)
    assert job.worlds()[-1]["size"] <= 2  # the one that is told to leave has a second for it, and may freeze meanwhile
