"""Networks in Gluon, each with a counterpart of the same name in `torch_nets.py`."""

from __future__ import annotations

import mxnet as mx
import numpy as np
from mxnet.gluon import nn, rnn
from mxnet.gluon.model_zoo import vision

from harness.model.networks import mlp, mnist_cnn

LENGTH, VOCABULARY, CLASSES, WIDTH = 7, 20, 5, 12
RANDOM = np.random.default_rng(0)
TOKENS = RANDOM.integers(0, VOCABULARY, (8, LENGTH)).astype(np.int32)


def pictures(channels, size):
    return np.random.default_rng(1).normal(size=(8, channels, size, size)).astype(np.float32)


class Recurrent(nn.HybridBlock):
    def __init__(self, cls, layers, bidirectional, **kwargs):
        super().__init__()
        with self.name_scope():
            self.embed = nn.Embedding(VOCABULARY, WIDTH)
            self.rnn = cls(6, layers, layout="NTC", bidirectional=bidirectional, input_size=WIDTH, **kwargs)
            self.out = nn.Dense(CLASSES)

    def hybrid_forward(self, F, x):
        return self.out(F.mean(self.rnn(self.embed(x)), axis=1))


class EncoderLayer(nn.HybridBlock):
    def __init__(self, heads=3, hidden=16):
        super().__init__()
        self._heads = heads
        with self.name_scope():
            for name in ("query", "key", "value", "proj"):
                setattr(self, name, nn.Dense(WIDTH, flatten=False))
            self.norm1, self.norm2 = nn.LayerNorm(), nn.LayerNorm()
            self.up = nn.Dense(hidden, flatten=False, activation="relu")
            self.down = nn.Dense(WIDTH, flatten=False)

    def _by_head(self, F, x):
        return F.reshape(F.transpose(F.reshape(x, (0, 0, self._heads, -1)), (0, 2, 1, 3)), (-3, 0, 0))

    def hybrid_forward(self, F, x):
        query, key, value = (self._by_head(F, one(x)) for one in (self.query, self.key, self.value))
        scores = F.batch_dot(query, key, transpose_b=True) / (WIDTH // self._heads) ** 0.5
        attended = F.batch_dot(F.softmax(scores), value)
        attended = F.transpose(F.reshape(attended, (-4, -1, self._heads, 0, 0)), (0, 2, 1, 3))
        x = self.norm1(x + self.proj(F.reshape(attended, (0, 0, -3))))
        return self.norm2(x + self.down(self.up(x)))


class Transformer(nn.HybridBlock):
    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.embed = nn.Embedding(VOCABULARY, WIDTH)
            self.position = self.params.get("position", shape=(1, LENGTH, WIDTH), init=mx.init.Normal(0.1))
            self.layers = nn.HybridSequential()
            self.layers.add(EncoderLayer(), EncoderLayer())
            self.out = nn.Dense(CLASSES)

    def hybrid_forward(self, F, x, position):
        return self.out(F.mean(self.layers(F.broadcast_add(self.embed(x), position)), axis=1))


class Tied(nn.HybridBlock):
    """A language model whose output layer has the weights of its embedding."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.embed = nn.Embedding(VOCABULARY, WIDTH)
            self.middle = nn.Dense(WIDTH, flatten=False, activation="tanh")
            self.out = nn.Dense(VOCABULARY, flatten=False, params=self.embed.params)

    def hybrid_forward(self, F, x):
        return F.mean(self.out(self.middle(self.embed(x))), axis=1)


class Cells(nn.HybridBlock):
    """Single steps of recurrent layers, in a loop."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.embed = nn.Embedding(VOCABULARY, WIDTH)
            self.cells = nn.HybridSequential()
            self.cells.add(
                rnn.LSTMCell(6, input_size=WIDTH), rnn.GRUCell(6, input_size=6), rnn.RNNCell(6, input_size=6)
            )
            self.out = nn.Dense(CLASSES)

    def hybrid_forward(self, F, x):
        x = self.embed(x)
        for cell in self.cells:
            x, _ = cell.unroll(LENGTH, x, layout="NTC", merge_outputs=True)
        return self.out(F.mean(x, axis=1))


class Rest(nn.HybridBlock):
    """Layers that no other network here has: grouped and transposed convolutions, norms, PReLU."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.first = nn.Conv2D(4, 3, padding=1)
            self.grouped = nn.Conv2D(8, 3, padding=1, groups=2)
            self.instance = nn.InstanceNorm()
            self.prelu = nn.PReLU()
            self.up = nn.Conv2DTranspose(8, 3, strides=2, padding=1, output_padding=1, groups=2, in_channels=8)
            self.group = nn.GroupNorm(4)
            self.flat = nn.Dense(CLASSES)

    def hybrid_forward(self, F, x):
        x = self.prelu(self.instance(self.grouped(self.first(x))))
        return self.flat(F.Pooling(self.group(self.up(x)), global_pool=True, pool_type="avg"))


class Pictures(nn.HybridBlock):
    """For what can be got wrong with pictures."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.conv1 = nn.Conv2D(6, 3, padding=1)
            self.norm1 = nn.BatchNorm()
            self.conv2 = nn.Conv2D(6, 3, padding=1)
            self.norm2 = nn.BatchNorm()
            self.conv3 = nn.Conv2D(6, 3, padding=1)
            self.pool = nn.MaxPool2D(2)
            self.drop = nn.Dropout(0.25)
            self.fc1 = nn.Dense(16, activation="relu")
            self.fc2 = nn.Dense(16, activation="relu")
            self.out = nn.Dense(CLASSES)

    def hybrid_forward(self, F, x):
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.LeakyReLU(self.norm2(self.conv2(x)), act_type="leaky", slope=0.2)
        return self.out(self.fc2(self.fc1(self.drop(self.pool(self.conv3(x))))))


NETWORKS = {
    "mlp": (lambda: mlp(hidden=(32, 32)), pictures(1, 8)),
    "mnist_cnn": (lambda: mnist_cnn(hidden=32), pictures(1, 28)),
    "resnet18_v2": (lambda: vision.resnet18_v2(classes=10, thumbnail=True), pictures(3, 16)),
    "mobilenet_v2": (lambda: vision.mobilenet_v2_0_25(classes=10), pictures(3, 32)),
    "lstm": (lambda: Recurrent(rnn.LSTM, 2, True), TOKENS),
    "gru": (lambda: Recurrent(rnn.GRU, 2, False), TOKENS),
    "rnn": (lambda: Recurrent(rnn.RNN, 1, True, activation="tanh"), TOKENS),
    "transformer": (Transformer, TOKENS),
    "cells": (Cells, TOKENS),
    "tied": (Tied, TOKENS),
    "rest": (Rest, pictures(3, 6)),
    "pictures": (Pictures, pictures(3, 8)),
}


def built(name):
    """A network with random weights and statistics, and samples for it."""
    make, data = NETWORKS[name]
    mx.random.seed(7)
    net = make()
    net.initialize(mx.init.Xavier())
    net(mx.nd.array(data, dtype=data.dtype))
    generator = np.random.default_rng(2)
    for path, parameter in net._collect_params_with_prefix().items():
        if parameter.grad_req == "null" and not path.endswith(("running_mean", "running_var")):
            continue
        values = parameter.data().asnumpy()
        if path.endswith("running_var"):
            values = generator.uniform(0.5, 2, values.shape)
        elif values.ndim == 1:
            values = values + generator.normal(0, 0.3, values.shape)
        parameter.set_data(mx.nd.array(values))
    return net, data
