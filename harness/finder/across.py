"""How the best learning rate grows with the global batch: from sweeps at several batches to an exponent. Pure.

S. McCandlish et al., An Empirical Model of Large-Batch Training, 2018, arXiv 1812.06162, section 2.2: where the loss
has the gradient G and the Hessian H, and a sample's gradient the covariance S, one step of rate e on a batch of B
changes the expected loss by `-e |G|^2 + e^2 (G'HG + tr(HS)/B) / 2`. That is lowest at

    e_opt(B) = e_max / (1 + B_noise / B),    B_noise = tr(HS) / G'HG,

and 0 at twice that rate. A range test meets the second of these: its loss stops falling, and begins to rise, where its
rate is twice `e_opt`. Half the rate at which it rises is therefore `e_opt` itself, for the `B_noise` of where the loss
is then. `B_noise` grows while the loss falls, so rates of several batches can only be compared at one loss, and here
that is the same level for every sweep: the lowest one that all have been below, and above which each rises for good.

A sweep raises its rate before the loss has settled, so it meets the level late, and most so where the rates are low. To
first order it is late in proportion to its speed. Sweeps of two speeds therefore tell where one that takes for ever
would meet it (L. F. Richardson, The deferred approach to the limit, 1927), and how far that is from the slower ones is
how wrong the sweeps can be together, which the interval adds to their scatter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from harness.finder.suggestion import EDGE_SAFETY, Curve, Floats, Point, Refusal, fit, rises_above

CONFIDENCE = 0.95
RULES = {"none": 0.0, "sqrt": 0.5, "linear": 1.0}  # exponents of `lr.scaling`
LEAST_SWEEPS = 2  # at each batch and speed, without which there is no interval
LEAST_FALL = 0.4  # of the loss at any batch, as a part of the largest fall at any
RESOLUTION = 0.02  # of an exponent: what two speeds leave where nothing but instability ends a sweep
_STEPS = 20_001  # of a numeric integral
_MOST_DF = 1e5  # degrees of freedom from which Student's distribution is a normal one
_NOISE_SCALES = 10.0 ** np.linspace(-4, 4, 1601)  # tried, as multiples of the batches' geometric mean


class Estimate(NamedTuple):
    """A number with its confidence interval.

    Attributes:
        value: the estimate.
        low: the interval's lower end; may be 0 for a noise scale of which only an upper end is known.
        high: its upper end; infinite where it has none.
    """

    value: float
    low: float
    high: float

    def to_json(self) -> list[float | None]:
        """As files hold it; `None` for an end that there is not."""
        return [number if math.isfinite(number) else None for number in self]


class SweepsAt(NamedTuple):
    """The sweeps at one global batch.

    Attributes:
        global_batch: samples of an update.
        slow: the points of each sweep at the lower speed.
        fast: likewise at the higher speed; over the same rates, in fewer iterations.
    """

    global_batch: int
    slow: Sequence[Sequence[Point]]
    fast: Sequence[Sequence[Point]]


@dataclass(frozen=True)
class BatchRates:
    """What the sweeps at one global batch say.

    Attributes:
        global_batch: samples of an update.
        slow: half the rate at which each sweep's loss rises above the common level, at the lower speed.
        fast: likewise at the higher speed.
        weight: of the slow sweeps' mean log rate in the estimate, above 1; that of the fast ones' is `1 - weight`.
    """

    global_batch: int
    slow: Sequence[float]
    fast: Sequence[float]
    weight: float

    @property
    def log(self) -> float:
        """Natural logarithm of the rate that sweeps of no speed would give."""
        return self.weight * self.slow_log + (1 - self.weight) * _mean_log(self.fast)

    @property
    def slow_log(self) -> float:
        """That of the slow sweeps alone."""
        return _mean_log(self.slow)

    @property
    def variances(self) -> list[tuple[float, int]]:
        """The two parts of the variance of `log`, by the scatter of the sweeps, with their degrees of freedom."""
        parts = ((self.slow, self.weight), (self.fast, 1 - self.weight))
        return [(w**2 * float(np.log(rates).var(ddof=1)) / len(rates), len(rates) - 1) for rates, w in parts]

    @property
    def rate(self) -> Estimate:
        """The rate, with a confidence interval by the scatter alone."""
        half = _half_width(self.variances)
        return Estimate(*(math.exp(self.log + shift) for shift in (0.0, -half, half)))


@dataclass(frozen=True)
class MeasuredScaling:
    """How the learning rate grows with the global batch.

    Attributes:
        level: the loss at which rates are compared.
        batches: in ascending order.
        exponent: of the power of the global batch.
    """

    level: float
    batches: Sequence[BatchRates]
    exponent: Estimate

    @property
    def fitting(self) -> list[str]:
        """The rules of `lr.scaling` whose exponents lie in the interval; none, one or several."""
        return [rule for rule, exponent in RULES.items() if self.exponent.low <= exponent <= self.exponent.high]

    @property
    def nearest(self) -> str:
        """The rule with the nearest exponent."""
        return min(RULES, key=lambda rule: abs(RULES[rule] - self.exponent.value))

    def rate(self, global_batch: float) -> float:
        """The rate at a batch by the fitted power."""
        x = self._logs
        height = float(np.mean([one.log for one in self.batches]))
        return math.exp(height + self.exponent.value * (math.log(global_batch) - float(x.mean())))

    @property
    def noise_scale(self) -> Estimate:
        """`B_noise` by the theory, in samples: the one with this exponent between these batches."""
        distance = self._logs - self._logs.mean()
        slopes = -_slope_weights(self._logs) @ np.log1p(_NOISE_SCALES[None, :] / np.exp(distance)[:, None])
        return Estimate(*(self._noise_scale_of(exponent, slopes) for exponent in self.exponent))

    def _noise_scale_of(self, exponent: float, slopes: Floats) -> float:
        if exponent <= slopes[0]:
            return 0.0
        if exponent >= slopes[-1]:
            return math.inf
        return float(np.interp(exponent, slopes, _NOISE_SCALES)) * math.exp(float(self._logs.mean()))

    @property
    def _logs(self) -> Floats:
        return np.log(np.array([one.global_batch for one in self.batches], np.float64))

    def to_json(self) -> dict[str, Any]:
        """As the file holds it."""
        return {
            "level": self.level,
            "batches": [
                {
                    "global_batch": one.global_batch,
                    "slow": list(one.slow),
                    "fast": list(one.fast),
                    "weight": one.weight,
                    "rate": one.rate.to_json(),
                }
                for one in self.batches
            ],
            "exponent": self.exponent.to_json(),
            "confidence": CONFIDENCE,
            "noise_scale": self.noise_scale.to_json(),
            "rules": {"fitting": self.fitting, "nearest": self.nearest},
        }


def measure_scaling(sweeps: Sequence[SweepsAt]) -> MeasuredScaling | Refusal:
    """The exponent of the learning rate over the global batch, or why there is none.

    Args:
        sweeps: at two batches or more; none of their curves is refused by `refuse_curve`.

    Raises:
        ValueError: for fewer than two batches, or fewer than two sweeps of a speed at one.
    """
    if len(sweeps) < 2 or any(min(len(one.slow), len(one.fast)) < LEAST_SWEEPS for one in sweeps):
        raise ValueError(f"give at least 2 batches with {LEAST_SWEEPS} sweeps of each speed")
    sweeps = sorted(sweeps)
    curves = {one.global_batch: [fit(points) for points in (*one.slow, *one.fast)] for one in sweeps}
    falls = {batch: float(np.median([_fall(curve) for curve in some])) for batch, some in curves.items()}
    most = max(falls.values())
    for batch, fall in falls.items():
        if fall < LEAST_FALL * most:
            return Refusal(
                f"at a global batch of {batch} the loss fell by {fall:.3g}, and by {most:.3g} at another: gradients "
                "are so noisy there that it never settles",
                "sweep more slowly (finder.lr_multiplier closer to 1), or leave out small batches (--across 4,8,16)",
            )
    level = max(rises_above(curve) for some in curves.values() for curve in some)
    batches = []
    for one in sweeps:
        slow, fast = ([crossing(points, level) for points in some] for some in (one.slow, one.fast))
        missing = (*slow, *fast).count(None)
        if missing:
            return Refusal(
                f"at a global batch of {one.global_batch} {missing} of {len(slow) + len(fast)} sweeps never rose above "
                f"{level:.4g}, the loss at which learning rates are compared",
                "sweep to higher learning rates (finder.lr_end, finder.max_iterations, finder.growth)",
            )
        rates = [[EDGE_SAFETY * rate for rate in some if rate is not None] for some in (slow, fast)]
        speeds = [math.log(some[0][1].lr / some[0][0].lr) for some in (one.slow, one.fast)]
        batches.append(BatchRates(one.global_batch, rates[0], rates[1], 1 + speeds[0] / (speeds[1] - speeds[0])))
    return scaling_of(batches, level)


def scaling_of(batches: Sequence[BatchRates], level: float) -> MeasuredScaling:
    """The exponent that rates give: the least-squares slope of their logarithms over those of the batches.

    Its interval follows from the scatter of the sweeps at each batch and speed, which may differ (with the degrees of
    freedom of B. L. Welch, The generalization of Student's problem, 1947): it is that of the slope, however straight
    the line may be. It is wider by what the extrapolation over the speed has changed, at least by `RESOLUTION`.
    """
    weights = _slope_weights(np.log(np.array([one.global_batch for one in batches], np.float64)))
    slope = float(weights @ np.array([one.log for one in batches]))
    slow = float(weights @ np.array([one.slow_log for one in batches]))
    parts = [(float(w) ** 2 * part, df) for w, one in zip(weights, batches, strict=True) for part, df in one.variances]
    half = _half_width(parts) + max(abs(slope - slow), RESOLUTION)
    return MeasuredScaling(level, batches, Estimate(slope, slope - half, slope + half))


def crossing(points: Sequence[Point], level: float) -> float | None:
    """The learning rate from which on the loss is above a level; `None` if it never is, or never is below.

    From the lowest point of the smoothed curve on it is the rate that has the fewest losses on its wrong side: those
    above the level before it, and those below from it on. So neither noise nor an exploding loss shifts it, as they
    would a smoothed curve. Of several such rates it is the middle.
    """
    finite = [point for point in points if math.isfinite(point.loss)]
    lowest = int(fit(finite).smooth.argmin())
    rest = finite[lowest:]
    above = np.array([point.loss > level for point in rest])
    wrong = np.concatenate([[0], above.cumsum()]) + np.concatenate([(~above)[::-1].cumsum()[::-1], [0]])
    best = np.flatnonzero(wrong == wrong.min())
    if wrong.min() == wrong[-1] or best[0] == 0:
        return None
    middle = best[len(best) // 2]
    return math.sqrt(rest[middle - 1].lr * rest[middle].lr)


def student_quantile(df: float, confidence: float = CONFIDENCE) -> float:
    """The two-sided quantile of Student's distribution with `df` degrees of freedom, at least 1.

    >>> [round(student_quantile(df), 2) for df in (1, 2, 5.5, 30)]
    [12.71, 4.3, 2.5, 2.04]
    """
    # t = sqrt(df) tan(a) turns the density into cos(a)^(df - 1), which is bounded on a finite interval
    df = min(df, _MOST_DF)
    reach = math.pi / 2 if df < 50 else math.atan(20 / math.sqrt(df))
    angles = np.linspace(0, reach, _STEPS)
    density = np.cos(angles) ** (df - 1)
    total = np.concatenate([[0.0], ((density[1:] + density[:-1]) / 2).cumsum()])
    angle = float(np.interp(confidence, total / total[-1], angles))
    return math.sqrt(df) * math.tan(angle)


def _half_width(parts: Sequence[tuple[float, int]]) -> float:
    """Half the confidence interval of a sum whose parts have these variances and degrees of freedom."""
    variance = math.fsum(part for part, _ in parts)
    if variance == 0:
        return 0.0
    return student_quantile(variance**2 / math.fsum(part**2 / df for part, df in parts)) * math.sqrt(variance)


def _slope_weights(x: Floats) -> Floats:
    """By which values at `x` are multiplied for their least-squares slope."""
    distance = x - x.mean()
    return np.asarray(distance / (distance @ distance))


def _mean_log(rates: Sequence[float]) -> float:
    return float(np.log(rates).mean())


def _fall(curve: Curve) -> float:
    return float(curve.smooth[0] - curve.smooth.min())
