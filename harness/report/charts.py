"""Curves for a page: numbers in, coordinates out. Pure; the style sheet determines their look.

A curve lies in a view box of its own, which is stretched to the width that there is; everything else is placed in
percent. So letters, lines and spots are equally large at 400 and at 1400 px.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

SPAN = 1000  # the view box of a curve is so wide and so high
MOST_POINTS = 1000
_MOST_TICKS = 5
_LEAST, _MOST = 1e-300, 1e300  # of what an axis shows: beyond, floats have no room for its ends
_LOG_FROM = 30  # the highest value as a multiple of the lowest from which an axis is logarithmic


class Scale(NamedTuple):
    """The position of values on an axis.

    Attributes:
        low: the axis's first value.
        high: its last, which is above `low`.
        is_log: whether it is logarithmic; then both are above 0.
        is_whole: whether it has no labels between whole numbers.
    """

    low: float
    high: float
    is_log: bool = False
    is_whole: bool = False

    def parts(self, values: Numbers) -> Numbers:
        """0 for `low`, 1 for `high`; not finite where there is no logarithm."""
        with np.errstate(all="ignore"):
            if not self.is_log:
                return (values - self.low) / (self.high - self.low)
            logs: Numbers = np.log(values) - math.log(self.low)
        return logs / (math.log(self.high) - math.log(self.low))

    def percent(self, value: float) -> float:
        """The position of one value in percent, limited to two axis lengths.

        >>> Scale(1, 100, is_log=True).percent(10)
        50.0
        """
        return round(100 * float(np.clip(self.parts(np.array([value])), -1, 2)[0]), 2)

    def ticks(self) -> list[tuple[float, str]]:
        """About five round values, each with its label.

        >>> [label for _, label in Scale(0, 330).ticks()]
        ['0', '100', '200', '300']
        """
        values = self._decades() if self.is_log else self._steps()
        return [(value, label_of(value, self.is_whole)) for value in values]

    def _steps(self) -> list[float]:
        least = (self.high - self.low) / _MOST_TICKS
        power = 10.0 ** math.floor(math.log10(least))
        step = next(factor * power for factor in (1, 2, 5, 10, 20) if factor * power >= least)
        step = max(step, 1.0) if self.is_whole else step
        return [k * step for k in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]

    def _decades(self) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        factors = (1, 2, 5) if self.high < 200 * self.low else (1,)
        every = max(1, math.ceil((last - first) / _MOST_TICKS))
        values = [factor * 10.0**power for power in range(first, last + 1, every) for factor in factors]
        return [value for value in values if self.low <= value <= self.high]


def label_of(value: float, is_whole: bool = False) -> str:
    """A number on an axis.

    >>> label_of(0.00001), label_of(250_000, is_whole=True)
    ('1e-5', '250k')
    """
    if is_whole:
        for size, unit in ((1_000_000, "M"), (1_000, "k")):
            if value >= 10 * size or (value >= size and value % size == 0):
                return f"{value / size:g}{unit}"
    return f"{value:.6g}".replace("e-0", "e-").replace("e+0", "e")


def scale_for(values: Sequence[Numbers], *, from_zero: bool = False) -> Scale:
    """An axis that includes every value below 1e300; logarithmic if values are positive and far apart.

    Args:
        values: of all curves.
        from_zero: whether the axis is linear and begins at 0.
    """
    finite = np.concatenate([np.zeros(0), *values])
    finite = finite[np.abs(finite) < _MOST]  # neither NaN nor infinity is
    if not finite.size:
        return Scale(0.0, 1.0)
    low, high = float(finite.min()), float(finite.max())
    if high - low <= 1e-12 * abs(high) or max(-low, high) < _LEAST:  # there is nothing between that floats could tell
        room = 0.06 * abs(high) if abs(high) > _LEAST else 1.0
        return Scale(min(low, 0.0) if from_zero else low - room, high + room)
    if low > _LEAST and high > _LOG_FROM * low and not from_zero:
        return Scale(low / 1.2, high * 1.2, is_log=True)
    low = min(low, 0.0) if from_zero else low
    room = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    return Scale(low if from_zero else low - room, high + room)


def thin(x: Numbers, y: Numbers, most: int = MOST_POINTS) -> tuple[Numbers, Numbers]:
    """A limited number of points that look like all of them: the lowest and highest of each stretch, first and last.

    Values that are not finite are kept where a whole stretch has no other.
    """
    if x.size <= most:
        return x, y
    kept = {0, x.size - 1}
    edges = np.linspace(0, x.size, most // 2).astype(int)
    for begin, end in pairwise(edges.tolist()):
        stretch = y[begin:end]
        finite = np.flatnonzero(np.isfinite(stretch))
        if finite.size:
            kept |= {begin + int(finite[pick(stretch[finite])]) for pick in (np.argmin, np.argmax)}
        else:
            kept.add(begin)
    chosen = sorted(kept)
    return x[chosen], y[chosen]


class Series(NamedTuple):
    """One curve.

    Attributes:
        label: its name.
        x: where its points are, in order, `(n,)`.
        y: how high, `(n,)`; the curve has a gap where this is not finite.
        colour: number of its colour.
        look: a class of the style sheet: `line`, `thin`, `planned`; `marked`, with a dot on every point; `dots` alone.
    """

    label: str
    x: Numbers
    y: Numbers
    colour: int = 0
    look: str = "line"


class Stretch(NamedTuple):
    """A part of the x axis, marked over the full height; a line if it has no width.

    Attributes:
        first: where it begins.
        last: where it ends.
        look: classes of the style sheet.
        said: what it is, shown when the pointer rests on it.
        label: shown above it.
    """

    first: float
    last: float
    look: str
    said: str
    label: str = ""


class Spot(NamedTuple):
    """One marked point.

    Attributes:
        x: where it is.
        y: how high.
        shape: `circle`, `square`, `diamond`, `triangle`.
        look: a class of the style sheet.
        said: what it is.
    """

    x: float
    y: float
    shape: str
    look: str
    said: str


@dataclass(frozen=True)
class Chart:
    """Curves in one frame.

    Attributes:
        title: what its y axis is.
        x: scale of the x axis.
        y: scale of the y axis.
        series: the curves.
        stretches: marked parts of the x axis.
        spots: marked points.
        x_title: what the x axis is; empty for a chart above another one, whose labels it shares.
        height: in px.
    """

    title: str
    x: Scale
    y: Scale
    series: Sequence[Series]
    stretches: Sequence[Stretch] = ()
    spots: Sequence[Spot] = ()
    x_title: str = ""
    height: int = 150

    def legend(self) -> list[Series]:
        """One curve for each name; none if there is only one."""
        named = list({one.label: one for one in self.series}.values())
        return named if len(named) > 1 else []

    def line(self, series: Series) -> str:
        """The `d` of a curve's line; an isolated point is a zero-length line, which round ends turn into a dot."""
        strokes: list[list[str]] = [[]]
        for place in self._places(series):
            if place:
                strokes[-1].append(place)
            elif strokes[-1]:
                strokes.append([])
        return "".join(f"M{'L'.join(stroke)}{'' if stroke[1:] else 'h0'}" for stroke in strokes if stroke)

    def dots(self, series: Series) -> str:
        """The `d` of a curve's points."""
        return "".join(f"M{place}h0" for place in self._places(series) if place)

    def _places(self, series: Series) -> list[str]:
        """Coordinates in the view box; empty for a point without any."""
        x, y = thin(series.x, series.y)
        with np.errstate(over="ignore"):
            right, down = SPAN * self.x.parts(x), SPAN * (1 - self.y.parts(y))
        known = np.isfinite(right) & np.isfinite(down)
        near = np.clip(down, -SPAN, 2 * SPAN)  # what is cut off need not be drawn at its height
        rows = zip(right.tolist(), near.tolist(), known.tolist(), strict=True)
        return [f"{across:.1f},{below:.1f}" if is_known else "" for across, below, is_known in rows]


def above_each_other(charts: Sequence[Chart], x_title: str) -> list[Chart]:
    """The charts that have a curve; the lowest one labels the shared axis."""
    drawn = [chart for chart in charts if chart.series]
    return [*drawn[:-1], *(replace(chart, x_title=x_title) for chart in drawn[-1:])]
