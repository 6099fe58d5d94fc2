"""Where configuration meets sizes: how many iterations there are, and the learning rate and momentum of each.

`LRPlan` is the one place in which schedule, scaling, warm-up and amendments come together, as one composed schedule.
Every rank builds the plan from the same numbers, so no learning rate is ever sent. That the plans are equal is not
taken for granted: ranks compare fingerprints before the first update, and checkpoints keep the fingerprint, the
configuration and every later change of the plan.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from harness.config import LRConfig, Problem, config_error
from harness.plan.checks import impure, lr_out_of_bounds, momentum_out_of_bounds
from harness.plan.composing import Composition, compose, problems_of
from harness.plan.scaling import Scaling
from harness.plan.sizes import Sizes
from harness.schedules import ScaledAfter, Schedule, ScheduleLike, Spliced, breakpoints_of
from harness.schedules.base import values_of

MAX_CSV_ROWS = 10_000
_MOST_CUTS = 10  # in words
_PIECE = 1 << 15  # iterations that are evaluated at a time, so that they stay in the cache


class Cut(NamedTuple):
    """Learning rates that are lower after an iteration than the plan before had them.

    Attributes:
        last: the last iteration whose rate stays.
        factor: on every rate after it, above 0.
        floor: below which no rate falls by it, at least 0.
    """

    last: int
    factor: float
    floor: float = 0.0

    def __call__(self, lr: float) -> float:
        """What becomes of a learning rate."""
        return max(self.factor * lr, min(self.floor, lr))

    def __str__(self) -> str:
        """In words.

        >>> str(Cut(30, 0.5, 0.01))
        'x 0.5 (at least 0.01) after iteration 30'
        """
        return describe_cuts([self])[0]


def describe_cuts(cuts: Sequence[Cut]) -> list[str]:
    """Cuts in words; those by the same factor that follow each other together.

    >>> describe_cuts([Cut(20, 0.5), Cut(30, 0.1, 0.01), Cut(40, 0.1, 0.01)])
    ['x 0.5 after iteration 20', 'x 0.1 (at least 0.01) after iterations 30, 40']
    """
    lines = []
    for (factor, floor), group in groupby(cuts[:_MOST_CUTS], lambda cut: cut[1:]):
        lasts = [str(cut.last) for cut in group]
        least = f" (at least {floor:g})" if floor else ""
        lines.append(f"x {factor:g}{least} after iteration{'s' if lasts[1:] else ''} {', '.join(lasts)}")
    left = len(cuts) - _MOST_CUTS
    return [*lines, f"and {left} more"] if left > 0 else lines


class LRPlan:
    """Learning rate and momentum of every iteration of a run; a pure function of the iteration.

    Attributes:
        config: the section `lr`.
        sizes: of the run.
        scaling: what `1x` is.
        schedule: the learning rate of every iteration, warmed up and amended.
        momentum_schedule: the momentum of every iteration, NaN where the optimizer's own number holds; `None` where it
            holds throughout.
        own_values: what each schedule of the user's own gave for the iterations that the plan asked it for, by name.
    """

    def __init__(
        self,
        config: LRConfig,
        sizes: Sizes,
        source: str = "config",
        earlier: Sequence[tuple[int, LRPlan]] = (),
        cuts: Sequence[Cut] = (),
    ) -> None:
        """Build the plan.

        Args:
            config: the section `lr`; with `base: auto` the plan is in units of the base that is still to be found.
            sizes: the run's sizes.
            source: the configuration's file, for messages.
            earlier: for a run whose plan was replaced on the way: plans that held up to an iteration, in order.
            cuts: for a run that was rewound, or came to a plateau, in order.

        Raises:
            ConfigError: if the schedule or the warm-up does not fit the run, or a value breaks a bound.
        """
        self.config = config
        self.sizes = sizes
        self.scaling = Scaling(config, sizes)
        self.own_values: dict[str, dict[int, float]] = {}
        self._cuts = tuple(cuts)
        self._amended_at = [*(last for last, _ in earlier), *(cut.last for cut in cuts)]
        problems: list[Problem] = []
        composition = compose(self.scaling, problems)
        if composition is None:
            raise config_error(source, problems)
        self._amend(composition, earlier)
        self._check(composition, max((last for last, _ in earlier), default=0), problems)
        if problems:
            raise config_error(source, problems)

    @property
    def in_units_of_base(self) -> bool:
        """Whether all learning rates are multiples of a base that is still to be found."""
        return self.scaling.in_units_of_base

    @property
    def factor(self) -> float:
        """What the base is multiplied by for the global batch."""
        return self.scaling.factor

    @property
    def peak(self) -> float:
        """What `1x` is."""
        return self.scaling.peak

    def lr(self, t: int) -> float:
        """The learning rate that update `t` applies; `t = 0` is the value before training."""
        return float(self.schedule(t))

    def lrs(self, t: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """`lr(t)` of many iterations at once, `(n,)`, with the very same bits."""
        values = np.empty(t.shape)
        for begin in range(0, t.size, _PIECE):
            values[begin : begin + _PIECE] = values_of(self.schedule, t[begin : begin + _PIECE])
        return values

    def momentum(self, t: int) -> float | None:
        """The momentum of update `t`, or `None` where the optimizer's own number holds."""
        if self.momentum_schedule is None:
            return None
        value = float(self.momentum_schedule(t))
        return None if math.isnan(value) else value

    def momenta(self, t: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """`momentum(t)` of many iterations at once, `(n,)`, with NaN for `None`."""
        return np.full(t.shape, np.nan) if self.momentum_schedule is None else values_of(self.momentum_schedule, t)

    def breakpoints(self) -> list[int]:
        """The iterations at which a formula changes, with the run's first and last, in order.

        Of an amendment both the last iteration before and the first after it are listed. The breakpoints of a schedule
        that has too many of them (`harness.plan.composing.MAX_BREAKPOINTS`) are left out.
        """
        total = self.sizes.num_iterations
        points = {1, total, *self._amended_at, *breakpoints_of(self.schedule, total)}
        if self.momentum_schedule is not None:
            points.update(breakpoints_of(self.momentum_schedule, total))
        return sorted(p for p in points if 1 <= p <= total)

    def describe(self) -> str:
        """The plan's scaling in words, such as `0.1 at batch 64 x 8 shards (linear) = 0.8`, and its cuts."""
        return ", ".join([self.scaling.describe(), *describe_cuts(self._cuts)])

    def fingerprint(self) -> str:
        """sha256 over the sizes and the values of `rows()`: equal plans, equal fingerprints."""
        values = [[t, self.lr(t), self.momentum(t)] for t in self.rows()]
        return hashlib.sha256(json.dumps([self.sizes.to_json(), values]).encode()).hexdigest()

    def rows(self) -> Iterator[int]:
        """The iterations worth a line: every one, or breakpoints and an even spread when there are too many."""
        total = self.sizes.num_iterations
        points = self.breakpoints()
        if total > MAX_CSV_ROWS:
            kept = points if len(points) <= MAX_CSV_ROWS // 2 else [1, total]
            spread = MAX_CSV_ROWS - len(kept)
            yield from sorted({*kept, *(1 + i * (total - 1) // (spread - 1) for i in range(spread))})
        else:
            yield from range(1, total + 1)

    def remarks(self) -> list[str]:
        """What is allowed and may still be a slip, a sentence each."""
        total = self.sizes.num_iterations
        if total > 1 and self.lr(total) > 2 * self.lr(total - 1):
            return [
                f"the last update, {total}, starts a new cycle: its learning rate is {self.lr(total):.4g}, after "
                f"{self.lr(total - 1):.4g}"
            ]
        return []

    def to_csv(self, momentum: float | None = None) -> str:
        """The plan as a table: iteration, epoch, lr, momentum.

        Args:
            momentum: the optimizer's own, for a plan without a momentum schedule.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["iteration", "epoch", "lr", "momentum"])
        for t in self.rows():
            planned = self.momentum(t)
            shown = momentum if planned is None else planned
            writer.writerow([t, self.sizes.epoch(t), repr(self.lr(t)), "" if shown is None else repr(shown)])
        return text.getvalue()

    def _amend(self, composition: Composition, earlier: Sequence[tuple[int, LRPlan]]) -> None:
        """Cut the rates, then put earlier plans, which have their own cuts, in front."""
        self.schedule: ScheduleLike = composition.lr
        self.momentum_schedule: ScheduleLike | None = composition.momentum
        for last, factor, floor in self._cuts:
            self.schedule = ScaledAfter(self.schedule, factor, last, floor)
        unplanned = _OptimizersOwn()
        for last, plan in reversed(earlier):
            self.schedule = Spliced(plan.schedule, self.schedule, last)
            before, after = plan.momentum_schedule, self.momentum_schedule
            if before is not None or after is not None:
                self.momentum_schedule = Spliced(
                    unplanned if before is None else before, unplanned if after is None else after, last
                )

    def _check(self, composition: Composition, after: int, problems: list[Problem]) -> None:
        """Find values that break a bound, and schedules that are not pure.

        Between two breakpoints every schedule rises or falls throughout, so its extremes lie beside them; the rows are
        looked at as well, for schedules that know no breakpoints. The momentum up to `after` is that of an earlier plan
        and was checked with it.
        """
        total, momentum, peak = self.sizes.num_iterations, composition.momentum, self.peak
        iterations: list[int] = []
        with problems_of("schedule", peak, problems):
            beside = {t for b in self.breakpoints() for t in (b - 1, b, b + 1) if 1 <= t <= total}
            iterations = sorted(beside | set(self.rows()))
            problems += lr_out_of_bounds(self.lr, iterations)
        if momentum is not None:
            with problems_of("momentum", peak, problems):
                problems += momentum_out_of_bounds(momentum, (t for t in iterations if t > after))
        if problems:
            return
        for key, schedule in (("schedule", composition.written), ("momentum", momentum)):
            if schedule is not None:
                with problems_of(key, peak, problems):
                    problems += impure(key, schedule, self.own_values)


@dataclass(frozen=True)
class _OptimizersOwn(Schedule):
    """NaN, for the part of a run in which no momentum is planned."""

    def __call__(self, t: int) -> float:
        """NaN."""
        return math.nan

    @override
    def values(self, t: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        return np.full(t.shape, math.nan)
