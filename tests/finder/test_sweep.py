"""Which learning rate comes when, and when a sweep stops."""

from __future__ import annotations

import itertools
import math

import pytest

from harness.finder import StopRule, Sweep


def test_a_geometric_sweep():
    sweep = Sweep(lr_start=1e-6, lr_end=10, lr_multiplier=1.1)
    rates = [sweep.lr(k) for k in range(len(sweep))]
    assert rates[0] == 1e-6
    assert all(after / before == pytest.approx(1.1, rel=1e-12) for before, after in itertools.pairwise(rates))
    assert rates[-1] <= 10 < rates[-1] * 1.1
    assert len(sweep) == 1 + math.floor(math.log(1e7) / math.log(1.1))


@pytest.mark.parametrize(("end", "count"), [(8.0, 4), (7.9, 3), (8.1, 4), (1.5, 1)])
def test_the_last_learning_rate_is_the_end_where_it_falls_on_it(end, count):
    sweep = Sweep(lr_start=1.0, lr_end=end, lr_multiplier=2.0)
    assert [sweep.lr(k) for k in range(len(sweep))] == [1.0, 2.0, 4.0, 8.0][:count]


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [("exponential", [0.01, 0.1, 1.0, 10.0, 100.0]), ("linear", [0.01, 25.0075, 50.005, 75.0025, 100.0])],
)
def test_a_number_of_iterations_between_two_ends(spacing, expected):
    sweep = Sweep(lr_start=0.01, lr_end=100, lr_multiplier=None, num_iterations=5, spacing=spacing)
    assert [sweep.lr(k) for k in range(5)] == pytest.approx(expected, rel=1e-12)
    assert len(sweep) == 5


def test_what_ends_a_sweep_that_nothing_else_ends():
    assert "last learning rate" in Sweep().bound
    assert "largest number of iterations" in Sweep(max_iterations=20).bound
    assert len(Sweep(max_iterations=20)) == 20


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"lr_start": -1e-6}, "lr_start: -1e-06 is not a valid learning rate"),
        ({"lr_start": 0}, "lr_start: 0 is not a valid learning rate"),
        ({"lr_end": math.inf}, "lr_end: inf is not a valid learning rate"),
        ({"lr_start": 1, "lr_end": 0.5}, "lr_end: 0.5 is not above lr_start, 1"),
        ({"lr_multiplier": 0.9}, "lr_multiplier: 0.9 does not raise"),
        ({"lr_multiplier": 1}, "lr_multiplier: 1 does not raise"),
        ({"num_iterations": 50}, "give exactly one of them"),
        ({"lr_multiplier": None}, "give exactly one of them"),
        ({"lr_multiplier": None, "num_iterations": 1}, "num_iterations: 1 is too few for a sweep"),
        ({"spacing": "cubic"}, "spacing: 'cubic' is unknown; known: exponential, linear"),
        ({"spacing": "linear"}, "linear needs num_iterations"),
        ({"max_iterations": 0}, "max_iterations: 0"),
    ],
)
def test_what_is_no_sweep(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        Sweep(**arguments)


def test_the_running_mean_starts_at_the_first_loss():
    rule = StopRule()
    mean = rule.mean(None, 2.0)
    assert mean == 2.0
    assert rule.mean(mean, 3.0) == pytest.approx(0.7 * 3.0 + 0.3 * 2.0)
    assert rule.limit(2.0) == 4.0


@pytest.mark.parametrize(
    ("probes", "limit"),
    [([2.0, 2.0], 4.0), ([0.01, -0.01], 0.1), ([-3.0, -3.0], 0.0), ([1.0, 3.0], 12.0)],
)
def test_with_probes_the_limit_means_something_for_any_loss(probes, limit):
    assert StopRule().limit(123.0, probes) == pytest.approx(limit)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"smoothing": 1.0}, "smoothing"),
        ({"smoothing": -0.1}, "smoothing"),
        ({"growth": 1.0}, "growth"),
        ({"min_iter": -1}, "min_iter"),
    ],
)
def test_what_is_no_rule(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        StopRule(**arguments)
