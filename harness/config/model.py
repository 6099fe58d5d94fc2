"""The run's configuration: YAML and `--set` to one frozen, checked object; every error at once, with its key path.

It knows no sizes: lengths stay durations and the schedule stays a spec until `harness.plan` meets the data. An unknown
key, a duplicate key, a number in the wrong type, and a setting that would have no effect are all refused.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from harness.config.messages import Problem, config_error, explain
from harness.config.reading import read_yaml, set_path
from harness.errors import ConfigError
from harness.schedules import ScheduleSpec, parse_spec
from harness.units import Duration

MOMENTUM_CORRECTED = ("sgd", "nag", "lars")  # the optimizers that keep the learning rate inside their momentum buffer
HAVE_MOMENTUM = (*MOMENTUM_CORRECTED, "signum", "dcasgd", "lbsgd")
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


def _auto_or_count(value: object) -> int | str:
    if value == "auto":
        return "auto"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise ValueError("allowed: auto, or a whole number of at least 1")


def _base(value: object) -> float | Literal["auto"] | None:
    if value is None or value == "auto":
        return None if value is None else "auto"
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf"):
        return float(value)
    raise ValueError("allowed: a positive number, or auto (run the learning-rate finder)")


def _warmup_start(value: object) -> float | str:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf"):
        return float(value)
    if isinstance(value, str) and (
        value == "unscaled" or re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?x", value)
    ):
        return value
    raise ValueError(
        "allowed: a number >= 0, Nx (N times the scaled base, such as 0.1x), or unscaled (the base itself)"
    )


def _momentum_spec(value: object) -> ScheduleSpec:
    return parse_spec(value, allow_x=False)


Length = Annotated[Duration, PlainValidator(Duration.parse), PlainSerializer(str)]
Spec = Annotated[ScheduleSpec, PlainValidator(parse_spec), PlainSerializer(lambda spec: spec.raw)]
MomentumSpec = Annotated[ScheduleSpec, PlainValidator(_momentum_spec), PlainSerializer(lambda spec: spec.raw)]
Count = Annotated[int, Field(ge=1)]
Parameters = dict[str, Any]


class Section(BaseModel):
    """A mapping of the configuration: frozen, strict about types, no keys but its own."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, populate_by_name=True)


class AugmentConfig(Section):
    """What is done to training images; each sample's randomness is a function of (seed, epoch, sample)."""

    pad_crop: Annotated[int, Field(ge=0)] = 0
    flip: bool = False
    mean: list[float] | None = None
    std: list[Annotated[float, Field(gt=0)]] | None = None


class DataConfig(Section):
    """Where samples come from: a named data set, or `module:function`."""

    name: str = "digits"
    root: str | None = None
    download: bool = False
    validation: Annotated[float, Field(ge=0)] | Annotated[int, Field(ge=0)] = 0
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
            raise ValueError("give the run's length as either epochs or iterations, not both and not neither")
        return self

    def __str__(self) -> str:
        """The run's length as it was written."""
        return f"{self.epochs}ep" if self.epochs is not None else f"{self.iterations}it"


class EvaluationConfig(Section):
    """When the held-out samples are looked at (always at the end as well), and by which metrics."""

    every: Length | None = Duration.parse("1ep")
    metrics: list[str] = ["accuracy"]


class NetworkConfig(Section):
    """The network by name or `module:function`, how its weights start, and its loss."""

    name: str
    params: Parameters = {}
    initializer: str | dict[str, Parameters] = "xavier"
    loss: str = "softmax_cross_entropy"
    loss_params: Parameters = {}
    hybridize: bool = True


class OptimizerConfig(Section):
    """An optimizer of `mx.optimizer`, its parameters, and what differs between parameters of the network."""

    name: str = "sgd"
    params: Parameters = {}
    lr_mult: dict[str, Annotated[float, Field(ge=0)]] = {}
    wd_mult: dict[str, Annotated[float, Field(ge=0)]] = {}
    decay_bias_and_norm: bool = False
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    clip_value: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _parameters_are_free(self) -> OptimizerConfig:
        owned = [f"params.{name}: {_OWNED[name]}" for name in self.params if name in _OWNED]
        if owned:
            raise ValueError("; ".join(owned))
        return self

    @property
    def has_momentum(self) -> bool:
        """Whether the optimizer keeps a momentum buffer that a learning rate or a momentum schedule acts on."""
        return self.name.lower() in HAVE_MOMENTUM and bool(self.params.get("momentum", self.name.lower() == "signum"))


class WarmupConfig(Section):
    """A straight line up to the schedule (Goyal et al. 2017, arXiv 1706.02677)."""

    length: Length
    start: Annotated[float | str, PlainValidator(_warmup_start)] = 0.0
    mode: Literal["prefix", "overlap"] = "prefix"


class LRConfig(Section):
    """The learning rate's plan: base, scaling, warm-up, schedule; and the momentum's."""

    base: Annotated[float | Literal["auto"] | None, PlainValidator(_base)] = None
    reference_batch: Count | None = None
    scaling: Literal["linear", "sqrt", "none"] | None = None
    warmup: WarmupConfig | None = None
    momentum_correction: bool | None = None
    schedule: Spec
    momentum: MomentumSpec | None = None

    @property
    def uses_x(self) -> bool:
        """Whether anything in the plan is a multiple of the scaled base."""
        start = self.warmup.start if self.warmup else 0.0
        return self.schedule.uses_x or isinstance(start, str)

    @model_validator(mode="after")
    def _x_and_base_go_together(self) -> LRConfig:
        if self.uses_x and self.base is None:
            raise ValueError("the schedule is written in multiples of the base (Nx), so lr.base must be given")
        if self.uses_x:
            if self.base == "auto" and self.reference_batch is not None:
                raise ValueError(
                    "reference_batch has no meaning with base: auto (the finder's own global batch is the reference)"
                )
            return self
        idle = [name for name in ("base", "reference_batch") if getattr(self, name) is not None]
        idle += ["scaling"] if self.scaling in ("linear", "sqrt") else []
        if idle:
            raise ValueError(
                f"{', '.join(idle)} would have no effect: plain learning rates are final and never scaled; "
                "write them as multiples of the base (max_lr: 1x), or remove " + ("it" if len(idle) == 1 else "them")
            )
        return self


class InitConfig(Section):
    """Where a new run's weights come from."""

    from_: Annotated[str | None, Field(alias="from")] = None


class LogConfig(Section):
    """How often a line is written to metrics.jsonl."""

    every: Length = Duration.parse("10it")


class RunConfig(Section):
    """Everything that decides a run, as written."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = None
    output: str = "runs"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    comm: Literal["auto", "single", "horovod"] = "auto"
    device: Literal["auto", "cpu", "gpu"] = "auto"
    threads_per_rank: Annotated[int | str, PlainValidator(_auto_or_count)] = "auto"
    data: DataConfig = DataConfig()
    batch: BatchConfig = BatchConfig()
    train: TrainConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    network: NetworkConfig
    optimizer: OptimizerConfig = OptimizerConfig()
    lr: LRConfig
    init: InitConfig = InitConfig()
    log: LogConfig = LogConfig()
    _source: str = PrivateAttr(default="config")

    @model_validator(mode="after")
    def _momentum_has_a_buffer(self) -> RunConfig:
        name = self.optimizer.name
        if self.lr.momentum_correction is not None and not self.corrects_by_nature:
            raise ValueError(
                f"lr.momentum_correction concerns {', '.join(MOMENTUM_CORRECTED)} with momentum > 0, whose "
                "buffer holds the "
                f"learning rate; it has no effect on {name!r} as configured, remove it"
            )
        if self.lr.momentum is not None and not self.optimizer.has_momentum:
            raise ValueError(
                f"lr.momentum needs an optimizer with a momentum ({', '.join(HAVE_MOMENTUM)}) and "
                "optimizer.params.momentum > 0; "
                f"found {name!r}"
            )
        return self

    @property
    def corrects_by_nature(self) -> bool:
        """Whether momentum correction means anything for this optimizer."""
        return self.optimizer.name.lower() in MOMENTUM_CORRECTED and self.optimizer.has_momentum

    @property
    def momentum_correction(self) -> bool:
        """Whether momentum buffers follow the learning rate: on by default where it means anything."""
        return self.corrects_by_nature and self.lr.momentum_correction is not False

    @property
    def source(self) -> str:
        """The file that the configuration was read from, for messages."""
        return self._source

    @property
    def run_name(self) -> str:
        """`name`, else the stem of the configuration's file."""
        return self.name or Path(self._source).stem

    def plain(self) -> dict[str, Any]:
        """The configuration as plain data that `parse_config` reads back to an equal object."""
        return self.model_dump(by_alias=True)

    def resolved(self, *, shards: int, threads: int) -> RunConfig:
        """The same configuration with everything that the first start decides written out as a number."""
        batch = self.batch.model_copy(update={"shards": shards})
        copy = self.model_copy(update={"batch": batch, "threads_per_rank": threads})
        copy._source = self._source
        return copy

    def fingerprint(self) -> str:
        """sha256 of what decides the result; paths, names and logging may differ between hosts and attempts."""
        plain = self.plain()
        for free in ("name", "output", "log", "comm", "device"):
            del plain[free]
        for free in ("root", "download"):
            del plain["data"][free]
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def parse_config(raw: object, source: str = "config") -> RunConfig:
    """Check plain data and make a `RunConfig` of it.

    Raises:
        ConfigError: with every problem, a line each: `source: key.path: what was found; what is allowed`.
    """
    if not isinstance(raw, dict):
        raise config_error(source, [Problem((), f"expected a mapping of settings, found {type(raw).__name__}")])
    try:
        config = RunConfig.model_validate(raw)
    except ValidationError as error:
        raise config_error(source, explain(error, RunConfig, raw)) from None
    config._source = source
    return config


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a configuration file and apply `--set` overrides, each `key.path=value` with the value in YAML.

    Raises:
        ConfigError: if the file cannot be read, is no YAML, or holds anything that is not allowed.
    """
    raw = read_yaml(Path(path))
    problems: list[Problem] = []
    for override in overrides:
        problems += _apply(raw, override)
    if problems:
        raise config_error(str(path), problems)
    return parse_config(raw, str(path))


def dump_config(config: RunConfig) -> str:
    """The configuration as YAML."""
    return yaml.safe_dump(config.plain(), sort_keys=False, default_flow_style=None, width=110)


def _apply(raw: object, override: str) -> Iterable[Problem]:
    try:
        set_path(raw, override)
    except ConfigError as error:
        return [Problem((), f"--set {override}: {error}")]
    return []
