"""Plans beside each other: the table fits a terminal, and the first difference is found wherever it is."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib import image

from harness.config import LRConfig
from harness.data import Batching
from harness.plan import LRPlan, Sizes
from harness.report import NamedPlan, first_difference, plot_plan, plot_plans, table_of_plans

LONG = 2_500_000  # more than is compared at a time


def named(schedule, iterations=100, own_momentum=None, base=0.1, **lr) -> NamedPlan:
    sizes = Sizes(Batching(num_samples=320, shards=1, batch_size=32), num_iterations=iterations)
    base = base if "x" in str(schedule).replace("max", "") else None
    return NamedPlan("name", LRPlan(LRConfig(schedule=schedule, base=base, **lr), sizes), own_momentum)


def steps(*positions: int) -> dict:
    return {"multi_factor": {"base_lr": 0.1, "step": [f"{t}it" for t in positions], "factor": 0.5}}


@pytest.mark.parametrize("t", [1, 2, 1 << 20, (1 << 20) + 1, LONG - 1])
def test_a_single_difference_is_found_wherever_it_is(t):
    spike = {"sequential": {"schedules": [0.1, 0.2, 0.1], "boundaries": [f"{t}it", f"{t + 1}it"]}}
    assert first_difference(named(spike, LONG), named(0.1, LONG)) == t
    assert first_difference(named(0.1, LONG), named(spike, LONG)) == t


def test_equal_plans_have_no_difference():
    assert first_difference(named(0.1, LONG), named({"scaled": {"schedule": 0.05, "factor": 2}}, LONG)) is None
    assert first_difference(named("1x", base=0.1), named(0.1)) is None


def test_one_bit_is_a_difference():
    assert first_difference(named(0.1), named(0.1 + 2**-56)) == 1
    assert named(0.1 + 2**-56).describe(1) == "lr 0.10000000000000002"


def test_a_run_that_ends_earlier_differs_where_it_has_ended():
    short, long = named(0.1, 99), named(0.1, 100)
    assert first_difference(short, long) == first_difference(long, short) == 100
    assert (short.describe(100), long.describe(100)) == ("ended at iteration 99", "lr 0.1")


def test_momenta_are_compared_as_the_optimizer_gets_them():
    scheduled = named(0.1, momentum={"sequential": {"schedules": [0.9, 0.8], "boundaries": ["50it"]}})
    own = named(0.1, own_momentum=0.9)
    assert first_difference(scheduled, own) == first_difference(own, scheduled) == 50
    assert [scheduled.describe(t) for t in (49, 50)] == ["lr 0.1  momentum 0.9", "lr 0.1  momentum 0.8"]
    assert first_difference(own, named(0.1)) == first_difference(named(0.1), own) == 1
    assert first_difference(own, named(0.1, momentum=0.9)) is None
    # a schedule outranks the optimizer's own number
    assert first_difference(scheduled, named(0.1, own_momentum=0.5, momentum=0.9)) == 50


def test_the_table_fits_a_terminal_whatever_the_numbers():
    cycle = {"cyclical": {"schedule_class": "triangular", "cycle_length": "999999it", "min_lr": 0, "max_lr": 1 / 3}}
    lines = table_of_plans([named(cycle, 10_000_000), named(steps(50)), named("1x", base="auto")], "plan")
    assert max(map(len, lines)) <= 80
    assert "(21 in all)" in " ".join(lines)
    assert lines[-2:] == [
        "name          1         100        10         0.1  1, 51",
        "name          1         100        10          1x  1",
    ]


def test_a_run_of_one_iteration_is_one_phase():
    assert table_of_plans([named(0.1, 1)], "plan")[1].split()[-1] == "1"


@pytest.mark.parametrize("momentum", [None, {"sequential": {"schedules": [0.9, 0.8], "boundaries": ["50it"]}}])
def test_a_run_draws_its_plan(make_run, monkeypatch, momentum):
    """Which the other tests do without."""
    monkeypatch.setattr("harness.report.plan_files.plot_plan", plot_plan)
    lr = {"base": 3e-5, "warmup": {"length": "10it"}, "schedule": "1x", "momentum": momentum}
    pixels = image.imread(make_run(lr=lr, optimizer={"params": {"momentum": 0.9}}) / "plan.png")[:, :, :3]
    assert pixels.shape == (572 if momentum else 396, 880, 3)
    blue = np.isclose(pixels, (0x1F / 255, 0x5F / 255, 0xA8 / 255), atol=0.01).all(axis=2)
    columns = np.flatnonzero(blue.any(axis=0))
    assert columns[-1] - columns[0] > 700  # from the first iteration to the last
    assert (pixels[:, :3] == 1).all(), "a margin is too narrow for its numbers"


def test_a_picture_names_every_plan_and_draws_momenta_where_one_is_scheduled(tmp_path):
    def words(*plans: NamedPlan) -> list[str]:
        plot_plans(plans, tmp_path / "plans.svg", "the title")
        return re.findall("<!-- (.*) -->", (tmp_path / "plans.svg").read_text())

    one = replace(named(0.1), name="first")
    two = replace(named(steps(50)), name="second")
    scheduled = replace(named(0.1, momentum=0.9), name="third")
    assert {"first", "second", "the title", "epoch", "learning rate"} <= set(words(one, two))
    assert "momentum" not in words(one, two)
    assert {"first", "third", "momentum"} <= set(words(one, scheduled))
    assert "first" not in words(one)  # one plan needs no legend
    auto = named("1x", base="auto")
    assert "learning rate (in units of the base)" in words(auto)


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_a_picture_says_nothing_of_when_and_by_what_it_was_made(tmp_path, kind):
    path = tmp_path / f"plans.{kind}"
    plot_plans([named(0.1), named(steps(50))], path, "title")
    content = path.read_bytes()
    assert content.startswith({"png": b"\x89PNG\r\n\x1a\n", "svg": b"<?xml"}[kind])
    assert b"Software" not in content
    assert b"dc:date" not in content
