"""The sections of a configuration about operation: logging, checkpoints, and what to do when something fails."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.config.sections import Section
from harness.config.values import Count, Interval, Name, Period, Problem, RefusedError, Seconds
from harness.units import Duration


class LogConfig(Section):
    """What to log, and how often."""

    every: Period = Duration.parse("10it")
    """How often to write a line to `metrics.jsonl`."""
    tensorboard: bool = True
    """Write the same numbers as TensorBoard event files."""


class CheckpointConfig(Section):
    """When to write a checkpoint (always at the end as well), how many to keep, and what a failed write means."""

    every: Interval | None = Duration.parse("1ep")
    """How often to write a checkpoint: `1ep`, `500it`, or by rank 0's clock `10min`; null means only at the end."""
    keep: Count = 3
    """How many checkpoints to keep."""
    best: Name | None = None
    """A metric, or `loss`, whose best checkpoint is kept as well."""
    best_is: Literal["highest", "lowest"] | None = None
    """For your own metric: which value is the best."""
    on_failure: Literal["stop", "continue"] = "stop"
    """When a checkpoint cannot be written: `stop` the run, or `continue` without it."""

    @model_validator(mode="after")
    def _nothing_is_idle(self) -> CheckpointConfig:
        if self.best_is is not None and self.best is None:
            raise RefusedError([Problem(("best_is",), "has no effect without checkpoint.best; name the metric")])
        return self


class DivergenceConfig(Section):
    """What to do about a non-finite loss or gradient: stop, skip the update, or rewind to the last checkpoint."""

    policy: Literal["stop", "skip", "rewind"] = "stop"
    """`stop` the run, `skip` the update, or `rewind` to the last checkpoint with a lower learning rate."""
    at_most: Count | None = None
    """Limit for the whole run; null means 10 skips or 2 rewinds."""
    lr_factor: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Factor on the learning rate at each rewind; null means 0.5."""

    @model_validator(mode="after")
    def _nothing_is_idle(self) -> DivergenceConfig:
        problems = []
        if self.at_most is not None and self.policy == "stop":
            problems.append(Problem(("at_most",), "has no effect with policy: stop; choose skip or rewind"))
        if self.lr_factor is not None and self.policy != "rewind":
            problems.append(Problem(("lr_factor",), f"has no effect with policy: {self.policy}; it applies to rewind"))
        if problems:
            raise RefusedError(problems)
        return self

    @property
    def limit(self) -> int:
        """The limit for the whole run."""
        return self.at_most or {"stop": 0, "skip": 10, "rewind": 2}[self.policy]

    @property
    def cut(self) -> float:
        """The factor on the learning rate at each rewind."""
        return self.lr_factor or 0.5


class ElasticConfig(Section):
    """What a job does whose workers come and go (`horovodrun --host-discovery-script`)."""

    wait_s: Seconds = 600.0
    """Seconds with fewer workers than `--min-np` of `horovodrun` after which the run is saved and ends with 75."""


class GuardConfig(Section):
    """How often ranks verify that they agree, when a silent job counts as stalled, and what divergence means."""

    verify_every: Period = Duration.parse("500it")
    """How often ranks compare checksums of their complete state."""
    stall_after_start_s: Seconds = 600.0
    """Seconds in which all ranks must meet; `stall_after_first_s` if that is less, but at least 10."""
    stall_after_s: Seconds = 300.0
    """Seconds without an update after which a job counts as stalled."""
    stall_after_first_s: Seconds = 1800.0
    """The same limit before the first update."""
    stall_after_evaluation_s: Seconds = 1800.0
    """The same limit during an evaluation."""
    divergence: DivergenceConfig = DivergenceConfig()
    """What to do about a non-finite loss or gradient."""
