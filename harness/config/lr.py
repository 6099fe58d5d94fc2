"""The sections of a configuration about the learning rate: base, scaling, warm-up, schedule, and the finder."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from harness.config.sections import Section
from harness.config.values import (
    Base,
    Count,
    Factor,
    Floor,
    MomentumSpec,
    Name,
    NotNegative,
    Positive,
    Problem,
    RefusedError,
    Spec,
    WarmupLength,
    WarmupStart,
    read_float32,
)
from harness.schedules import OppositeSpec, ScheduleSpec, SpecError
from harness.schedules.spec import Path
from harness.units import Duration

OWN_PLATEAU = "is for evaluations of launch/train.py; in your own loop use harness.plan.PlateauRule (plateau.md)"


class WarmupConfig(Section):
    """A line, or another way, up to the schedule (Goyal et al. 2017, arXiv 1706.02677)."""

    length: WarmupLength
    """Length of the warm-up."""
    start: WarmupStart = 0.0
    """The first learning rate: a number, `Nx`, or `unscaled` for the base without the factor."""
    mode: Literal["prefix", "overlap"] = "prefix"
    """`prefix` puts the warm-up in front of the schedule, `overlap` over its beginning."""
    shape: Literal["linear", "cosine", "exponential", "poly", "constant"] = "linear"
    """The way up: a line, half a cosine wave, equal factors, a power of the time, or none (`start` throughout)."""
    pwr: Positive | None = None
    """The power of `shape: poly`; null means 2."""

    @model_validator(mode="after")
    def _shape_has_what_it_needs(self) -> WarmupConfig:
        problems: list[Problem] = []
        if self.pwr is not None and self.shape != "poly":
            problems.append(Problem(("pwr",), f"{self.pwr:g} has no effect with shape: {self.shape}; remove it"))
        is_zero = self.start != "unscaled" and float(str(self.start).rstrip("x")) == 0
        if is_zero and self.shape in ("exponential", "constant"):
            why = "equal factors lead nowhere from 0" if self.shape == "exponential" else "nothing would be trained"
            problems.append(
                Problem(("start",), f"must be above 0 with shape: {self.shape}, because {why}; set it, such as to 0.1x")
            )
        if problems:
            raise RefusedError(problems)
        return self


class PlateauConfig(Section):
    """Lower the learning rate once evaluations no longer improve, as PyTorch's ReduceLROnPlateau does."""

    monitor: Name = "loss"
    """What is watched: `loss`, or a metric of `evaluation.metrics`, of the first held-out split."""
    mode: Literal["min", "max"] | None = None
    """For your own metric: whether the lowest (`min`) or the highest value (`max`) is the best."""
    factor: Annotated[float, Field(gt=0, lt=1), AfterValidator(read_float32)] = 0.1
    """Factor on the learning rates of all later iterations."""
    patience: NotNegative = 10
    """Evaluations in a row without improvement that are put up with; the next one lowers the rates."""
    cooldown: NotNegative = 0
    """Evaluations after a cut that do not count."""
    min_lr: Floor = 0.0
    """What no rate falls below by a cut: a number, or `Nx`."""
    threshold: Factor = 1e-4
    """How much better than the best value counts as an improvement."""
    threshold_mode: Literal["rel", "abs"] = "rel"
    """Whether the threshold is a fraction of the best value (`rel`) or a difference (`abs`)."""

    @model_validator(mode="after")
    def _improvement_is_possible(self) -> PlateauConfig:
        if self.threshold_mode == "rel" and self.threshold >= 1:
            message = f"{self.threshold:g} of the best value is never reached; give a fraction below 1 (0.01), or use"
            raise RefusedError([Problem(("threshold",), f"{message} threshold_mode: abs")])
        return self


class LRConfig(Section):
    """The plan of the learning rate (base, scaling, warm-up, schedule) and of the momentum."""

    base: Base = None
    """The value of `1x` before scaling: a number, `auto` to run the finder, or a finder's `result.json`."""
    reference_batch: Count | None = None
    """The global batch size that the base is meant for; null means one shard."""
    scaling: Literal["linear", "sqrt", "none"] | None = None
    """How the base grows with global batch / reference batch; null means linear wherever `x` is used."""
    warmup: WarmupConfig | None = None
    """A way up to the schedule."""
    momentum_correction: bool | None = None
    """Keep momentum buffers consistent with the learning rate; null: on for optimizers that support it."""
    schedule: Spec
    """The schedule: its name with its parameters, which may be schedules themselves."""
    stretch: Positive = 1.0
    """A factor on all lengths of this section, those of the warm-up too, but for parts of the run (`10%`)."""
    momentum: MomentumSpec | None = None
    """A momentum schedule, or `opposite: {high, low}` to the learning rate; null: the optimizer's own momentum."""
    plateau: PlateauConfig | None = None
    """Lower learning rates than the schedule has, once evaluations no longer improve (plateau.md)."""

    @property
    def is_found(self) -> bool:
        """Whether the base comes from a finder: `auto`, or the path of its result."""
        return isinstance(self.base, str)

    @property
    def exact_stretch(self) -> Fraction:
        """`stretch` as it was written."""
        return Fraction(repr(self.stretch))

    def lengths(self) -> Iterator[tuple[Path, Duration]]:
        """Every length in this section, each with the path of its key."""
        if self.warmup is not None:
            yield ("warmup", "length"), self.warmup.length
        for key in ("schedule", "momentum"):
            spec = getattr(self, key)
            for path, length in spec.lengths() if isinstance(spec, ScheduleSpec) else ():
                yield (key, *path), length

    @property
    def uses_x(self) -> bool:
        """Whether anything in the plan is a multiple of the scaled base."""
        start = self.warmup.start if self.warmup else 0.0
        return self.schedule.uses_x or isinstance(start, str) or self._floor_scales

    @property
    def scales(self) -> bool:
        """Whether anything in the plan depends on the factor: a multiple does, `unscaled` does not."""
        start = self.warmup.start if self.warmup else 0.0
        return self.schedule.uses_x or self._floor_scales or (isinstance(start, str) and start != "unscaled")

    @property
    def _floor_scales(self) -> bool:
        return self.plateau is not None and isinstance(self.plateau.min_lr, str)

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
        problems += self._refused_opposite()
        if self.stretch != 1 and all(length.unit == "%" or not length.value for _, length in self.lengths()):
            message = f"{self.stretch:g} has no effect, because no length in lr is absolute (5ep, 500it); remove it"
            problems.append(Problem(("stretch",), message))
        if problems:
            raise RefusedError(problems)
        return self

    def _refused_opposite(self) -> list[Problem]:
        """A momentum opposite to a learning rate of which nobody knows where it is highest."""
        if not isinstance(self.momentum, OppositeSpec):
            return []
        if self.warmup is not None and self.warmup.shape == "constant":
            message = "is not possible with warmup.shape: constant, after which the rate jumps; use another shape"
            return [Problem(("momentum", "opposite"), message)]
        try:
            self.momentum.heights(self.schedule)
        except SpecError as error:
            return [Problem(("momentum", *path), message) for path, message in error.problems]
        return []


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
    repeats: Count | None = None
    """Number of sweeps with different samples, which give an interval; null means 1, and 6 with `--across`."""
    on: Literal["train", "validation"] = "train"
    """The curve: the loss of each update's own batch, or of the same held-out samples after each update."""
    held_out_batches: Count | None = None
    """With `on: validation`, how many batches of `batch.size` held-out samples; null means 8."""
    rule: Literal["steepest", "valley", "minimum_tenth", "edge"] | None = None
    """The rule for the suggestion; null means `edge`."""

    @model_validator(mode="after")
    def _nothing_is_idle(self) -> FinderConfig:
        if self.held_out_batches is not None and self.on == "train":
            message = f"{self.held_out_batches} has no effect with on: train; set finder.on to validation, or remove it"
            raise RefusedError([Problem(("held_out_batches",), message)])
        return self
