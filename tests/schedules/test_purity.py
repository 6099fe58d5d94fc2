"""A schedule of the user's own is asked again before it counts: what is not a function of the iteration is refused."""

import datetime
import itertools
import os
import random
import sys
import time

import numpy as np
import pytest

from harness.config import LRConfig
from harness.data import Batching
from harness.errors import ConfigError
from harness.plan import LRPlan, Sizes
from harness.schedules.custom import build_custom
from harness.schedules.purity import impurity, own_schedules

OWN = "tests.programs.own_schedules"


def plan_of(schedule, iterations=200, **more):
    sizes = Sizes(Batching(num_samples=320, shards=1, batch_size=32), num_iterations=iterations)
    return LRPlan(LRConfig(schedule=schedule, **more), sizes, "c.yaml")


def refusal(schedule, **more):
    with pytest.raises(ConfigError) as caught:
        plan_of(schedule, **more)
    text = str(caught.value)
    assert text.count("\n") == 0
    return text


def own(name, **parameters):
    return {f"{OWN}:{name}": parameters or {"lr": 0.1}}


@pytest.mark.parametrize(
    "name",
    [
        "noisy",
        "noisy_of_python",
        "noisy_of_mxnet",
        "drawn_when_built",
        "drawn_inside",
        "counting",
        "counting_builds",
        "counting_late",
        "decaying",
        "by_the_clock",
        "by_the_date",
        "by_the_day",
        "by_the_hour",
        "by_the_uptime",
        "by_the_calendar",
        "by_the_process",
    ],
)
def test_impure_ones_are_refused_by_name_with_both_values(name):
    text = refusal(own(name))
    assert text.startswith(f"c.yaml: lr.schedule: '{OWN}:{name}' gave 0.")
    assert " at its iteration " in text
    assert "a schedule must be a function of the iteration alone" in text


@pytest.mark.parametrize(
    "wrap",
    [
        lambda one: {"scaled": {"factor": 2, "schedule": one}},
        lambda one: {"sequential": {"boundaries": ["50%"], "schedules": [0.1, one]}},
        lambda one: {
            "linear_warm_up": {"start_lr": 0, "length": "1ep", "schedule": {"raised": {"floor_lr": 0, "schedule": one}}}
        },
        lambda one: {"linear_cool_down": {"finish_lr": 0, "start_idx": "5ep", "length": "5ep", "schedule": one}},
    ],
)
@pytest.mark.parametrize("name", ["noisy", "decaying"])
def test_they_are_found_anywhere_in_a_composition(name, wrap):
    assert f"'{OWN}:{name}' gave" in refusal(wrap(own(name)))


def test_so_is_a_momentum():
    text = refusal(0.1, momentum=own("noisy"))
    assert text.startswith(f"c.yaml: lr.momentum: '{OWN}:noisy' gave 0.1")


@pytest.mark.parametrize("name", ["of_environment", "needs_environment"])
def test_the_environment_is_not_the_iteration(monkeypatch, name):
    monkeypatch.setenv("HARNESS_TEST_LR", "0.2")
    assert f"'{OWN}:{name}'" in refusal(own(name))
    assert os.environ["HARNESS_TEST_LR"] == "0.2"


@pytest.mark.parametrize(
    "schedule",
    [
        own("good"),
        own("of_harness", lr=0.1, length="50%"),
        {f"{OWN}:shared_of_mxnet": {}},
        own("of_environment", lr=0.1, variable="HARNESS_TEST_UNSET"),
        *(own("giving", what=what) for what in ("numpy", "numpy_0d", "fraction", "whole")),
    ],
)
def test_pure_ones_pass(schedule):
    plan, again = plan_of(schedule), plan_of(schedule)
    rates = [plan.lr(t) for t in range(1, 201)]
    assert rates == [again.lr(t) for t in range(200, 0, -1)][::-1]
    assert all(type(rate) is float for rate in rates)


def test_the_probe_leaves_generators_time_and_environment_as_they_were():
    random.seed(7)
    np.random.seed(7)
    expected = random.random(), np.random.rand()
    random.seed(7)
    np.random.seed(7)
    environment, clock = dict(os.environ), time.time
    plan_of(own("good"))
    refusal(own("needs_environment"))
    assert (random.random(), np.random.rand()) == expected
    assert dict(os.environ) == environment
    assert time.time is clock
    module = sys.modules[OWN]
    assert (module.time, module.datetime, module.os) == (time, datetime, os)
    assert module.date is datetime.date


@pytest.mark.parametrize(
    ("what", "shown"),
    [
        ("none", "NoneType"),
        ("text", "str '0.1'"),
        ("flag", "bool True"),
        ("complex", "complex (0.1+0j)"),
        ("nan", "nan"),
        ("inf", "inf"),
        ("negative", "-0.1"),
        ("list", "list [0.1]"),
        ("huge", "int 1000"),
    ],
)
def test_values_that_are_not_learning_rates(what, shown):
    for after in (0, 150):
        text = refusal(own("giving", what=what, after=after))
        assert text.startswith(f"c.yaml: lr.schedule: '{OWN}:giving' gave {shown}")
        assert text.endswith(f" at its iteration {after + 1}; it must give a finite number of at least 0")
        assert len(text) < 250


def test_one_that_fails_far_out_is_refused_at_once():
    text = refusal(own("failing", after=180))
    assert text == (
        f"c.yaml: lr.schedule: '{OWN}:failing' failed at its iteration 180 (IndexError: list index out of range); fix "
        "the function"
    )
    plan = plan_of({"sequential": {"boundaries": ["179it"], "schedules": [own("failing", after=180), 0.1]}})
    assert plan.lr(200) == 0.1
    assert "(SystemExit: 3)" in refusal({f"{OWN}:leaving": {}})


def test_one_that_fails_beyond_the_rows_of_the_plan_is_no_traceback():
    plan = plan_of(own("giving", what="nan", after=25_001), iterations=25_001)
    with pytest.raises(ConfigError, match="gave nan at its iteration 25002"):
        plan.lr(25_002)


def test_a_slow_one_is_asked_again_for_a_second_or_two():
    built = build_custom(f"{OWN}:slow", {"s": 0.02})
    for t in range(100):
        built(t)
    begin_s = time.perf_counter()
    assert impurity(built) is None
    assert time.perf_counter() - begin_s < 15  # each of both passes would take 2 s and more


def test_one_that_takes_minutes_is_refused(monkeypatch):
    clock = itertools.count(step=0.5)
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    assert "compute a table once" in refusal(own("slow", s=0))


def test_nothing_is_asked_where_nothing_is_the_users():
    schedule = {"scaled": {"factor": 2, "schedule": {"cosine": {"min_lr": 0, "max_lr": 0.1, "cycle_length": "100%"}}}}
    plan = plan_of(schedule)
    assert plan.own_values == {}
    assert own_schedules(plan.config.schedule) == []
