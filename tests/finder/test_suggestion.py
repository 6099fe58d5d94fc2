"""From points to a learning rate, or a refusal: on curves whose answer is known."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from harness.finder import RULES, Point, Stop, fit, suggest

LRS = 1e-6 * 1.1 ** np.arange(160)


def points(loss, lrs=LRS, noise=0.0, seed=0):
    random = np.random.default_rng(seed)
    return [Point(float(lr), float(loss(math.log10(lr)) + noise * random.normal())) for lr in lrs]


def hill(x, middle=-1.5, width=0.3, edge=0.0):
    """Falls from 2.3 to .3 around `middle` (a logistic curve in log10 LR) and explodes at `edge`."""
    return 2.3 - 2.0 / (1 + math.exp(-(x - middle) / width)) + math.exp(min(12 * (x - edge), 20))


@pytest.mark.parametrize("noise", [0.0, 0.03, 0.1])
@pytest.mark.parametrize("seed", range(5))
def test_the_steepest_descent_is_found_where_it_is(noise, seed):
    found = suggest([(points(hill, noise=noise, seed=seed), Stop.UNSTABLE)])
    assert found.refusal is None
    assert found.rule == "edge"
    assert math.log10(found.rules["steepest"]) == pytest.approx(-1.5, abs=0.02 + 2.5 * noise)
    assert -1.5 - 1 < math.log10(found.rules["valley"]) < 0
    assert -2 < math.log10(found.rules["minimum_tenth"]) < -1  # the loss is lowest somewhere between .1 and 1
    assert math.log10(found.rules["edge"] / 0.5) == pytest.approx(-0.1, abs=0.25)
    assert found.low <= found.lr <= found.high


def test_a_straight_line_is_fitted_exactly_from_the_first_point_to_the_last():
    curve = fit(points(lambda x: 5 - 0.7 * x))
    np.testing.assert_allclose(curve.smooth, curve.loss, rtol=1e-9)
    np.testing.assert_allclose(curve.slope, -0.7, rtol=1e-6)
    assert curve.noise == pytest.approx(0, abs=1e-9)


def test_where_the_sweep_began_makes_no_difference():
    for rule in RULES:
        answers = []
        for start in (1e-6, 1e-4):
            found = suggest([(points(hill, [lr for lr in LRS if lr >= start]), Stop.UNSTABLE)], rule)
            answers.append(found.rules[rule])
        assert answers[0] == pytest.approx(answers[1], rel=0.15), rule


def test_repeats_give_a_median_and_an_interval():
    sweeps = [(points(lambda x, m=middle: hill(x, m)), Stop.UNSTABLE) for middle in (-1.8, -1.5, -1.0)]
    found = suggest(sweeps, "steepest")
    assert [math.log10(value) for value in (found.low, found.lr, found.high)] == pytest.approx(
        [-1.8, -1.5, -1.0], abs=0.05
    )


def test_points_that_are_not_finite_are_left_out():
    with_nan = [*points(hill, LRS[:140]), Point(2.0, math.nan)]
    assert suggest([(with_nan, Stop.NOT_FINITE)]).rules == suggest([(points(hill, LRS[:140]), Stop.NOT_FINITE)]).rules


@pytest.mark.parametrize(
    ("sweep", "reason", "advice"),
    [
        ((points(hill, LRS[:3]), Stop.LAST_ITERATION), "3 finite points, but at least 15", "max_iterations"),
        ((points(lambda x: 2.3, noise=0.1), Stop.LAST_LR), "the curve is flat", "finder.lr_end"),
        ((points(hill, LRS[:80]), Stop.LAST_LR), "the curve is flat", "finder.lr_end"),
        ((points(hill, LRS[:100]), Stop.LAST_LR), "still falling fastest when the sweep ended", "finder.lr_end"),
        (
            (points(lambda x: 1 + math.exp(3 * x), 1.1 ** np.arange(22)), Stop.UNSTABLE),
            "within a decade of the first learning rate 1",
            "finder.lr_start",
        ),
    ],
)
def test_what_cannot_be_defended_is_refused(sweep, reason, advice):
    found = suggest([sweep])
    assert found.lr is found.low is found.high is None
    assert reason in found.refusal.reason
    assert advice in found.refusal.advice


def test_a_rule_without_an_answer_is_refused():
    never_up = points(lambda x: hill(x, edge=9))
    assert suggest([(never_up, Stop.LAST_LR)], "steepest").lr is not None
    found = suggest([(never_up, Stop.LAST_LR)], "edge")
    assert "'edge' has no answer" in found.refusal.reason


def test_rules_that_disagree_wildly_are_refused():
    def two_steps(x):
        return hill(x, -4.5, 0.05, edge=0.9) - 1.0 / (1 + math.exp(-x / 0.2))

    found = suggest([(points(two_steps), Stop.UNSTABLE)], "steepest")
    assert "disagree by more than a factor of 100" in found.refusal.reason
    assert found.rules["steepest"] < 1e-4 < found.rules["minimum_tenth"]


@pytest.mark.parametrize("largest", [1e308, 1.7e308, -1.7e308])
def test_losses_near_the_largest_float_warn_of_nothing(largest):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for sign in (1, -1):
            suggest([(points(lambda x, s=sign: largest * (s if x < -2 else -s)), Stop.UNSTABLE)])
            suggest([(points(lambda x, s=sign: largest * (s * hill(x) / 10)), Stop.UNSTABLE)])


def test_where_the_loss_begins_to_fall():
    found = suggest([(points(hill), Stop.UNSTABLE)])
    fell = 10 ** next(x for x in np.log10(LRS) if hill(x) < hill(-6) - 0.05 * 2.0)
    assert found.begins == pytest.approx(fell, rel=0.25)
    assert suggest([(points(lambda x: 2.3), Stop.LAST_LR)]).begins is None
