"""The section of a configuration about the average of the weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from harness.config.sections import Section
from harness.config.values import Length, Period, Positive
from harness.units import Duration


class EMAWarmupConfig(Section):
    """A decay that grows, as in timm: `1 - (1 + k / gamma) ** -power` for update k of the average, at most `decay`."""

    gamma: Positive = 1.0
    """Updates of the average by which its decay has grown noticeably."""
    power: Positive = 2 / 3
    """How fast the decay grows: timm has 2/3 for long runs, and 3/4 for shorter ones."""


class EMAConfig(Section):
    """An exponential moving average of weights and running statistics, for evaluation and export."""

    decay: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """How much of the average stays in each of its updates."""
    warmup: EMAWarmupConfig | None = None
    """Let the decay grow from 0; null: it is the same from the second update of the average on."""
    every: Period = Duration.parse("1it")
    """How often to update the average."""
    after: Length = Duration.parse("0it")
    """The part of the run that takes no part in it; until then the weights stand for the average."""
    statistics: Literal["averaged", "latest"] = "averaged"
    """Running statistics: `averaged` as the weights are (timm), or the `latest` (PyTorch's AveragedModel)."""
    evaluate: Literal["beside", "instead"] = "beside"
    """Evaluate the average `beside` the weights, as splits of their own (`test_ema`), or `instead` of them."""
