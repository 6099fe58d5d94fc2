"""The sections of a configuration about averages of the weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.config.sections import Section
from harness.config.values import Length, Period, Positive, Problem, RefusedError
from harness.units import Duration

Statistics = Literal["averaged", "latest", "recomputed"]


class EMAWarmupConfig(Section):
    """A decay that grows, as in timm: `1 - (1 + k / gamma) ** -power` for update k of the average, at most `decay`."""

    gamma: Positive = 1.0
    """Updates of the average by which its decay has grown noticeably."""
    power: Positive = 2 / 3
    """How fast the decay grows: timm has 2/3 for long runs, and 3/4 for shorter ones."""


class AverageConfig(Section):
    """What averages have in common; `every`, `after` and `statistics` have defaults of their own."""

    every: Period
    after: Length
    statistics: Statistics
    over: Period | None = None
    """How much of the training set `recomputed` statistics are of, from its first iteration on; null: an epoch."""
    evaluate: Literal["beside", "instead"] = "beside"
    """Evaluate the average `beside` the weights, as splits of their own (`test_ema`, `test_swa`), or `instead` of
    them."""

    @model_validator(mode="after")
    def _over_has_an_effect(self) -> AverageConfig:
        if self.over is not None and self.statistics != "recomputed":
            message = f"'{self.over}' has no effect with statistics: {self.statistics}; remove it"
            raise RefusedError([Problem(("over",), message)])
        return self


class EMAConfig(AverageConfig):
    """An exponential moving average of weights and running statistics, for evaluation and export."""

    every: Period = Duration.parse("1it")
    """How often to update the average."""
    after: Length = Duration.parse("0it")
    """The part of the run that takes no part in it; until then the weights stand for the average."""
    statistics: Statistics = "averaged"
    """Running statistics: `averaged` as the weights are (timm), the `latest` (PyTorch's AveragedModel), or
    `recomputed` for batch norm before every evaluation."""
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """How much of the average stays in each of its updates."""
    warmup: EMAWarmupConfig | None = None
    """Let the decay grow from 0; null: it is the same from the second update of the average on."""


class SWAConfig(AverageConfig):
    """Stochastic weight averaging: the plain mean of the weights at some moments of the run, all alike."""

    every: Period = Duration.parse("1ep")
    """How often to take the weights into the mean: with cycles, at their ends."""
    after: Length = Duration.parse("75%")
    """The part of the run that takes no part in it; until then the weights stand for the average."""
    statistics: Statistics = "recomputed"
    """Running statistics: `recomputed` for batch norm before every evaluation (PyTorch's update_bn), `averaged` as the
    weights are, or the `latest`."""
