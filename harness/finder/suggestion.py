"""From the points of a sweep to a learning rate that can be defended, or a refusal. Pure.

The curve is smoothed by local linear regression over log LR with a Gaussian kernel, which is unbiased from the first
point on (a running mean starts at the first loss and lags behind), and gives the slope with the value.
J. Fan and I. Gijbels, Local Polynomial Modelling and Its Applications, 1996.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from harness.finder.sweep import Stop

Floats = npt.NDArray[np.float64]

BANDWIDTH = 0.12  # decades of the kernel's standard deviation
MIN_POINTS = 15
MAX_DISAGREEMENT = 100.0
EDGE_SAFETY = 0.5
_PIECE = 2000  # points that are weighed against all others at a time: 10,000 squared would not fit in memory


class Point(NamedTuple):
    """One iteration of a sweep.

    Attributes:
        lr: the learning rate that the update applies.
        loss: the mean loss of its global batch, before the update.
    """

    lr: float
    loss: float


class Curve(NamedTuple):
    """A sweep's finite points, smoothed.

    Attributes:
        log_lr: log10 of the learning rates, ascending.
        loss: as measured.
        smooth: the fitted loss.
        slope: the fitted slope, loss per decade.
        noise: standard deviation of one measured loss: from each point's distance to the middle of its neighbours,
            which no smoothing has touched (T. Gasser et al., Residual variance and residual pattern in nonlinear
            regression, 1986), and by their median, so that the jumps of an unstable end do not count.
    """

    log_lr: Floats
    loss: Floats
    smooth: Floats
    slope: Floats
    noise: float


class Refusal(NamedTuple):
    """Why there is no suggestion, and what to change."""

    reason: str
    advice: str


class Suggestion(NamedTuple):
    """What the sweeps say.

    Attributes:
        lr: by the rule, to three digits like low and high; `None` if refused.
        rule: the rule's name.
        low: the smallest suggestion by that rule over the sweeps, or over all rules if there is one sweep.
        high: the largest.
        rules: each rule's median over the sweeps; `None` for a rule without an answer.
        refusal: why there is no suggestion.
        begins: where the loss begins to fall, the median over the sweeps, to three digits; `None` if refused.
    """

    lr: float | None
    rule: str
    low: float | None
    high: float | None
    rules: dict[str, float | None]
    refusal: Refusal | None
    begins: float | None = None


@np.errstate(over="ignore", invalid="ignore")  # losses near the largest float, as a damaged record may have
def fit(points: Sequence[Point]) -> Curve:
    """Smooth the finite points of a sweep."""
    finite = [point for point in points if math.isfinite(point.loss)]
    x = np.log10([point.lr for point in finite])
    y = np.array([point.loss for point in finite], np.float64)
    steps = np.diff(x)
    width = max(BANDWIDTH, 2.5 * float(np.median(steps))) if len(steps) else BANDWIDTH
    parts = [_weighed(x, y, width, slice(k, k + _PIECE)) for k in range(0, max(len(x), 1), _PIECE)]
    total, first, second, level, moment = np.concatenate(parts, axis=1)
    determinant = total * second - first**2
    safe = np.where(determinant > 1e-12 * total * np.maximum(second, 1e-300), determinant, np.inf)
    slope = (total * moment - first * level) / safe
    smooth = (level - first * slope) / total
    bends = y[1:-1] - (y[:-2] + y[2:]) / 2
    noise = 1.4826 * float(np.median(np.abs(bends))) / math.sqrt(1.5) if len(bends) else 0.0
    return Curve(x, y, smooth, slope, noise)


def _weighed(x: Floats, y: Floats, width: float, piece: slice) -> Floats:
    """Sums over all points, each weighed by its distance to every point of a piece, `(5, n)`."""
    distance = x[None, :] - x[piece, None]
    weight = np.exp(-0.5 * (distance / width) ** 2)
    sums = weight.sum(1), (weight * distance).sum(1), (weight * distance**2).sum(1)
    return np.stack([*sums, weight @ y, (weight * distance) @ y])


def steepest(curve: Curve) -> float | None:
    """Where the smoothed loss falls fastest over log LR, between where it leaves its first height and its minimum."""
    begin, end = _fallen(curve), int(curve.smooth.argmin()) + 1
    if begin >= end:
        return None
    index = begin + int(curve.slope[begin:end].argmin())
    return _lr(curve, index) if curve.slope[index] < 0 else None


def valley(curve: Curve) -> float | None:
    """The middle of the longest falling subsequence of the smoothed loss, from where it leaves its first height."""
    begin = _fallen(curve)
    values = curve.smooth[begin:].tolist()
    lengths, before = [1] * len(values), [-1] * len(values)
    for index, value in enumerate(values):
        for earlier in range(index):
            if values[earlier] > value and lengths[earlier] + 1 > lengths[index]:
                lengths[index], before[index] = lengths[earlier] + 1, earlier
    last = max(range(len(values)), key=lengths.__getitem__)
    first = last
    while before[first] >= 0:
        first = before[first]
    return _lr(curve, begin + (first + last) // 2) if last > first else None


def minimum_tenth(curve: Curve) -> float | None:
    """A tenth of the learning rate at which the smoothed loss is lowest."""
    index = int(curve.smooth.argmin())
    return _lr(curve, index) / 10 if index else None


def edge(curve: Curve) -> float | None:
    """Half the highest learning rate before the smoothed loss turns up for good."""
    lowest = int(curve.smooth.argmin())
    if curve.smooth[0] <= curve.smooth[lowest]:
        return None
    above = np.flatnonzero(curve.smooth[lowest:] > rises_above(curve))
    if not len(above):
        return None
    return EDGE_SAFETY * _lr(curve, lowest + int(above[0]) - 1)


def rises_above(curve: Curve) -> float:
    """The loss above which it has risen: its lowest, and a tenth of its fall or twice the noise."""
    low = float(curve.smooth.min())
    return low + max(0.1 * (float(curve.smooth[0]) - low), 2 * curve.noise)


RULES: dict[str, Callable[[Curve], float | None]] = {
    "steepest": steepest,
    "valley": valley,
    "minimum_tenth": minimum_tenth,
    "edge": edge,
}
DEFAULT_RULE = "edge"  # chosen by an experiment: docs/finder.md


def suggest(sweeps: Sequence[tuple[Sequence[Point], Stop]], rule: str = DEFAULT_RULE) -> Suggestion:
    """Apply every rule to every sweep, and suggest a rate by one of them, or refuse.

    Args:
        sweeps: points in the order of the iterations, and why each sweep ended.
        rule: the one that the suggestion follows.
    """
    said: dict[str, list[float]] = {name: [] for name in RULES}
    begins = []
    for points, stop in sweeps:
        refusal = refuse_curve(points, stop)
        if refusal is not None:
            return Suggestion(None, rule, None, None, dict.fromkeys(RULES), refusal)
        curve = fit(points)
        begins.append(_lr(curve, _fallen(curve)))
        for name, apply in RULES.items():
            value = apply(curve)
            if value is not None:
                said[name].append(value)
    medians = {name: statistics.median(values) if values else None for name, values in said.items()}
    own = said[rule]
    refusal = _refuse_rules(medians, own, rule)
    if refusal is not None:
        return Suggestion(None, rule, None, None, medians, refusal)
    spread = own if len(sweeps) > 1 else [value for value in medians.values() if value is not None]
    lowest = _short(statistics.median(begins))
    return Suggestion(_short(medians[rule]), rule, _short(min(spread)), _short(max(spread)), medians, None, lowest)


@np.errstate(over="ignore", invalid="ignore")
def refuse_curve(points: Sequence[Point], stop: Stop) -> Refusal | None:
    """Why a sweep does not support a suggestion; None if it does."""
    finite = [point for point in points if math.isfinite(point.loss)]
    if len(finite) < MIN_POINTS:
        return Refusal(
            f"the sweep has {len(finite)} finite points, but at least {MIN_POINTS} are needed",
            "let it run longer (finder.max_iterations, finder.lr_end), take smaller steps (finder.lr_multiplier closer "
            "to 1), or start lower (finder.lr_start)",
        )
    decades = math.log10(finite[-1].lr / finite[0].lr)
    if decades < 1 and stop in (Stop.UNSTABLE, Stop.NOT_FINITE):
        return Refusal(
            f"the loss became unstable at {finite[-1].lr:.3g}, within a decade of the first learning rate "
            f"{finite[0].lr:.3g}",
            "start at least a hundred times lower (finder.lr_start)",
        )
    curve = fit(points)
    fall = float(curve.smooth[0] - curve.smooth.min())
    needed = max(0.02 * abs(float(curve.smooth[0])), 3 * curve.noise)
    if not (math.isfinite(fall) and math.isfinite(needed) and np.isfinite(curve.slope).all()):
        return Refusal(
            f"the losses reach {max(abs(point.loss) for point in finite):.3g}, and float64 cannot hold their sums",
            "check the loss; if it is correct, stop earlier (finder.lr_end)",
        )
    if fall < needed:
        return Refusal(
            f"the curve is flat: the loss fell by {fall:.3g} from {curve.smooth[0]:.3g}, but {needed:.3g} is needed to "
            f"distinguish it from noise ({curve.noise:.3g} around the smoothed curve)",
            "sweep to higher learning rates (finder.lr_end), use a larger batch, or check that the network learns at "
            "all",
        )
    fastest = int(curve.slope.argmin())
    if stop in (Stop.LAST_LR, Stop.LAST_ITERATION) and curve.log_lr[-1] - curve.log_lr[fastest] < BANDWIDTH:
        return Refusal(
            f"the loss was still falling fastest when the sweep ended at {finite[-1].lr:.3g}",
            "sweep to higher learning rates (finder.lr_end, finder.max_iterations)",
        )
    return None


def _refuse_rules(medians: dict[str, float | None], own: list[float], rule: str) -> Refusal | None:
    if not own:
        return Refusal(
            f"the rule {rule!r} has no answer for this curve: the loss never started to rise",
            "sweep to higher learning rates (finder.lr_end), or choose another finder.rule",
        )
    # the edge is a bound, not an estimate: a network with batch norm stays stable far above a useful rate
    values = [value for name, value in medians.items() if value is not None and name != "edge"]
    if max(values) > MAX_DISAGREEMENT * min(values):
        listing = ", ".join(f"{name} {value:.3g}" for name, value in medians.items() if value is not None)
        return Refusal(
            f"the rules disagree by more than a factor of {MAX_DISAGREEMENT:g}: {listing}",
            "look at the curve; repeat the sweep (finder.repeats), or use a larger batch",
        )
    return None


def _fallen(curve: Curve) -> int:
    """Where the loss leaves its initial level for good: everything before depends on where the sweep started."""
    lowest = int(curve.smooth.argmin())
    top = float(np.median(curve.smooth[: max(3, lowest // 4)]))
    high = np.flatnonzero(curve.smooth[: lowest + 1] > top - 0.05 * (top - curve.smooth[lowest]))
    return int(high[-1]) + 1 if len(high) else 0


def _short(value: float | None) -> float:
    return float(f"{value:.3g}")


def _lr(curve: Curve, index: int) -> float:
    return float(10 ** curve.log_lr[index])
