"""What a row of evaluations decides: when learning rates are lowered, and when a run ends early. Pure.

The rules are those of PyTorch's `torch.optim.lr_scheduler.ReduceLROnPlateau` and of Keras'
`keras.callbacks.EarlyStopping`, which decide the same from the same values (`tests/plan/test_trends.py`), with one
exception: a NaN is never the best value, not even the first, which Keras 3 would compare all others with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from harness.folder import Fields

LEAST_CUT = 1e-8  # by less no rate is lowered, as in PyTorch


@dataclass(frozen=True)
class Trend:
    """What is remembered of a value from one evaluation to the next; checkpoints keep it.

    Attributes:
        monitor: split and name, such as `test.loss`.
        best: the best value so far; `None` before the first that is a number.
        best_at: the iteration of that value; 0 if there is none.
        since: how many evaluations in a row were no improvement.
        cooldown: for how many more evaluations nothing is counted.
    """

    monitor: str
    best: float | None = None
    best_at: int = 0
    since: int = 0
    cooldown: int = 0

    @classmethod
    def read(cls, fields: Fields, iteration: int) -> Trend:
        """From a checkpoint of this iteration.

        Raises:
            RecordError: naming the field that is missing, of another kind or impossible.
        """
        best = fields.value("best")
        if best is not None and not (isinstance(best, float) and math.isinf(best)):
            best = fields.number("best")
        return cls(
            fields.text("monitor"),
            best,
            fields.whole("best_at", 0 if best is None else 1, 0 if best is None else iteration),
            fields.whole("since"),
            fields.whole("cooldown"),
        )

    def to_json(self) -> dict[str, Any]:
        """As manifests hold it."""
        return dict(vars(self))

    def improved(self, value: float, t: int) -> Trend:
        """With a new best value, after iteration `t`."""
        return replace(self, best=value, best_at=t, since=0)

    def stayed(self) -> Trend:
        """With one more evaluation that was no improvement."""
        return replace(self, since=self.since + 1)


@dataclass(frozen=True)
class PlateauRule:
    """Lowers the rate once more than `patience` evaluations in a row were no improvement.

    Attributes:
        direction: which value is the best one, `highest` or `lowest`.
        patience: evaluations without improvement that are put up with.
        threshold: by how much a value must be better than the best one, at least 0.
        is_relative: whether the threshold is a fraction of the best value; then below 1.
        cooldown: evaluations after a cut that do not count.

    >>> rule, trend, cuts = PlateauRule("lowest", patience=1), Trend("test.loss"), []
    >>> for t, value in enumerate([3.0, 2.0, 2.0, 2.5, 1.9], start=1):
    ...     trend, is_cut = rule.judge(trend, value, t)
    ...     cuts.append(is_cut)
    >>> cuts
    [False, False, False, True, False]
    """

    direction: str
    patience: int = 10
    threshold: float = 1e-4
    is_relative: bool = True
    cooldown: int = 0

    def judge(self, trend: Trend, value: float, t: int) -> tuple[Trend, bool]:
        """What is remembered after one more evaluation, after iteration `t`, and whether the rate is to be lowered."""
        trend = trend.improved(value, t) if self._improves(value, trend.best) else trend.stayed()
        if trend.cooldown:
            trend = replace(trend, cooldown=trend.cooldown - 1, since=0)
        return trend, trend.since > self.patience

    def after_cut(self, trend: Trend) -> Trend:
        """What is remembered after the rate was lowered."""
        return replace(trend, since=0, cooldown=self.cooldown)

    def _improves(self, value: float, best: float | None) -> bool:
        sign = 1.0 if self.direction == "highest" else -1.0
        if best is None:
            return sign * value > -math.inf
        bound = best * (1 + sign * self.threshold) if self.is_relative else best + sign * self.threshold
        return sign * value > sign * bound


@dataclass(frozen=True)
class StopRule:
    """Ends a run once `patience` evaluations in a row were no improvement.

    Attributes:
        direction: which value is the best one, `highest` or `lowest`.
        patience: of evaluations, at least 1.
        min_delta: by how much a value must be better than the best one, at least 0.

    >>> rule, trend, stops = StopRule("highest", patience=2), Trend("test.accuracy"), []
    >>> for t, value in enumerate([0.5, 0.6, 0.6, 0.4], start=1):
    ...     trend, is_stop = rule.judge(trend, value, t)
    ...     stops.append(is_stop)
    >>> stops
    [False, False, False, True]
    """

    direction: str
    patience: int
    min_delta: float = 0.0

    def judge(self, trend: Trend, value: float, t: int) -> tuple[Trend, bool]:
        """What is remembered after one more evaluation, after iteration `t`, and whether the run ends with it."""
        trend = trend.improved(value, t) if self._improves(value, trend.best) else trend.stayed()
        return trend, self.holds(trend)

    def holds(self, trend: Trend) -> bool:
        """Whether a run with this memory ends."""
        return trend.since >= self.patience

    def _improves(self, value: float, best: float | None) -> bool:
        if best is None:
            return not math.isnan(value)
        return value - self.min_delta > best if self.direction == "highest" else value + self.min_delta < best
