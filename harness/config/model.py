"""The run's configuration: YAML and `--set` to one frozen, checked object; all errors at once, with their key paths.

It knows no sizes: lengths stay durations and the schedule stays a spec until `harness.plan` sees the data. An unknown
key, a duplicate key, a number of the wrong type, and a setting without effect are all refused.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from harness.config.averages import AverageConfig, EMAConfig, SWAConfig
from harness.config.choices import HookChoice
from harness.config.lr import FinderConfig, LRConfig
from harness.config.messages import RUN_NAME_IN_WORDS, config_error, explain, show
from harness.config.running import CheckpointConfig, ElasticConfig, GuardConfig, LogConfig
from harness.config.sections import (
    HAVE_BETA1,
    HAVE_MOMENTUM,
    HOW_READ,
    MOMENTUM_CORRECTED,
    BatchConfig,
    DataConfig,
    EvaluationConfig,
    InitConfig,
    NetworkConfig,
    OptimizerConfig,
    Section,
    TrainConfig,
)
from harness.config.values import Devices, PathText, Problem, RefusedError, Threads
from harness.named import name_and_params
from harness.units import Duration

_RUN_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
_HOOKS = ("hooks", "hooks_fail")  # they watch, and change nothing
_WHERE = ("device", "devices", "kvstore", "update_on_kvstore")  # where to compute; the bits do not depend on it


class RunConfig(Section):
    """Everything that determines a run, as written."""

    name: Annotated[str, Field(pattern=_RUN_NAME)] | None = None
    """The name of the run and of its folder; null means the stem of this file."""
    output: PathText = "runs"
    """The folder that holds the runs."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed for initialisation, shuffling, augmentation and dropout."""
    comm: Literal["auto", "single", "horovod", "mpi"] = "auto"
    """Communication backend; auto is MPI for ranks on CPUs, and Horovod for ranks on GPUs or without MPICH."""
    sum: Literal["tree", "engine"] = "tree"
    """What adds up gradients under Horovod: the tree, for the same bits on any number of ranks, or Horovod's engine."""
    compression: Literal["none", "fp16"] = "none"
    """What ranks send of gradients: float32 (`none`), or 16 bits (`fp16`), for slow networks; it affects the bits."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where each rank computes; auto uses the GPU with its local rank's number, or the CPU if there are no GPUs."""
    devices: Devices | None = None
    """Devices of a single-process job, such as `[gpu(0), gpu(1)]`; they process shards as ranks do."""
    kvstore: Literal["local", "device"] | None = None
    """Where several devices sum gradients: on the CPU (`local`) or on the GPUs (`device`); null: where they compute."""
    update_on_kvstore: bool = False
    """Run the optimizer in the kvstore instead of on every device."""
    threads_per_rank: Threads = "auto"
    """Compute threads per rank, which affect the bits; auto divides the host's cores."""
    data: DataConfig = DataConfig()
    """Where samples come from."""
    batch: BatchConfig = BatchConfig()
    """The global batch."""
    train: TrainConfig
    """The length of the run."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How often to evaluate, and with which metrics."""
    network: NetworkConfig
    """The network, its initial weights and its loss."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """The optimizer."""
    lr: LRConfig
    """The learning rate of every iteration."""
    ema: EMAConfig | None = None
    """A moving average of the weights (averages.md)."""
    swa: SWAConfig | None = None
    """Stochastic weight averaging: the mean of the weights at some moments of the run (averages.md)."""
    finder: FinderConfig = FinderConfig()
    """The learning-rate finder."""
    init: InitConfig = InitConfig()
    """Existing weights to start from."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """When to save checkpoints."""
    log: LogConfig = LogConfig()
    """How often to log."""
    guard: GuardConfig = GuardConfig()
    """Consistency checks, stall timeouts, non-finite losses."""
    elastic: ElasticConfig = ElasticConfig()
    """Workers that come and go within one job (elastic.md)."""
    hooks: list[HookChoice] = Field(default=[])
    """Your `module:function`s, or one with its parameters, called on rank 0 with what happens in the run (hooks.md)."""
    hooks_fail: Literal["warn", "stop"] = "warn"
    """What an error in a hook means: `warn` once, or save and `stop` the run."""
    _source: str = PrivateAttr(default="config")

    @model_validator(mode="after")
    def _sections_fit_together(self) -> RunConfig:
        name = self.optimizer.name
        problems: list[Problem] = []
        if self.lr.momentum_correction is not None and not self.corrects_by_nature:
            problems.append(
                Problem(
                    ("lr", "momentum_correction"),
                    f"has no effect on {name!r} as configured; it applies to {', '.join(MOMENTUM_CORRECTED)} with "
                    "optimizer.params.momentum above 0, whose buffer holds the learning rate; remove it",
                )
            )
        if self.lr.momentum is not None and not self.optimizer.has_momentum:
            problems.append(
                Problem(
                    ("lr", "momentum"),
                    f"has no effect on {name!r} as configured; it needs one of {', '.join(HAVE_MOMENTUM)} with "
                    f"optimizer.params.momentum above 0, or one of {', '.join(HAVE_BETA1)}, whose beta1 it is",
                )
            )
        if self.devices is not None and self.device != "auto":
            problems.append(Problem(("device",), f"{self.device} has no effect beside devices; remove one of them"))
        if self.data.batches is not None and self.train.last_batch == "keep":
            message = f"keep has no effect beside data.batches ({self.data.batches}); remove it"
            problems.append(Problem(("train", "last_batch"), message))
        for name, found in (("kvstore", self.kvstore), ("update_on_kvstore", self.update_on_kvstore)):
            if found and self.num_devices < 2:
                message = f"{str(found).lower()} has no effect without several devices; list them in devices"
                problems.append(Problem((name,), message))
        if self.hooks_fail == "stop" and not self.hooks:
            problems.append(Problem(("hooks_fail",), "stop has no effect without hooks; name one, or remove it"))
        if self.ema is not None and self.swa is not None:
            problems.append(Problem(("swa",), "is not possible beside ema: a run has one average; remove one of them"))
        problems += [*self._refused_monitors(), *self._refused_streams(), *self._refused_lengths()]
        if problems:
            raise RefusedError(problems)
        return self

    @property
    def monitors(self) -> dict[str, str]:
        """By key, the value of evaluations that decides something."""
        plateau, early_stop = self.lr.plateau, self.train.early_stop
        found = {
            "checkpoint.best": self.checkpoint.best,
            "lr.plateau.monitor": None if plateau is None else plateau.monitor,
            "train.early_stop.monitor": None if early_stop is None else early_stop.monitor,
        }
        return {key: name for key, name in found.items() if name is not None}

    @property
    def average(self) -> tuple[str, AverageConfig] | None:
        """The average of the weights: its key and its section; `None` for none."""
        found = {"ema": self.ema, "swa": self.swa}
        return next(((key, section) for key, section in found.items() if section is not None), None)

    def _refused_monitors(self) -> Iterator[Problem]:
        """What is to decide something, and is not evaluated."""
        metrics = map(name_and_params, self.evaluation.metrics)
        measured = ["loss", *(str(params.get("name", name)) for name, params in metrics)]
        for key, monitor in self.monitors.items():
            path = tuple(key.split("."))
            if not any(monitor == name or monitor.startswith(f"{name}.") for name in measured):
                yield Problem(path, f"{monitor!r} is not evaluated; choose one of {', '.join(measured)}")
            if self.evaluation.every is None:
                path = path if path[-1] == "best" else path[:-1]
                yield Problem(path, f"has no effect without evaluation.every; set it, or remove {path[-1]}")

    def _refused_lengths(self) -> list[Problem]:
        """Lengths in samples and tokens where an update has no fixed number of them."""
        lengths, problems = list(_lengths_in(self, ())), []
        for path, length in lengths:
            if length.unit in ("sa", "tok") and self.data.batches is not None:
                message = f"'{length}' is not possible with data.batches, whose batches may have any number of samples"
                problems.append(Problem(path, f"{message}; write it as '500it' or '5ep'"))
            elif length.unit == "tok" and self.train.tokens_per_sample is None:
                message = f"'{length}' needs the number of tokens in a sample; set train.tokens_per_sample"
                problems.append(Problem(path, message))
        if self.train.tokens_per_sample is not None and all(length.unit != "tok" for _, length in lengths):
            message = f"{self.train.tokens_per_sample} has no effect, no length is in tokens (3e9tok); remove it"
            problems.append(Problem(("train", "tokens_per_sample"), message))
        return problems

    def _refused_streams(self) -> list[Problem]:
        """What does not go together with state that is carried along streams of samples, or needs it."""
        if self.network.state is None:
            has_streams = self.evaluation.streams is not None
            message = "has no effect without network.state; remove it"
            return [Problem(("evaluation", "streams"), message)] if has_streams else []
        problems = []
        if self.train.last_batch == "keep":
            message = "keep is not possible with network.state, whose rows are streams of equal length; use drop"
            problems.append(Problem(("train", "last_batch"), message))
        for name, found in (("bucket", self.data.bucket), ("batches", self.data.batches)):
            if found is not None:
                message = "is not possible with network.state, whose rows read consecutive samples; remove it"
                problems.append(Problem(("data", name), message))
        if self.data.validation:
            message = (
                "is not possible with network.state: samples are held out at random, which tears its streams; have "
                "data.name return a validation split, or use 0"
            )
            problems.append(Problem(("data", "validation"), message))
        return problems

    @property
    def num_devices(self) -> int:
        """The number of devices of each process."""
        return len(self.devices or [self.device])

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

    def __eq__(self, other: object) -> bool:
        """Whether both have the same settings, whatever files they come from."""
        return self.plain() == other.plain() if isinstance(other, RunConfig) else NotImplemented

    def plain(self) -> dict[str, Any]:
        """The configuration as plain data, which `parse_config` reads back as an equal object."""
        return self.model_dump(by_alias=True)

    def changed(self, values: Mapping[str, Any]) -> RunConfig:
        """The same configuration with other values, which pass every check that values from a file pass.

        Args:
            values: by key path, such as `lr.base`; plain data.

        Raises:
            ConfigError: with every problem, as in `parse_config`.
        """
        plain = self.plain()
        for path, value in values.items():
            *parents, last = path.split(".")
            section = plain
            for key in parents:
                section = section[key]
            section[last] = value
        try:
            config = RunConfig.model_validate(plain)
        except ValidationError as error:
            raise config_error(self._source, explain(error, RunConfig)) from None
        config._source = self._source
        return config

    def check_run_name(self) -> None:
        """Refuse a file name whose stem is not allowed as `name`.

        Raises:
            ConfigError: with what is allowed.
        """
        if not re.fullmatch(_RUN_NAME, self.run_name):
            message = (
                f"is not set, and the file name gives {show(self.run_name)}; must be {RUN_NAME_IN_WORDS}; give "
                "one with --set name=..., or rename the file"
            )
            raise config_error(self._source, [Problem(("name",), message)])

    def resolved(self, *, shards: int, threads: int) -> RunConfig:
        """The same configuration, with everything that the first start decides filled in.

        Raises:
            ConfigError: if a number, or the name taken from the file name, would not be allowed in the file.
        """
        self.check_run_name()
        return self.changed({"name": self.run_name, "batch.shards": shards, "threads_per_rank": threads})

    def fingerprint(self) -> str:
        """sha256 of what determines the result; paths, names and logging may differ between hosts and attempts."""
        plain = self.plain()
        for free in ("name", "output", "checkpoint", "log", "guard", "elastic", "comm", "sum", *_HOOKS, *_WHERE):
            del plain[free]
        for free in ("root", "download", *HOW_READ):
            del plain["data"][free]
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def deciding(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, as plain data, whose code takes part in a result: all without the hooks, which only rank 0 has."""
    return {name: value for name, value in plain.items() if name not in _HOOKS}


def _lengths_in(section: Section, path: tuple[str, ...]) -> Iterator[tuple[tuple[str | int, ...], Duration]]:
    """Every length in a section, each with the path of its key."""
    for name, field in type(section).model_fields.items():
        value, here = getattr(section, name), (*path, field.alias or name)
        if isinstance(value, LRConfig):
            yield from (((*here, *inner), length) for inner, length in value.lengths())
        elif isinstance(value, Section):
            yield from _lengths_in(value, here)
        elif isinstance(value, Duration):
            yield here, value
