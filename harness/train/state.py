"""The state of a run: what `state` in a checkpoint's manifest holds besides the learner's own numbers.

It is a value: the loop holds the only current one, and every change makes a new one. It knows neither ranks nor files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from harness.checkpoint import NONE_REPLACED, Best, Manifest, Replaced
from harness.plan import Amendment, EarlyStop, Trend, with_amendment
from harness.train.plans import amendments_of, trend_of


@dataclass(frozen=True)
class RunState:
    """How far a run is, and what was decided on the way.

    Attributes:
        iteration: the last update that was done; 0 before the first.
        skipped: updates that were left out because they were not finite.
        amendments: recorded changes of the plan, in the order of their iterations.
        best: the best evaluation so far, by `checkpoint.best`.
        evaluation_due: whether the evaluation after `iteration` was left to the run that resumes.
        weightless: updates that changed nothing because every weight of the loss was 0.
        replaced: damaged samples that others have replaced, up to the last checkpoint or the end of the last epoch.
        plateau: what `lr.plateau` remembers of its evaluations; `None` before the first.
        early_stop: likewise for `train.early_stop`.
    """

    iteration: int = 0
    skipped: int = 0
    amendments: tuple[Amendment, ...] = ()
    best: Best | None = None
    evaluation_due: bool = False
    weightless: int = 0
    replaced: Replaced = NONE_REPLACED
    plateau: Trend | None = None
    early_stop: Trend | None = None

    @classmethod
    def of(cls, manifest: Manifest, path: str) -> RunState:
        """The state that a checkpoint holds.

        Args:
            manifest: of the checkpoint.
            path: of the checkpoint, for messages.

        Raises:
            CheckpointError: if its amendments, or what it remembers of evaluations, are not possible.
        """
        saved = manifest.state
        return cls(
            saved.iteration,
            saved.skipped,
            amendments_of(manifest, path),
            saved.best,
            saved.evaluation_due,
            saved.weightless,
            saved.replaced,
            trend_of(manifest, "plateau", path),
            trend_of(manifest, "early_stop", path),
        )

    def to_json(self) -> dict[str, Any]:
        """As manifests hold it; what is false or 0 in almost every run is left out."""
        return {
            "iteration": self.iteration,
            "amendments": [amendment.to_json() for amendment in self.amendments],
            "best": None if self.best is None else self.best.to_json(),
            **({"evaluation_due": True} if self.evaluation_due else {}),
            **({"skipped": self.skipped} if self.skipped else {}),
            **({"weightless": self.weightless} if self.weightless else {}),
            **({"replaced": self.replaced.to_json()} if self.replaced else {}),
            **({} if self.plateau is None else {"plateau": self.plateau.to_json()}),
            **({} if self.early_stop is None else {"early_stop": self.early_stop.to_json()}),
        }

    def amended(self, amendment: Amendment) -> RunState:
        """The state with one more change of the plan."""
        return replace(self, amendments=with_amendment(self.amendments, amendment))

    @property
    def stops_early(self) -> bool:
        """Whether it was decided to end the run after `iteration`."""
        return any(isinstance(one, EarlyStop) and one.iteration == self.iteration for one in self.amendments)

    def judged(self, metric: str, value: float, direction: str | None) -> RunState:
        """The state with an evaluation of `checkpoint.best`; a value that is not better, or NaN, changes nothing.

        Args:
            metric: split and name, such as `test.accuracy`.
            value: of the metric after `iteration`.
            direction: `highest` or `lowest`, whichever is best.
        """
        sign = 1.0 if direction == "highest" else -1.0
        is_number = value == value
        if is_number and (self.best is None or sign * value > sign * self.best.value):
            return replace(self, best=Best(self.iteration, metric, value))
        return self

    def judged_by(self, name: str | None) -> RunState:
        """The state without a best evaluation by any other metric than `name`: their values cannot be compared."""
        is_other = self.best is not None and self.best.metric.partition(".")[2] != name
        return replace(self, best=None) if is_other else self


def is_due(t: int, every: int | None, total: int | None = None) -> bool:
    """Whether something is due after update `t`.

    Args:
        t: the iteration, from 1.
        every: in iterations; `None` for never.
        total: the last iteration, for what is due after that one in any case.
    """
    return t == total or (every is not None and t % every == 0)
