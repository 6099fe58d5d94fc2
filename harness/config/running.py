"""The sections of a configuration that say how a run is kept: logging, sets, and what is done when something fails."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.config.sections import Section
from harness.config.values import Count, Interval, Name, Period, Problem, RefusedError, Seconds
from harness.units import Duration


class LogConfig(Section):
    """How often a line is written to metrics.jsonl."""

    every: Period = Duration.parse("10it")
    """How often a line is written to `metrics.jsonl`."""
    tensorboard: bool = True
    """Whether the same numbers are written as event files for TensorBoard."""


class CheckpointConfig(Section):
    """When a set is written (always at the end as well), how many stay, and what a failed write means."""

    every: Interval | None = Duration.parse("1ep")
    """How often a set is written: `1ep`, `500it`, or by rank 0's clock `10min`; null means at the end alone."""
    keep: Count = 3
    """How many sets stay."""
    best: Name | None = None
    """A metric, or `loss`, whose best set stays as well."""
    best_is: Literal["highest", "lowest"] | None = None
    """Which value of a metric of your own is the best."""
    on_failure: Literal["stop", "continue"] = "stop"
    """Whether a set that cannot be written ends the run."""

    @model_validator(mode="after")
    def _nothing_is_idle(self) -> CheckpointConfig:
        if self.best_is is not None and self.best is None:
            raise RefusedError([Problem(("best_is",), "has no effect without checkpoint.best; name the metric")])
        return self


class DivergenceConfig(Section):
    """What a loss or gradient that is not finite means: stop, leave the update out, or go back to the last set."""

    policy: Literal["stop", "skip", "rewind"] = "stop"
    """`stop` the run, `skip` the update, or `rewind` to the last set with a lower learning rate."""
    at_most: Count | None = None
    """How often in the whole run; null means 10 skips or 2 rewinds."""
    lr_factor: Annotated[float, Field(gt=0, lt=1)] | None = None
    """What a rewind multiplies the learning rate by; null means 0.5."""

    @model_validator(mode="after")
    def _nothing_is_idle(self) -> DivergenceConfig:
        problems = []
        if self.at_most is not None and self.policy == "stop":
            problems.append(Problem(("at_most",), "has no effect with policy: stop; choose skip or rewind"))
        if self.lr_factor is not None and self.policy != "rewind":
            problems.append(Problem(("lr_factor",), f"has no effect with policy: {self.policy}; it is for rewind"))
        if problems:
            raise RefusedError(problems)
        return self

    @property
    def limit(self) -> int:
        """How often at most, in the whole run."""
        return self.at_most or {"stop": 0, "skip": 10, "rewind": 2}[self.policy]

    @property
    def cut(self) -> float:
        """What a rewind multiplies the learning rate by."""
        return self.lr_factor or 0.5


class GuardConfig(Section):
    """How often ranks prove that they agree, when a silent job counts as stalled, and what divergence means."""

    verify_every: Period = Duration.parse("500it")
    """How often ranks compare checksums of their whole state."""
    stall_after_start_s: Seconds = 600.0
    """Seconds in which all ranks have to come together; `stall_after_first_s` where that is less, but at least 10."""
    stall_after_s: Seconds = 300.0
    """Seconds without an update after which a job counts as stalled."""
    stall_after_first_s: Seconds = 1800.0
    """The same before the first update."""
    stall_after_evaluation_s: Seconds = 1800.0
    """The same in an evaluation."""
    divergence: DivergenceConfig = DivergenceConfig()
    """What a loss or gradient that is not finite means."""
