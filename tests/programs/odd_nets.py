"""Networks that Gluon takes and that are not made of its usual layers: imported, untraceable, initialised oddly."""

from __future__ import annotations

import random

import mxnet as mx
import numpy as np
from mxnet.gluon import nn


def small_cnn(classes: int = 4) -> nn.HybridSequential:
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 3, padding=1, use_bias=False), nn.BatchNorm(), nn.Activation("relu"), nn.Dense(classes))
    return net


def export(prefix: str, classes: int = 4) -> None:
    """Write `prefix-symbol.json` and `prefix-0000.params`, for pictures of 1 x 6 x 6."""
    mx.random.seed(3)
    net = small_cnn(classes)
    net.initialize(mx.init.Xavier())
    net.hybridize()
    net(mx.nd.zeros((1, 1, 6, 6)))
    net.export(prefix, epoch=0)
    net.save_parameters(f"{prefix}.params")


def imported(prefix: str) -> mx.gluon.SymbolBlock:
    return mx.gluon.SymbolBlock.imports(f"{prefix}-symbol.json", ["data"], f"{prefix}-0000.params")


class Holder(nn.Block):
    """An imported network inside a plain Block, which no graph shows as a whole."""

    def __init__(self, inner: mx.gluon.Block) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) * 1.0


def imported_inside(prefix: str) -> Holder:
    return Holder(imported(prefix))


def imported_below(prefix: str) -> nn.HybridSequential:
    """An imported network with a layer of one's own behind it."""
    net = nn.HybridSequential()
    net.add(imported(prefix), nn.Dense(4))
    return net


class ReadsShape(nn.HybridBlock):
    """Works in Gluon without hybridize."""

    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.out = nn.Dense(4)

    def hybrid_forward(self, F, x):
        return self.out(x.reshape((x.shape[0], -1)))


class AsksValue(ReadsShape):
    def hybrid_forward(self, F, x):
        return self.out(F.relu(x) if x.sum() > -1e9 else x)


class UsesNumpy(ReadsShape):
    def hybrid_forward(self, F, x):
        return self.out(x * float(np.tanh(x.asnumpy()).max() > -2))


class LoopsOverShape(ReadsShape):
    def hybrid_forward(self, F, x):
        return sum(self.out(x) * (i + 1) for i in range(x.ndim))


class AsksLength(ReadsShape):
    """Of a symbol, `len` is the number of outputs."""

    def hybrid_forward(self, F, x):
        return self.out(x) * len(x)


class TakesFirst(ReadsShape):
    """Of a symbol, `x[0]` is the whole of it."""

    def hybrid_forward(self, F, x):
        return F.broadcast_add(self.out(x), F.reshape(F.mean(x[0]), (1, 1)))


class AsksMode(ReadsShape):
    """What dropout is for, by hand."""

    def forward(self, x):
        return super().forward(x * 2 if mx.autograd.is_training() else x)

    def hybrid_forward(self, F, x):
        return self.out(x)


class AsksModeInside(ReadsShape):
    def hybrid_forward(self, F, x):
        return self.out(x * 2 if mx.autograd.is_training() else x)


class WeightDrop(mx.gluon.Parameter):
    """A parameter that is read through dropout: another array at every `data()`."""

    def data(self, ctx=None):
        return mx.nd.Dropout(super().data(ctx), p=0.4)


class Dropped(nn.HybridBlock):
    def __init__(self) -> None:
        super().__init__()
        self.weight = WeightDrop("dropped_weight", shape=(4, 12))
        self._reg_params["weight"] = self.weight

    def collect_params(self, select=None):
        found = super().collect_params(select)
        found.update({"dropped_weight": self.weight})
        return found

    def hybrid_forward(self, F, x, weight):
        return F.FullyConnected(x, weight, no_bias=True, num_hidden=4, flatten=True)


class SelfMade(nn.HybridBlock):
    """Initialises itself in its constructor, and scales by constants from all three generators."""

    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.first, self.out = nn.Dense(8, in_units=12), nn.Dense(4)
            self.scale = self.params.get_constant("scale", np.random.uniform(0.5, 1.5, 8).astype(np.float32))
        self.factor = 1 + random.random()
        self.first.initialize(mx.init.Normal(0.3))

    def hybrid_forward(self, F, x, scale):
        return self.out(F.broadcast_mul(F.relu(self.first(x)) * self.factor, F.reshape(scale, (1, -1))))


class HalfMade(nn.HybridSequential):
    """Two layers of one shape for digits, of which it initialises the first in its constructor."""

    def __init__(self) -> None:
        super().__init__()
        self.add(nn.Dense(64, in_units=64), nn.Dense(64, in_units=64))
        self[0].initialize(mx.init.Normal(0.3))


class VectorWeight(nn.HybridBlock):
    """A parameter of one dimension without an initializer of its own."""

    def __init__(self, init=None, size: int = 12) -> None:
        super().__init__()
        with self.name_scope():
            self.slope = self.params.get("slope", shape=(size,), init=init, allow_deferred_init=True)
            self.out = nn.Dense(4)

    def infer_shape(self, x):
        self.slope.shape = (x.shape[1],)

    def hybrid_forward(self, F, x, slope):
        return self.out(F.broadcast_mul(x, F.reshape(slope, (1, -1))))


def vector_inside(size: int = 12) -> nn.HybridSequential:
    net = nn.HybridSequential()
    net.add(nn.Dense(12), VectorWeight(size=size))
    return net


def plain_child() -> nn.HybridSequential:
    """Gluon itself refuses this one."""
    net = nn.HybridSequential()
    net.add(Holder(nn.Dense(4)))
    return net


class Pictures:
    """48 pictures of four classes."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self.label = generator.integers(0, 4, 48)
        self.data = generator.normal(2 * self.label[:, None, None, None], size=(48, 1, 6, 6)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int):
        return self.data[index], self.label[index]


def pictures():
    return {"train": Pictures(), "test": Pictures(), "num_classes": 4}


def transposed() -> nn.HybridSequential:
    net = nn.HybridSequential()
    net.add(nn.Conv2DTranspose(4, 2), nn.BatchNorm(), nn.Conv2D(5, 2), nn.Dense(3))
    return net


def transposed_lines() -> nn.HybridSequential:
    net = nn.HybridSequential()
    net.add(nn.HybridLambda(lambda F, x: x.reshape((0, 0, -1))), nn.Conv1DTranspose(3, 3, strides=2), nn.Dense(3))
    return net


class Transposed(nn.HybridBlock):
    """A deconvolution with a weight of its own."""

    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.weight = self.params.get("weight", shape=(2, 3, 3, 3))
            self.dense = nn.Dense(3)

    def hybrid_forward(self, F, x, weight):
        return self.dense(F.Deconvolution(x, weight, kernel=(3, 3), num_filter=3, no_bias=True))
