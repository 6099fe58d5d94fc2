"""Networks, initializers and losses by name, or the user's own as `module:function`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mxnet as mx
from mxnet.gluon import nn
from mxnet.gluon.model_zoo import vision

from harness.errors import ConfigError
from harness.model.metric_kinds import class_axis
from harness.model.soft_labels import SmoothedLoss
from harness.named import call, choose, load_function

Parameters = Mapping[str, Any]


def mnist_cnn(classes: int = 10, hidden: int = 512) -> nn.HybridSequential:
    """The network of MXNet's learning-rate tutorials: two 5x5 convolutions with pooling, two dense layers."""
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(10, kernel_size=5, activation="relu"),
        nn.MaxPool2D(2, 2),
        nn.Conv2D(20, kernel_size=5, activation="relu"),
        nn.MaxPool2D(2, 2),
        nn.Flatten(),
        nn.Dense(hidden, activation="relu"),
        nn.Dense(classes),
    )
    return net


def lenet(classes: int = 10) -> nn.HybridSequential:
    """The network of MXNet's MNIST tutorial, after LeNet-5 (LeCun et al. 1998)."""
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(20, kernel_size=5, activation="tanh"),
        nn.MaxPool2D(2, 2),
        nn.Conv2D(50, kernel_size=5, activation="tanh"),
        nn.MaxPool2D(2, 2),
        nn.Flatten(),
        nn.Dense(500, activation="tanh"),
        nn.Dense(classes),
    )
    return net


def cnn(
    classes: int = 10,
    channels: Sequence[int] = (32, 64),
    hidden: int = 128,
    dropout: float = 0.0,
    batch_norm: bool = True,
) -> nn.HybridSequential:
    """One 3x3 convolution (with batch norm) and a 2x2 max pooling for each of `channels`, then a hidden dense layer."""
    net = nn.HybridSequential()
    for width in channels:
        net.add(nn.Conv2D(width, kernel_size=3, padding=1, use_bias=not batch_norm))
        if batch_norm:
            net.add(nn.BatchNorm())
        net.add(nn.Activation("relu"), nn.MaxPool2D(2, 2))
    net.add(nn.Flatten(), nn.Dense(hidden, activation="relu"))
    if dropout:
        net.add(nn.Dropout(dropout))
    net.add(nn.Dense(classes))
    return net


def mlp(classes: int = 10, hidden: Sequence[int] = (64,), dropout: float = 0.0) -> nn.HybridSequential:
    """Dense layers with ReLU (and dropout) between them; any sample shape is flattened."""
    net = nn.HybridSequential()
    for width in hidden:
        net.add(nn.Dense(width, activation="relu"))
        if dropout:
            net.add(nn.Dropout(dropout))
    net.add(nn.Dense(classes))
    return net


OWN_NETWORKS: dict[str, Callable[..., nn.HybridSequential]] = {
    "mnist_cnn": mnist_cnn,
    "lenet": lenet,
    "cnn": cnn,
    "mlp": mlp,
}
LOSSES: dict[str, type[mx.gluon.loss.Loss]] = {
    "softmax_cross_entropy": mx.gluon.loss.SoftmaxCrossEntropyLoss,
    "sigmoid_binary_cross_entropy": mx.gluon.loss.SigmoidBinaryCrossEntropyLoss,
    "kl_div": mx.gluon.loss.KLDivLoss,
    "l1": mx.gluon.loss.L1Loss,
    "l2": mx.gluon.loss.L2Loss,
    "huber": mx.gluon.loss.HuberLoss,
    "hinge": mx.gluon.loss.HingeLoss,
    "squared_hinge": mx.gluon.loss.SquaredHingeLoss,
    "logistic": mx.gluon.loss.LogisticLoss,
    "poisson_nll": mx.gluon.loss.PoissonNLLLoss,
}
# all of mx.init but those that hold other initializers or arrays (load, mixed, fusedrnn)
_INITIALIZERS = [
    "bilinear",
    "constant",
    "lstmbias",
    "msraprelu",
    "normal",
    "one",
    "orthogonal",
    "uniform",
    "xavier",
    "zero",
]
_SIZED = re.compile(r"(resnet|vgg|densenet|squeezenet|inception|mobilenet)_?v?\d")


def build_network(name: str, params: Parameters, classes: int | None) -> Any:
    """A `gluon.Block` that is not initialised yet.

    Args:
        name: one of ours, a name of `gluon.model_zoo.vision`, or `module:function`.
        params: keyword arguments of the network.
        classes: the data's number of classes, used where `params` has no `classes`; `None` for regression.

    Raises:
        ConfigError: for an unknown name or arguments that the network does not take.
    """
    arguments = dict(params)
    if ":" in name:
        net = call(load_function(name, "network.name"), arguments, "network.params")
        if not isinstance(net, mx.gluon.Block):
            raise ConfigError(f"network.name: {name!r} returned {type(net).__name__}; it must return a gluon.Block")
        return net
    if classes is not None:
        arguments.setdefault("classes", classes)
    known = {**{zoo: getattr(vision, zoo) for zoo in _model_zoo()}, **OWN_NETWORKS}
    build = choose(name, known, "network.name")
    if arguments.get("pretrained"):
        raise ConfigError("network.params.pretrained: weights are not downloaded; give a .params file in init.from")
    return call(build, arguments, "network.params")


def build_initializer(spec: str | Mapping[str, Parameters]) -> Any:
    """An initializer from its name, or from `{name: parameters}`."""
    name, params = (spec, {}) if isinstance(spec, str) else next(iter(spec.items()), ("", {}))
    if not isinstance(spec, str) and len(spec) != 1:
        raise ConfigError(
            "network.initializer: give one name, or one name with its parameters: {xavier: {magnitude: 2}}"
        )
    choose(name, dict.fromkeys(_INITIALIZERS), "network.initializer")
    return call(lambda **kwargs: mx.init.create(name, **kwargs), params or {}, "network.initializer")


def build_loss(
    name: str, params: Parameters, prediction: Sequence[int] = (), label: Sequence[int] = (), smoothing: float = 0.0
) -> Any:
    """A loss that maps (prediction, label) to one value a sample.

    Args:
        name: a loss of Gluon in snake case, or `module:function`.
        params: its arguments.
        prediction: the shape of predictions, `(n, ...)`.
        label: the shape of labels; with that of predictions it tells along which axis classes lie.
        smoothing: of labels in training.
    """
    if ":" in name:
        return call(load_function(name, "network.loss"), params, "network.loss_params")
    if name == "softmax_cross_entropy" and class_axis(prediction, label) != -1:
        params = {"axis": class_axis(prediction, label), **params}
    loss = call(choose(name, LOSSES, "network.loss"), params, "network.loss_params")
    return SmoothedLoss(loss, smoothing) if smoothing else loss


def _model_zoo() -> list[str]:
    """The functions of the model zoo that build a network: their names begin with a family and a size."""
    names = [name for name, value in vars(vision).items() if callable(value) and name.islower()]
    return [name for name in names if name == "alexnet" or _SIZED.match(name)]
