"""The sections of a configuration that say what is trained: data, batches, network, optimizer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from harness.config.messages import show
from harness.config.values import (
    Count,
    Factor,
    Float32,
    Initializer,
    Name,
    NotNegative,
    Parameters,
    PathText,
    Period,
    Positive,
    Problem,
    RefusedError,
    Scale,
    Validation,
)
from harness.schedules.bounds import BELOW_ONE, LARGEST, SMALLEST
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

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class AugmentConfig(Section):
    """What is done to training images; each sample's randomness is a function of (seed, epoch, sample)."""

    pad_crop: NotNegative = 0
    """Pixels added on every side before a random crop of the old size."""
    flip: bool = False
    """Whether half of the pictures are mirrored left to right."""
    mean: list[Float32] | None = None
    """Subtracted from each channel, in units of a full pixel (0 to 1); one number for all, or one for each."""
    std: list[Positive] | None = None
    """What each channel is divided by after that."""


class DataConfig(Section):
    """Where samples come from: a named data set, or `module:function`."""

    name: str = "digits"
    """`digits`, `mnist`, `fashion_mnist`, `cifar10`, `npy`, or your own `module:function`."""
    root: PathText | None = None
    """The folder with the files; null means where downloads go."""
    download: bool = False
    """Whether missing files are fetched."""
    validation: Validation = 0
    """Training samples held out: a number of them, or a fraction below 1."""
    scale: Scale = None
    """What integers are divided by; `keep` leaves them as they are; null divides pictures of bytes alone, by 255."""
    augment: AugmentConfig = AugmentConfig()
    """What is done to training pictures."""
    params: Parameters = {}
    """Arguments of your own function; for `npy` `num_classes`."""


class BatchConfig(Section):
    """A global batch is `shards` shards of `size` samples; null shards = the number of workers at the first start."""

    size: Count = 32
    """Samples a shard."""
    shards: Count | None = None
    """Shards a global batch, fixed for the life of a run; null means one for each worker at the first start."""


class TrainConfig(Section):
    """How long: either epochs or iterations."""

    epochs: Count | None = None
    """The run's length in epochs."""
    iterations: Count | None = None
    """The run's length in updates."""
    last_batch: Literal["drop", "keep"] = "drop"
    """What becomes of an epoch's remainder: dropped, or kept as a smaller batch."""

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
    """How often to evaluate (always at the end as well), and with which metrics beside the loss."""

    every: Period | None = Duration.parse("1ep")
    """How often the first held-out split is looked at; null means at the end alone."""
    metrics: list[Name] = ["accuracy"]
    """`accuracy`, `error`, `top_5_accuracy`, `binary_accuracy`, `mae`, `mse`, `rmse`, or your own `module:function`."""


class NetworkConfig(Section):
    """The network by name or `module:function`, how its weights start, and its loss."""

    name: Name
    """`mlp`, `cnn`, `lenet`, `mnist_cnn`, a name of `gluon.model_zoo.vision`, or your own `module:function`."""
    params: Parameters = {}
    """Its arguments; `classes` is filled in."""
    initializer: Initializer = "xavier"
    """A name of `mx.init` other than load, mixed and fusedrnn, or one name with its parameters."""
    loss: Name = "softmax_cross_entropy"
    """A loss of Gluon by its name in snake case, or your own `module:function`; one value a sample."""
    loss_params: Parameters = {}
    """Its arguments."""
    hybridize: bool = True
    """Whether the network is compiled, for training from a graph that computes the same sooner (performance.md)."""


class OptimizerConfig(Section):
    """An optimizer of `mx.optimizer`, its parameters, and what differs between parameters of the network."""

    name: str = "sgd"
    """A name of `mx.optimizer`."""
    params: Parameters = {}
    """Its arguments, other than the learning rate."""
    lr_mult: dict[str, Factor] = {}
    """Factors on the learning rate by patterns of parameters' names, such as `features.*`."""
    wd_mult: dict[str, Factor] = {}
    """Factors on weight decay by patterns of parameters' names."""
    decay_bias_and_norm: bool = False
    """Whether weight decay also pulls biases and the gamma and beta of norms to zero."""
    clip_norm: Positive | None = None
    """The largest Euclidean norm of the mean gradient."""
    clip_value: Positive | None = None
    """The largest absolute value of an element of the mean gradient."""

    @model_validator(mode="after")
    def _parameters_are_free(self) -> OptimizerConfig:
        problems = [
            Problem(("params", name), f"is not for the optimizer to set; {_OWNED[name]}")
            for name in self.params
            if name in _OWNED
        ]
        for name, limit in (("momentum", BELOW_ONE), ("wd", float("inf"))):
            found = self.params.get(name, 0.0)
            if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < limit:
                allowed = "at least 0 and below 1 (in float32)" if name == "momentum" else "a number of at least 0"
                problems.append(Problem(("params", name), f"found {show(found)}; must be {allowed}"))
        refused = {problem.path[1] for problem in problems}
        problems += [
            Problem(
                ("params", name),
                f"found {show(found)}; must be a number that float32 holds: 0, or "
                f"{SMALLEST:.2g} to {LARGEST:.2g} (which MXNet computes in)",
            )
            for name, found in self.params.items()
            if isinstance(found, int | float)
            and found
            and name not in refused
            and not SMALLEST <= abs(found) <= LARGEST
        ]
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


class InitConfig(Section):
    """Where a new run's weights come from, and which of them it does not train."""

    from_: Annotated[PathText | None, Field(alias="from")] = None
    """Weights that a new run begins with: a `.params` file, an exported network (its `-symbol.json`) or a set."""
    match: Literal["all", "head", "shapes"] = "head"
    """What of it has to fit: `all`; all but the outputs of one layer, the `head`; or nothing: what fits is taken."""
    freeze: list[str] = []
    """Patterns of parameters' names (`features.*`) that are not trained; a frozen batch norm's statistics stay, too."""

    @model_validator(mode="after")
    def _nothing_is_idle(self) -> InitConfig:
        if self.from_ is None and self.match != "head":
            raise RefusedError([Problem(("match",), f"{self.match} has no effect without init.from; name the weights")])
        return self
