"""How the rate grows with the batch: on quadratics with a known noise scale, and what is said and refused.

The loss is `h |w|^2 / 2`, the gradient of a sample `h w` and noise of covariance `s I` in d dimensions. By theory
`e_max = 1 / h` and, where the loss is L, `B_noise = d s / (2 h L)`.
"""

from __future__ import annotations

import itertools
import math
import statistics
from contextlib import nullcontext

import mxnet as mx
import numpy as np
import pytest
import yaml
from mxnet.gluon import nn

from harness.comm import SingleWorld
from harness.config import parse_config
from harness.data import Batch, GlobalBatch
from harness.finder import FinderSettings, Point, Refusal, StopRule, Sweep, find_lr
from harness.finder.across import (
    RESOLUTION,
    BatchRates,
    MeasuredScaling,
    SweepsAt,
    crossing,
    measure_scaling,
    scaling_of,
    student_quantile,
)
from harness.finder.across_result import plan_of, sentences
from harness.gluon import Learner
from tests.conftest import THOROUGH

BATCHES = (32, 64, 128, 256)
MIDDLE = math.sqrt(BATCHES[0] * BATCHES[-1])
SWEEP = Sweep(lr_start=1e-3, lr_end=10, lr_multiplier=1.02, max_iterations=5000)
DIMENSIONS = 100
REPEATS = 5


def points(random, batch, noise, sweep):
    """One sweep on a quadratic of curvature 1, from a loss of 0.5."""
    rule, mean, found = StopRule(), None, []
    weights = np.full(DIMENSIONS, 1 / math.sqrt(DIMENSIONS))
    for k in range(len(sweep)):
        weights = weights - sweep.lr(k) * (weights + math.sqrt(noise / batch) * random.standard_normal(DIMENSIONS))
        found.append(Point(sweep.lr(k), 0.5 * float(weights @ weights)))
        mean = rule.mean(mean, found[-1].loss)
        if mean > rule.limit(found[0].loss) and len(found) >= rule.min_iter:
            break
    return found


def measured_on_a_quadratic(ratio, seed):
    """What is measured, and the exponent of theory at the level that was chosen.

    Args:
        ratio: the noise scale as a multiple of the batches' geometric mean, where a tenth of the loss is left.
        seed: of the noise.
    """
    random = np.random.default_rng(seed)
    noise = ratio * MIDDLE * 2 * 0.05 / DIMENSIONS
    measured = measure_scaling(
        [
            SweepsAt(batch, *([points(random, batch, noise, sweep) for _ in range(REPEATS)] for sweep in SPEEDS))
            for batch in BATCHES
        ]
    )
    noise_scale = DIMENSIONS * noise / (2 * measured.level)
    return measured, slope([-math.log1p(noise_scale / batch) for batch in BATCHES]), noise_scale


SPEEDS = (SWEEP, SWEEP.faster())


def slope(logs):
    return statistics.linear_regression([math.log(batch) for batch in BATCHES], logs).slope


RATIOS = {100: (0.9, 1.0), 3: (0.6, 0.75), 0.03: (0.0, 0.05)}  # between which the exponent of theory lies
if THOROUGH:
    RATIOS |= {300: (0.95, 1), 30: (0.8, 0.95), 10: (0.75, 0.9), 1: (0.4, 0.55), 0.3: (0.2, 0.3), 0.01: (0, 0.03)}


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_exponent_is_that_of_theory_within_its_interval(ratio):
    """Over seeds: the interval is to hold it at least as often as it says, in which chance may have a part."""
    seeds = range(20 if THOROUGH else 1)
    covered, noise_covered = [], []
    for seed in seeds:
        measured, expected, noise_scale = measured_on_a_quadratic(ratio, seed)
        assert RATIOS[ratio][0] <= expected <= RATIOS[ratio][1]
        covered.append(measured.exponent.low <= expected <= measured.exponent.high)
        noise_covered.append(measured.noise_scale.low <= noise_scale <= measured.noise_scale.high)
        assert measured.exponent.high - measured.exponent.low < 0.8
    assert np.mean(covered) >= 0.8
    assert np.mean(noise_covered) >= 0.8


class Means:
    """A network on which the loss is that of a mean: a weight for each dimension, and samples around 0.

    Gluon's L2 loss is half the mean over dimensions, so `h` is `1 / d`.
    """

    def __init__(self, deviation, dimensions=64):
        self.deviation, self.dimensions = deviation, dimensions
        net = nn.Dense(dimensions, in_units=1, use_bias=False)
        net.initialize(mx.init.One())
        ones = np.ones((2, 1), np.float32)
        self.learner = Learner(net, mx.gluon.loss.L2Loss(), mx.optimizer.SGD(), SingleWorld(), shards=1, sample=ones)

    def held_out(self):
        """Over infinitely many samples, without the variance that no weight can explain."""
        ((_, weight),) = self.learner.parameters.items()
        return float((weight.data().asnumpy().astype(np.float64) ** 2).mean()) / 2

    def sweeps(self, batch, sweep, repeats, seed):
        def stream(repeat):
            random = np.random.default_rng([seed, batch, len(sweep), repeat])

            def of(t):
                label = random.normal(0, self.deviation, (batch, self.dimensions)).astype(np.float32)
                return GlobalBatch(t, (Batch(0, np.ones((batch, 1), np.float32), label),), batch)

            return nullcontext(of)

        settings = FinderSettings(sweep, repeats=repeats)
        found = find_lr(self.learner, settings, stream, held_out=self.held_out)
        return [result.points for result in found.sweeps]


@pytest.mark.parametrize(("deviation", "least", "most"), [(0.5, 0.0, 0.4), (3.0, 0.6, 1.0)])
def test_a_learner_on_a_quadratic_has_the_exponent_of_theory(deviation, least, most):
    means, batches = Means(deviation), (4, 16)
    sweep = Sweep(lr_start=0.3, lr_end=1e3, lr_multiplier=1.04)
    measured = measure_scaling(
        [
            SweepsAt(batch, *(means.sweeps(batch, one, 3, seed=0) for one in (sweep, sweep.faster())))
            for batch in batches
        ]
    )
    noise_scale = deviation**2 / (2 * measured.level)  # d s / (2 h L), where s is the deviation's square over d squared
    rates = [1 / (1 + noise_scale / batch) for batch in batches]
    expected = math.log(rates[1] / rates[0]) / math.log(batches[1] / batches[0])
    assert least <= expected <= most
    assert measured.exponent.low <= expected <= measured.exponent.high
    by_theory = [means.dimensions * rate for rate in rates]
    assert [one.log for one in measured.batches] == pytest.approx(np.log(by_theory), abs=0.25)


def rates(power, scatter=0.0, batches=BATCHES, count=4):
    """Rates that are a power of the batch, and scatter evenly."""
    shifts = [math.exp(scatter * (k - (count - 1) / 2)) for k in range(count)]
    return [BatchRates(b, *([[0.1 * (b / 32) ** power * s for s in shifts]] * 2), weight=2.0) for b in batches]


@pytest.mark.parametrize("power", [0.0, 0.3, 1.0])
def test_an_exact_power_is_measured_exactly(power):
    measured = scaling_of(rates(power), 1.0)
    assert measured.exponent == pytest.approx((power, power - RESOLUTION, power + RESOLUTION))
    assert measured.rate(64) == pytest.approx(0.1 * 2**power)


def test_the_interval_is_that_of_a_slope():
    """Two batches, one speed that counts: the difference of two means by Welch's test, over the log of the ratio."""
    first, second = [0.1, 0.12, 0.11], [0.19, 0.27, 0.2, 0.25]
    batches = [BatchRates(b, some, some, weight=1.0) for b, some in ((32, first), (128, second))]
    exponent = scaling_of(batches, 1.0).exponent
    logs = [np.log(some) for some in (first, second)]
    parts = [one.var(ddof=1) / len(one) for one in logs]
    df = sum(parts) ** 2 / sum(part**2 / (len(one) - 1) for part, one in zip(parts, logs, strict=True))
    half = student_quantile(df) * math.sqrt(sum(parts)) / math.log(4) + RESOLUTION
    assert exponent.value == pytest.approx((logs[1].mean() - logs[0].mean()) / math.log(4))
    assert exponent.high - exponent.value == pytest.approx(half)


def test_two_speeds_are_extrapolated_to_none_and_what_that_changes_widens_the_interval():
    batches = [BatchRates(b, [rate] * 2, [rate * late] * 2, 2.0) for b, rate, late in ((32, 0.12, 1.2), (64, 0.2, 1.0))]
    measured = scaling_of(batches, 1.0)
    assert batches[0].rate.value == pytest.approx(0.1)
    assert measured.exponent.value == pytest.approx(1.0)
    slow = math.log(0.2 / 0.12) / math.log(2)
    assert measured.exponent.high - 1 == pytest.approx(1 - slow)


@pytest.mark.parametrize("noise_scale", [4.0, 100.0, 3000.0])
def test_the_noise_scale_is_what_gives_the_exponent(noise_scale):
    power = slope([-math.log1p(noise_scale / batch) for batch in BATCHES])
    found = scaling_of(rates(power), 1.0).noise_scale
    assert found.value == pytest.approx(noise_scale, rel=0.01)
    assert found.low < noise_scale < found.high
    assert scaling_of(rates(1.2), 1.0).noise_scale == (math.inf,) * 3
    assert scaling_of(rates(-0.2), 1.0).noise_scale == (0.0,) * 3


@pytest.mark.parametrize(
    ("power", "scatter", "scaling", "base", "batch", "said"),
    [
        (1.0, 0.01, "linear", 0.1, 32, "that is lr.scaling: linear"),
        (0.5, 0.01, "sqrt", 0.1, 32, "that is lr.scaling: sqrt"),
        (0.0, 0.01, "none", 0.1, None, "that is lr.scaling: none"),
        (0.8, 0.35, "linear", 0.1, 32, "sqrt and linear are both possible, and linear is nearer"),
        (0.8, 0.01, "linear", 0.528, 256, "the nearest, linear, would be off by a factor of 1.5"),
    ],
)
def test_what_the_exponent_means_for_a_plan(power, scatter, scaling, base, batch, said):
    measured = scaling_of(rates(power, scatter), 1.0)
    section = yaml.safe_load(plan_of(measured))["lr"]
    assert section.get("reference_batch") == batch
    assert (section["scaling"], section["base"]) == (scaling, pytest.approx(base, rel=0.01))
    assert said in " ".join(sentences(measured))
    parse_config({"train": {"epochs": 1}, "network": {"name": "mlp"}, "lr": {"schedule": "1x", **section}}, "x.yaml")


def test_what_is_said_of_the_noise_scale():
    assert "is above 256 samples" in sentences(scaling_of(rates(0.95, 0.1), 1.0))[-1]
    assert "is below 27.1 samples" in sentences(scaling_of(rates(0.02, 0.1), 1.0))[-1]
    assert "is about 90.5 samples (75.9 to 108)" in sentences(scaling_of(rates(0.5, 0.01), 1.0))[-1]
    assert "noise scale" not in " ".join(sentences(scaling_of(rates(0.5, 1.0), 1.0)))


def curve(lrs, losses):
    return [Point(lr, loss) for lr, loss in zip(lrs, losses, strict=True)]


def test_the_crossing_has_the_fewest_losses_on_its_wrong_side():
    lrs = 1e-3 * 1.1 ** np.arange(60)
    losses = np.where(np.arange(60) < 20, 2.0, np.where(np.arange(60) < 45, 0.1, 1.5))
    assert crossing(curve(lrs, losses), 1.0) == pytest.approx(math.sqrt(lrs[44] * lrs[45]))
    losses[[38, 50]] = 1.5, 0.1  # one on the wrong side on either side
    assert crossing(curve(lrs, losses), 1.0) == pytest.approx(math.sqrt(lrs[44] * lrs[45]))
    losses[50:] = 1e30  # how high it is makes no difference
    assert crossing(curve(lrs, losses), 1.0) == pytest.approx(math.sqrt(lrs[44] * lrs[45]))
    assert crossing(curve(lrs, [*losses[:40], *[0.1] * 20]), 1.0) is None
    assert crossing(curve(lrs, [*losses[:44], *[math.nan] * 16]), 1.0) is None


@pytest.mark.parametrize(("df", "quantile"), [(1, 12.7062), (2, 4.3027), (4, 2.7764), (10, 2.2281), (1e9, 1.9600)])
def test_students_quantile(df, quantile):
    assert student_quantile(df) == pytest.approx(quantile, abs=2e-4)


def test_what_cannot_be_compared_is_refused():
    random = np.random.default_rng(0)
    sweep = Sweep(lr_start=1e-3, lr_end=10, lr_multiplier=1.05)
    clean, noisy = (
        SweepsAt(batch, *([points(random, batch, noise, one) for _ in range(2)] for one in (sweep, sweep.faster())))
        for batch, noise in ((64, 0.01), (32, 30.0))
    )
    refusal = measure_scaling([clean, noisy])
    assert isinstance(refusal, Refusal)
    assert refusal.reason.startswith("at a global batch of 32 the loss fell by ")
    assert "finder.lr_multiplier" in refusal.advice
    short = SweepsAt(128, [one[: len(one) // 2] for one in clean.slow], clean.fast)
    refusal = measure_scaling([clean, short])
    assert "at a global batch of 128 2 of 4 sweeps never rose above" in refusal.reason
    assert "finder.lr_end" in refusal.advice
    for few in ([clean], [clean, SweepsAt(128, clean.slow, clean.fast[:1])]):
        with pytest.raises(ValueError, match="at least 2 batches with 2 sweeps"):
            measure_scaling(few)


def test_the_order_of_batches_and_sweeps_makes_no_difference():
    random = np.random.default_rng(0)
    sweep = Sweep(lr_start=1e-2, lr_end=10, lr_multiplier=1.05)
    given = [
        SweepsAt(batch, *([points(random, batch, 1.0, one) for _ in range(2)] for one in (sweep, sweep.faster())))
        for batch in (32, 64, 128)
    ]
    measured = measure_scaling(given)
    assert isinstance(measured, MeasuredScaling)
    for order in itertools.permutations(given):
        turned = [SweepsAt(one.global_batch, one.slow[::-1], one.fast) for one in order]
        assert measure_scaling(turned).exponent == pytest.approx(measured.exponent)
