"""What users bring: networks, losses, data and schedules of their own, good ones and bad ones."""

from __future__ import annotations

import os
import sys

import mxnet as mx
import numpy as np
from mxnet.gluon import nn


class Items:
    """200 items of four classes; the 38th is of a kind by itself, which `how` tells."""

    def __init__(self, how: str) -> None:
        generator = np.random.default_rng(0)
        self.data = generator.normal(size=(200, 12)).astype(np.float32)
        self.label = generator.integers(0, 4, 200)
        self.how = how

    def __len__(self) -> int:
        return 200

    def __getitem__(self, index: int):
        if index == 37 and self.how == "raises":
            raise OSError("the disk is on strike")
        if index == 37 and self.how == "exits":
            sys.exit(0)
        return self.data[index], np.int64(9) if index == 37 and self.how == "class 9" else self.label[index]


def data(how: str = "good"):
    return {"train": Items(how), "test": Items("good"), "num_classes": 4}


class TwoOutputs(nn.HybridBlock):
    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.one, self.two = nn.Dense(4), nn.Dense(4)

    def hybrid_forward(self, F, x):
        return self.one(x), self.two(x)


class Exits(nn.Block):
    """Ends the process in its third training forward."""

    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.dense = nn.Dense(4)
        self.calls = 0

    def forward(self, x):
        self.calls += mx.autograd.is_training()
        if self.calls == 3:
            sys.exit(0)
        return self.dense(x)


def two_outputs():
    return TwoOutputs()


def exits():
    return Exits()


def exits_at_once():
    sys.exit(0)


class NoisyLoss(mx.gluon.loss.Loss):
    """Cross entropy of predictions with dropout: the random numbers are in the loss, not in the network."""

    def __init__(self) -> None:
        super().__init__(1.0, 0)
        self.plain = mx.gluon.loss.SoftmaxCrossEntropyLoss()

    def hybrid_forward(self, F, prediction, label):
        return self.plain(F.Dropout(prediction, p=0.3), label)


def noisy_loss():
    return NoisyLoss()


def hill(peak: float, length: int):
    return lambda t: peak * min(t, length) / length


def of_mxnet(peak: float):
    return mx.lr_scheduler.CosineScheduler(20, base_lr=peak)


def no_schedule():
    return 5


class Unrolled(nn.HybridBlock):
    """Dropout inside a loop of the graph, where only the loop's own graph shows it."""

    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.dense = nn.Dense(4)

    def hybrid_forward(self, F, x):
        rows = F.reshape(F.transpose(x), (12, -1, 1))
        begin = F.zeros_like(F.reshape(F.slice_axis(rows, axis=0, begin=0, end=1), (-3, 0)))
        out, _ = F.contrib.foreach(lambda row, state: (F.Dropout(row + state, p=0.5), row + state), rows, begin)
        return self.dense(F.transpose(F.reshape(out, (12, -1))))


class NumpyNoise(nn.Block):
    """Draws from NumPy's global generator while it trains."""

    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.dense = nn.Dense(4)

    def forward(self, x):
        if mx.autograd.is_training():
            x = x + mx.nd.array(np.random.normal(size=x.shape))
        return self.dense(x)


def unrolled():
    return Unrolled()


def numpy_noise():
    return NumpyNoise()


def normed():
    net = nn.HybridSequential()
    net.add(nn.Dense(16), nn.BatchNorm(), nn.Activation("relu"), nn.Dropout(0.2), nn.Dense(4))
    return net


class Blobs:
    """4,000 items of four classes that can be told apart; on rank 1 alone, item BAD_ITEM is not a number."""

    def __init__(self, bad: int | None = None) -> None:
        generator = np.random.default_rng(0)
        self.label = generator.integers(0, 4, 4000)
        self.data = generator.normal(generator.normal(size=(4, 12))[self.label]).astype(np.float32)
        if os.environ.get("HOROVOD_RANK") == "1" and os.environ["BAD_ITEM"] != "none":
            self.data[int(os.environ["BAD_ITEM"])] = np.nan
        if bad is not None:
            self.data[bad] = np.nan

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int):
        return self.data[index], self.label[index]


def data_with_nan(item):
    """The same in one process, where `item` is not a number."""
    return {"train": Blobs(item), "test": Items("good"), "num_classes": 4}


def data_of_rank():
    return {"train": Blobs(), "test": Items("good"), "num_classes": 4}
