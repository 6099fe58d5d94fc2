"""The sections of a configuration that say how fast: base, scaling, warm-up, schedule, and the finder."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.config.sections import Section
from harness.config.values import (
    Base,
    Count,
    MomentumSpec,
    NotNegative,
    Positive,
    Problem,
    RefusedError,
    Spec,
    WarmupLength,
    WarmupStart,
)


class WarmupConfig(Section):
    """A straight line up to the schedule (Goyal et al. 2017, arXiv 1706.02677)."""

    length: WarmupLength
    """How long the line is."""
    start: WarmupStart = 0.0
    """Where it begins: a number, `Nx`, or `unscaled` for the base without the factor."""
    mode: Literal["prefix", "overlap"] = "prefix"
    """`prefix` puts the line in front of the schedule, `overlap` over its beginning."""


class LRConfig(Section):
    """The learning rate's plan: base, scaling, warm-up, schedule; and the momentum's."""

    base: Base = None
    """What `1x` is before scaling: a number, `auto` to run the finder, or a finder's `result.json`."""
    reference_batch: Count | None = None
    """The global batch that the base is meant for; null means one shard."""
    scaling: Literal["linear", "sqrt", "none"] | None = None
    """How the base grows with global batch / reference batch; null means linear where anything is written in `x`."""
    warmup: WarmupConfig | None = None
    """A straight line up to the schedule."""
    momentum_correction: bool | None = None
    """Whether momentum buffers follow the learning rate; null: on for optimizers that support it."""
    schedule: Spec
    """The learning rate of every iteration: one schedule's name with its parameters, which may hold schedules."""
    momentum: MomentumSpec | None = None
    """A schedule of the momentum; null means the optimizer's own number."""

    @property
    def is_found(self) -> bool:
        """Whether the base comes from a finder: `auto`, or the path of its result."""
        return isinstance(self.base, str)

    @property
    def uses_x(self) -> bool:
        """Whether anything in the plan is a multiple of the scaled base."""
        start = self.warmup.start if self.warmup else 0.0
        return self.schedule.uses_x or isinstance(start, str)

    @property
    def scales(self) -> bool:
        """Whether anything in the plan follows the factor: a multiple does, `unscaled` does not."""
        return self.schedule.uses_x or (self.uses_x and self.warmup is not None and self.warmup.start != "unscaled")

    @model_validator(mode="after")
    def _x_and_base_go_together(self) -> LRConfig:
        problems: list[Problem] = []
        if self.uses_x and self.base is None:
            written = "multiples of the base (Nx)" if self.scales else "the base (warmup.start: unscaled)"
            problems.append(Problem(("base",), f"is missing, and the plan is written in {written}; give lr.base"))
        for name in ("base", "reference_batch", "scaling"):
            found = getattr(self, name)
            has_effect = self.uses_x if name == "base" else self.scales
            if found not in (None, "none") and not has_effect:
                problems.append(
                    Problem(
                        (name,),
                        f"{found} has no effect: plain learning rates are final and never scaled; write them as "
                        "multiples of the base (max_lr: 1x), or remove it",
                    )
                )
        if self.scales and self.reference_batch is not None and self.scaling == "none":
            problems.append(
                Problem(("reference_batch",), f"{self.reference_batch} has no effect with scaling: none; remove one")
            )
        if self.scales and self.reference_batch is not None and self.is_found:
            problems.append(
                Problem(
                    ("reference_batch",),
                    f"{self.reference_batch} has no effect with base: {self.base}, the finder's own global batch is "
                    "the reference; remove it",
                )
            )
        if problems:
            raise RefusedError(problems)
        return self


class FinderConfig(Section):
    """The learning-rate finder: its sweep, when it stops, and the rule that it answers by."""

    lr_start: Positive = 1e-6
    """Where the sweep begins."""
    lr_end: Positive = 10.0
    """Where it ends at the latest."""
    lr_multiplier: Positive | None = None
    """From one iteration to the next; or give `num_iterations`."""
    num_iterations: Count | None = None
    """Iterations from `lr_start` to `lr_end`."""
    spacing: Literal["exponential", "linear"] = "exponential"
    """Whether learning rates grow by a factor or by a step."""
    max_iterations: Count = 1000
    """Hard limit on the iterations of a sweep."""
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Weight of the past in the smoothed loss, below 1."""
    min_iter: NotNegative = 20
    """Iterations before it may stop."""
    growth: Annotated[float, Field(gt=1)] = 2.0
    """It stops where the smoothed loss is this many times the smallest."""
    probes: NotNegative | None = None
    """Extra updates at `lr_start` before the sweep, for its limit; null means 8 in a trained network, else 0."""
    repeats: Count = 1
    """Sweeps with other samples, from which an interval is made."""
    rule: Literal["steepest", "valley", "minimum_tenth", "edge"] | None = None
    """The rule that answers; null means `edge`."""
