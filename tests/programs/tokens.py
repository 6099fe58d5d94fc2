"""Token means: shards of other lengths and sizes on every rank, one without a valid token, one empty."""

from __future__ import annotations

import mxnet as mx
import numpy as np
from mxnet.gluon import nn

from harness.data import Batch
from tests.programs.plain_gluon import compare

SIZES, LENGTHS, WORDS, UPDATES = (3, 5, 2, 0), (4, 7, 3, 1), 11, 15


def network():
    net = nn.HybridSequential()
    net.add(nn.Embedding(WORDS, 6), nn.Dense(8, activation="tanh", flatten=False), nn.Dense(WORDS, flatten=False))
    mx.random.seed(5)
    net.initialize(mx.init.Xavier())
    return net


class TokenMean:
    """Cross entropy of every token, and 1 for those that count."""

    def __init__(self) -> None:
        self._loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()

    def __call__(self, prediction, label):
        rows, length, words = prediction.shape
        losses = self._loss(prediction.reshape((-1, words)), label["words"].reshape((-1,))).reshape((rows, length))
        return losses * label["valid"], label["valid"]


def shard(t: int, number: int) -> Batch:
    """Words to be predicted from the words before; the shard after the t-th of three has no valid token."""
    random = np.random.default_rng([t, number])
    size, length = SIZES[number], LENGTHS[number] + t % 3
    words = random.integers(0, WORDS, (size, length + 1)).astype(np.int32)
    valid = np.arange(length) < random.integers(1, length + 1, (size, 1))
    if t % 3 == number:
        valid[:] = False
    return Batch(number, words[:, :-1], {"words": words[:, 1:], "valid": valid.astype(np.float32)})


def mean(prediction, label):
    numerators, weights = TokenMean()(prediction, label)
    return numerators.sum() / weights.sum()


if __name__ == "__main__":
    compare(network, TokenMean(), shard, SIZES, UPDATES, mean)
