"""The sections of a configuration: frozen, strict about types, no keys but their own, no setting without an effect."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from harness.config.messages import show
from harness.config.values import (
    Base,
    Count,
    Factor,
    Initializer,
    Interval,
    MomentumSpec,
    Name,
    Parameters,
    Period,
    Positive,
    Problem,
    RefusedError,
    Spec,
    Validation,
    WarmupLength,
    WarmupStart,
)
from harness.units import Duration

MOMENTUM_CORRECTED = ("sgd", "nag", "lars")  # the optimizers that keep the learning rate inside their momentum buffer
HAVE_MOMENTUM = (*MOMENTUM_CORRECTED, "signum")
_OWNED = {
    "learning_rate": "the plan sets it: use lr.base and lr.schedule",
    "lr_scheduler": "the plan sets the learning rate: use lr.schedule",
    "clip_gradient": "use optimizer.clip_value (each element) or optimizer.clip_norm (the whole gradient)",
    "rescale_grad": "the harness divides by the number of samples in the global batch",
    "param_dict": "the harness passes it",
    "param_idx2name": "the harness passes it",
    "begin_num_update": "the harness counts updates",
    "use_fused_step": "the harness leaves it to MXNet",
    "momentum_correction": "use lr.momentum_correction",
    "multi_precision": "mixed precision is not supported: parameters are float32",
}


class Section(BaseModel):
    """A mapping of the configuration: frozen, strict about types, no keys but its own."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class AugmentConfig(Section):
    """What is done to training images; each sample's randomness is a function of (seed, epoch, sample)."""

    pad_crop: Annotated[int, Field(ge=0)] = 0
    flip: bool = False
    mean: list[float] | None = None
    std: list[Positive] | None = None


class DataConfig(Section):
    """Where samples come from: a named data set, or `module:function`."""

    name: str = "digits"
    root: str | None = None
    download: bool = False
    validation: Validation = 0
    augment: AugmentConfig = AugmentConfig()
    params: Parameters = {}


class BatchConfig(Section):
    """A global batch is `shards` shards of `size` samples; null shards = the number of workers at the first start."""

    size: Count = 32
    shards: Count | None = None


class TrainConfig(Section):
    """How long: either epochs or iterations."""

    epochs: Count | None = None
    iterations: Count | None = None
    last_batch: Literal["drop", "keep"] = "drop"

    @model_validator(mode="after")
    def _one_length(self) -> TrainConfig:
        if (self.epochs is None) == (self.iterations is None):
            found = "neither" if self.epochs is None else f"both (epochs: {self.epochs}, iterations: {self.iterations})"
            raise RefusedError([Problem((), f"found {found}; give the run's length as either epochs or iterations")])
        return self

    def __str__(self) -> str:
        """The run's length as it was written."""
        return f"{self.epochs}ep" if self.epochs is not None else f"{self.iterations}it"


class EvaluationConfig(Section):
    """When the held-out samples are looked at (always at the end as well), and by which metrics."""

    every: Period | None = Duration.parse("1ep")
    metrics: list[Name] = ["accuracy"]


class NetworkConfig(Section):
    """The network by name or `module:function`, how its weights start, and its loss."""

    name: Name
    params: Parameters = {}
    initializer: Initializer = "xavier"
    loss: Name = "softmax_cross_entropy"
    loss_params: Parameters = {}
    hybridize: bool = True


class OptimizerConfig(Section):
    """An optimizer of `mx.optimizer`, its parameters, and what differs between parameters of the network."""

    name: str = "sgd"
    params: Parameters = {}
    lr_mult: dict[str, Factor] = {}
    wd_mult: dict[str, Factor] = {}
    decay_bias_and_norm: bool = False
    clip_norm: Positive | None = None
    clip_value: Positive | None = None

    @model_validator(mode="after")
    def _parameters_are_free(self) -> OptimizerConfig:
        problems = [
            Problem(("params", name), f"is not for the optimizer to set; {_OWNED[name]}")
            for name in self.params
            if name in _OWNED
        ]
        for name, limit in (("momentum", 1.0), ("wd", float("inf"))):
            found = self.params.get(name, 0.0)
            if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < limit:
                allowed = "at least 0 and below 1" if name == "momentum" else "a number of at least 0"
                problems.append(Problem(("params", name), f"found {show(found)}; must be {allowed}"))
        if problems:
            raise RefusedError(problems)
        return self

    @property
    def own_momentum(self) -> float | None:
        """The momentum of an optimizer that has one, where no schedule sets it."""
        momentum: float | None = self.params.get("momentum")
        return momentum

    @property
    def has_momentum(self) -> bool:
        """Whether the optimizer keeps a momentum buffer that a learning rate or a momentum schedule acts on."""
        return self.name.lower() in HAVE_MOMENTUM and bool(self.params.get("momentum", self.name.lower() == "signum"))


class WarmupConfig(Section):
    """A straight line up to the schedule (Goyal et al. 2017, arXiv 1706.02677)."""

    length: WarmupLength
    start: WarmupStart = 0.0
    mode: Literal["prefix", "overlap"] = "prefix"


class LRConfig(Section):
    """The learning rate's plan: base, scaling, warm-up, schedule; and the momentum's."""

    base: Base = None
    reference_batch: Count | None = None
    scaling: Literal["linear", "sqrt", "none"] | None = None
    warmup: WarmupConfig | None = None
    momentum_correction: bool | None = None
    schedule: Spec
    momentum: MomentumSpec | None = None

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


class InitConfig(Section):
    """Where a new run's weights come from."""

    from_: Annotated[str | None, Field(alias="from")] = None


class FinderConfig(Section):
    """The learning-rate finder: its sweep, when it stops, and the rule that it answers by."""

    lr_start: Positive = 1e-6
    lr_end: Positive = 10.0
    lr_multiplier: Positive | None = None
    num_iterations: Count | None = None
    spacing: Literal["exponential", "linear"] = "exponential"
    max_iterations: Count = 1000
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.3
    min_iter: Annotated[int, Field(ge=0)] = 20
    growth: Annotated[float, Field(gt=1)] = 2.0
    probes: Annotated[int, Field(ge=0)] | None = None
    repeats: Count = 1
    rule: Literal["steepest", "valley", "minimum_tenth", "edge"] | None = None


class LogConfig(Section):
    """How often a line is written to metrics.jsonl."""

    every: Period = Duration.parse("10it")


class CheckpointConfig(Section):
    """When a set is written (always at the end as well), how many stay, and what a failed write means."""

    every: Interval | None = Duration.parse("1ep")
    keep: Count = 3
    best: Name | None = None
    best_is: Literal["highest", "lowest"] | None = None
    on_failure: Literal["stop", "continue"] = "stop"

    @model_validator(mode="after")
    def _nothing_is_idle(self) -> CheckpointConfig:
        if self.best_is is not None and self.best is None:
            raise RefusedError([Problem(("best_is",), "has no effect without checkpoint.best; name the metric")])
        return self


class DivergenceConfig(Section):
    """What a loss or gradient that is not finite means: stop, leave the update out, or go back to the last set."""

    policy: Literal["stop", "skip", "rewind"] = "stop"
    at_most: Count | None = None
    lr_factor: Annotated[float, Field(gt=0, lt=1)] | None = None

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
    stall_after_s: Positive = 300.0
    stall_after_first_s: Positive = 1800.0
    stall_after_evaluation_s: Positive = 1800.0
    divergence: DivergenceConfig = DivergenceConfig()
