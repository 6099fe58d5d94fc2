"""The sections of a configuration about the learning rate: base, scaling, warm-up, schedule, and the finder."""

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
    """Length of the warm-up."""
    start: WarmupStart = 0.0
    """The first learning rate: a number, `Nx`, or `unscaled` for the base without the factor."""
    mode: Literal["prefix", "overlap"] = "prefix"
    """`prefix` puts the warm-up in front of the schedule, `overlap` over its beginning."""


class LRConfig(Section):
    """The plan of the learning rate (base, scaling, warm-up, schedule) and of the momentum."""

    base: Base = None
    """The value of `1x` before scaling: a number, `auto` to run the finder, or a finder's `result.json`."""
    reference_batch: Count | None = None
    """The global batch size that the base is meant for; null means one shard."""
    scaling: Literal["linear", "sqrt", "none"] | None = None
    """How the base grows with global batch / reference batch; null means linear wherever `x` is used."""
    warmup: WarmupConfig | None = None
    """A straight line up to the schedule."""
    momentum_correction: bool | None = None
    """Keep momentum buffers consistent with the learning rate; null: on for optimizers that support it."""
    schedule: Spec
    """The schedule: its name with its parameters, which may be schedules themselves."""
    momentum: MomentumSpec | None = None
    """A momentum schedule; null means the optimizer's own momentum."""

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
        """Whether anything in the plan depends on the factor: a multiple does, `unscaled` does not."""
        return self.schedule.uses_x or (self.uses_x and self.warmup is not None and self.warmup.start != "unscaled")

    @model_validator(mode="after")
    def _x_and_base_go_together(self) -> LRConfig:
        problems: list[Problem] = []
        if self.uses_x and self.base is None:
            written = "multiples of the base (Nx)" if self.scales else "the base (warmup.start: unscaled)"
            problems.append(Problem(("base",), f"is missing, but the plan uses {written}; set lr.base"))
        for name in ("base", "reference_batch", "scaling"):
            found = getattr(self, name)
            has_effect = self.uses_x if name == "base" else self.scales
            if found not in (None, "none") and not has_effect:
                problems.append(
                    Problem(
                        (name,),
                        f"{found} has no effect, because plain learning rates are final and never scaled; write them "
                        "as multiples of the base (max_lr: 1x), or remove it",
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
                    f"{self.reference_batch} has no effect with base: {self.base}, because the finder's own "
                    "global batch is the reference; remove it",
                )
            )
        if problems:
            raise RefusedError(problems)
        return self


class FinderConfig(Section):
    """The learning-rate finder: its sweep, when it stops, and its rule for a suggestion."""

    lr_start: Positive = 1e-6
    """The first learning rate of the sweep."""
    lr_end: Positive = 10.0
    """The highest learning rate of the sweep."""
    lr_multiplier: Positive | None = None
    """Factor from one iteration to the next; or give `num_iterations`."""
    num_iterations: Count | None = None
    """Iterations from `lr_start` to `lr_end`."""
    spacing: Literal["exponential", "linear"] = "exponential"
    """Whether learning rates grow by a factor or by an increment."""
    max_iterations: Count = 1000
    """Hard limit on the iterations of a sweep."""
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Weight of the past in the smoothed loss, below 1."""
    min_iter: NotNegative = 20
    """Iterations before the sweep may stop."""
    growth: Annotated[float, Field(gt=1)] = 2.0
    """Stop when the smoothed loss exceeds this many times the first loss."""
    probes: NotNegative | None = None
    """Extra updates at `lr_start` that set the limit of the sweep; null means 8 for a trained network, else 0."""
    repeats: Count = 1
    """Number of sweeps with different samples, which give an interval."""
    rule: Literal["steepest", "valley", "minimum_tenth", "edge"] | None = None
    """The rule for the suggestion; null means `edge`."""
