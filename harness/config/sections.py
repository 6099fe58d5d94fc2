"""The sections of a configuration that say what to train: data, batches, network, optimizer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

from harness.config.choices import CollateChoice, Initializer, MetricChoice, Widths
from harness.config.messages import show
from harness.config.picture_sections import STRICT, PicturesConfig
from harness.config.values import (
    Count,
    Factor,
    Float32,
    Layers,
    Name,
    NotNegative,
    Own,
    Parameters,
    PathText,
    Period,
    Positive,
    Problem,
    RefusedError,
    Scale,
    Seconds,
    Share,
    Validation,
    Workers,
)
from harness.schedules.bounds import BELOW_ONE, LARGEST, SMALLEST
from harness.units import Duration

MOMENTUM_CORRECTED = ("sgd", "nag", "lars")  # these optimizers keep the learning rate inside their momentum buffer
HAVE_MOMENTUM = (*MOMENTUM_CORRECTED, "signum")
SMOOTHED_LOSSES = ("softmax_cross_entropy", "sigmoid_binary_cross_entropy", "kl_div", "logistic")
HOW_READ = ("workers", "worker_kind", "prefetch", "timeout_s")  # of `data`: what may change when a run resumes
HAVE_BETA1 = ("adam", "adamw", "adamax", "lamb")  # the weight of the past in a mean of gradients, which is a momentum
_OWNED = {
    "learning_rate": "the plan sets it: use lr.base and lr.schedule",
    "lr_scheduler": "the plan sets the learning rate: use lr.schedule",
    "clip_gradient": "use optimizer.clip_value (each element) or optimizer.clip_norm (the whole gradient)",
    "rescale_grad": "the harness divides by the number of samples in the global batch",
    "param_dict": "the harness provides it",
    "param_idx2name": "the harness provides it",
    "begin_num_update": "the harness counts updates",
    "use_fused_step": "the harness leaves it to MXNet",
    "momentum_correction": "use lr.momentum_correction",
    "multi_precision": "mixed precision is not supported: parameters are float32",
}


class Section(BaseModel):
    """A mapping in the configuration: frozen, strict about types, and closed to unknown keys."""

    model_config = STRICT


class AugmentConfig(Section):
    """Augmentation of training images; each sample's randomness is a function of (seed, epoch, sample)."""

    pad_crop: NotNegative = 0
    """Pixels to pad on every side before a random crop to the original size."""
    flip: bool = False
    """Mirror half of the images left to right."""
    mean: list[Float32] | None = None
    """Values to subtract from each channel, where 1 is a full pixel; one for all channels, or one for each."""
    std: list[Positive] | None = None
    """Values to divide each channel by afterwards."""
    brightness: Share = 0.0
    """Multiply pictures by a random number from 1 - x to 1 + x; this and the following for picture files alone."""
    contrast: Share = 0.0
    """Multiply the distance from a picture's mean grey by a random number from 1 - x to 1 + x."""
    saturation: Share = 0.0
    """Multiply the distance from each pixel's own grey by a random number from 1 - x to 1 + x."""
    hue: Share = 0.0
    """Turn hues by a random angle, up to x half turns."""
    lighting: Share = 0.0
    """The deviation of random noise along the principal components of ImageNet's colours."""
    erase: Share = 0.0
    """The probability that a random rectangle becomes the mean colour."""


class BucketConfig(Section):
    """Batches of samples of alike lengths."""

    by: Name = "data"
    """What the length of a sample is: an array, such as `data[1]`, its length or (a single number) its value; or your
    `module:function` of an item (data, label)."""
    widths: Widths | None = None
    """The widths of the buckets, such as `[16, 32, 64]`, or the number of buckets of equal steps."""


class DataConfig(Section):
    """Where samples come from: a named data set, or `module:function`."""

    name: str = "digits"
    """`digits`, `mnist`, `fashion_mnist`, `cifar10`, `npy`, `records`, `folder`, or your own `module:function`."""
    root: PathText | None = None
    """The folder with the files; null means the download folder, or, for picture files, the current one."""
    download: bool = False
    """Download missing files."""
    validation: Validation = 0
    """Training samples to hold out: a number of samples, or a fraction below 1."""
    scale: Scale = None
    """The divisor for integers; `keep` leaves them unchanged; null divides only byte images, by 255."""
    augment: AugmentConfig = AugmentConfig()
    """Augmentation of training images."""
    transform: Own | None = None
    """Your `module:function`, called with (item, random), that makes a pair (data, label) of an item (data.md)."""
    collate: CollateChoice | None = None
    """How items become a batch: `stack`, `pad`, `mixup`, `cutmix`, one name with its parameters, or your own
    `module:function`, called with (items, random), that returns (data, label) (data.md)."""
    bucket: BucketConfig | None = None
    """Put samples of alike lengths together in batches; null leaves that to chance."""
    batches: Own | None = None
    """Your `module:function`, called with (lengths, epoch, seed), that returns the global batches of an epoch."""
    params: Parameters = {}
    """Arguments of your own function; for `npy`, `num_classes`."""
    workers: Workers = "auto"
    """Threads or processes of each rank that read or decode samples; `auto` means its share of the host's cores, 0
    that the thread that makes batches, or trains, does it itself."""
    worker_kind: Literal["thread", "process"] = "thread"
    """What workers are: `process` is for items of your own, of which threads read one at a time (data.md)."""
    prefetch: Annotated[int, Field(ge=1, le=100)] | None = None
    """Batches that are made ahead of time; null means 3 for picture files and from worker processes, otherwise 1."""
    timeout_s: Seconds = 120.0
    """Seconds that a worker may take for one sample before the run ends."""
    pictures: PicturesConfig | None = None
    """Picture files, for `records` and `folder`."""

    @model_validator(mode="after")
    def _batches_are_said_once(self) -> DataConfig:
        bucket = self.bucket
        if bucket is None:
            return self
        if bucket.widths is None and self.batches is None:
            message = "is missing; give the widths of the buckets, such as [16, 32, 64], or the number of buckets"
            raise RefusedError([Problem(("bucket", "widths"), message)])
        if bucket.widths is not None and self.batches is not None:
            message = f"has no effect beside data.batches ({self.batches}), which says what is in a batch; remove it"
            raise RefusedError([Problem(("bucket", "widths"), message)])
        return self


class BatchConfig(Section):
    """A global batch is `shards` shards of `size` samples; null means as many shards as workers at the first start."""

    size: Count = 32
    """Samples per shard."""
    shards: Count | None = None
    """Shards per global batch, fixed for the life of a run; null means one per worker at the first start."""


class EarlyStopConfig(Section):
    """End the run once evaluations no longer improve, as Keras' EarlyStopping does."""

    monitor: Name = "loss"
    """What is watched: `loss`, or a metric of `evaluation.metrics`, of the first held-out split."""
    mode: Literal["min", "max"] | None = None
    """For your own metric: whether the lowest (`min`) or the highest value (`max`) is the best."""
    patience: Count
    """After so many evaluations in a row without improvement the run ends."""
    min_delta: Factor = 0.0
    """By how much a value must be better than the best one to be an improvement."""


class TrainConfig(Section):
    """The length of the run, in either epochs or iterations."""

    epochs: Count | None = None
    """The run's length in epochs."""
    iterations: Count | None = None
    """The run's length in updates."""
    last_batch: Literal["drop", "keep"] = "drop"
    """What to do with the remainder of an epoch: drop it, or keep it as a smaller batch."""
    early_stop: EarlyStopConfig | None = None
    """End the run before its full length, once evaluations no longer improve (plateau.md)."""
    tokens_per_sample: Count | None = None
    """Tokens in every sample, for lengths such as `3e9tok`; every update checks it against the weights of the loss."""

    @model_validator(mode="after")
    def _one_length(self) -> TrainConfig:
        if (self.epochs is None) == (self.iterations is None):
            found = "neither" if self.epochs is None else f"both (epochs: {self.epochs}, iterations: {self.iterations})"
            raise RefusedError([Problem((), f"found {found}; give the run's length as either epochs or iterations")])
        return self

    def __str__(self) -> str:
        """The run's length as written."""
        return f"{self.epochs}ep" if self.epochs is not None else f"{self.iterations}it"


class EvaluationConfig(Section):
    """How often to evaluate (always at the end as well), and with which metrics besides the loss."""

    every: Period | None = Duration.parse("1ep")
    """How often to evaluate the first held-out split; null means only at the end."""
    metrics: list[MetricChoice] = ["accuracy"]
    """Names, or names with parameters (`{top_k: {k: 3}}`): `accuracy`, `error`, `top_k`, `top_5_accuracy`,
    `binary_accuracy`, `pixel_accuracy`, `miou`, `f1`, `mcc`, `roc_auc`, `cross_entropy`, `perplexity`, `mae`, `mse`,
    `rmse`, `correlation`; one of MXNet's (`mxnet.metric:NAME`); or your own `module:function`."""
    streams: Count | None = None
    """With `network.state`: the rows that read a split from front to back; null: as many as a global batch has."""


class NetworkConfig(Section):
    """The network by name or `module:function`, its initial weights and its loss."""

    name: Name
    """`mlp`, `cnn`, `lenet`, `mnist_cnn`, a name of `gluon.model_zoo.vision`, or your own `module:function`."""
    params: Parameters = {}
    """Arguments of the network; the harness adds `classes`."""
    initializer: Initializer = "xavier"
    """A name of `mx.init` other than load, mixed and fusedrnn, or one name with its parameters."""
    loss: Name = "softmax_cross_entropy"
    """A Gluon loss by name, or your own `module:function`: one value per sample, or (numerators, weights)."""
    loss_params: Parameters = {}
    """Arguments of the loss."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """In training, the part of each label that is spread evenly over all classes; for a classification loss by name."""
    forward: Own | None = None
    """Your `module:function`, called with (net, loss, data, label), that returns (prediction, losses); with
    `network.state` both end with the state."""
    state: Own | None = None
    """Your `module:function`, called with a number of rows, that returns the first state that a shard carries; the
    network is then called with (data, state) and returns (output, state)."""
    hybridize: bool = True
    """Compile the network, to train from an optimised graph (performance.md)."""

    @model_validator(mode="after")
    def _smoothing_has_an_effect(self) -> NetworkConfig:
        if self.label_smoothing and self.loss not in SMOOTHED_LOSSES:
            message = (
                f"{self.label_smoothing:g} has no effect on the loss {self.loss!r}; it is for "
                f"{', '.join(SMOOTHED_LOSSES)}; remove it"
            )
            raise RefusedError([Problem(("label_smoothing",), message)])
        return self

    @property
    def picks_classes(self) -> bool:
        """Whether the loss is the one of Gluon's to which integer labels are classes."""
        return self.loss == "softmax_cross_entropy" and self.loss_params.get("sparse_label", True) is True


class LayerDecayConfig(Section):
    """Learning rates that fall from the output to the input, by the same factor from each layer to the next."""

    rate: Annotated[float, Field(gt=0, lt=1)]
    """The factor from a layer to the one below it; above the last of `layers` it is 1."""
    layers: Layers
    """Patterns of parameter names, from the input to the output; `#` is a number: `[embed.*, cells.#.*]`."""


class OptimizerConfig(Section):
    """An optimizer, its arguments, and factors for individual network parameters."""

    name: Name = "sgd"
    """A name of `mx.optimizer`, `adamw`, or your own `module:Class` (optimizers.md)."""
    params: Parameters = {}
    """Arguments of the optimizer, except the learning rate."""
    lr_mult: dict[str, Factor] = {}
    """Learning-rate factors by patterns of parameter names, such as `features.*`; the last that matches counts."""
    layer_decay: LayerDecayConfig | None = None
    """Learning-rate factors by depth; they multiply those of `lr_mult`."""
    wd_mult: dict[str, Factor] = {}
    """Weight-decay factors by patterns of parameter names; the last that matches counts."""
    decay_bias_and_norm: bool = False
    """Apply weight decay also to biases and to the gamma and beta of normalisation layers."""
    clip_norm: Positive | None = None
    """Clip the mean gradient to this Euclidean norm."""
    clip_value: Positive | None = None
    """Clip each element of the mean gradient to this absolute value."""

    @model_validator(mode="after")
    def _parameters_are_free(self) -> OptimizerConfig:
        problems = [
            Problem(("params", name), f"cannot be set here; {_OWNED[name]}") for name in self.params if name in _OWNED
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
                f"found {show(found)}; must be a number that float32 can hold: 0, or "
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
        """The optimizer's own momentum, if it has one, for use without a momentum schedule."""
        momentum: float | None = self.params.get("momentum")
        return momentum

    @property
    def has_momentum(self) -> bool:
        """Whether the optimizer keeps a momentum buffer that a learning rate or momentum schedule affects."""
        name = self.name.lower()
        has_buffer = name in HAVE_MOMENTUM and bool(self.params.get("momentum", name == "signum"))
        return has_buffer or name in HAVE_BETA1


class InitConfig(Section):
    """Where a new run's weights come from, and which of them stay frozen."""

    from_: Annotated[PathText | None, Field(alias="from")] = None
    """Weights to start a new run from: a `.params` file, an exported network (its `-symbol.json`) or a checkpoint."""
    match: Literal["all", "head", "shapes"] = "head"
    """What must match: `all`; all except the outputs of one layer (`head`); or nothing (`shapes`: take what fits)."""
    freeze: list[str] = []
    """Patterns of parameter names (`features.*`) to freeze; a frozen batch norm also keeps its running statistics."""

    @model_validator(mode="after")
    def _nothing_is_idle(self) -> InitConfig:
        if self.from_ is None and self.match != "head":
            raise RefusedError([Problem(("match",), f"{self.match} has no effect without init.from; name the weights")])
        return self
