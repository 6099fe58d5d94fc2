"""Batches in memory that is used again: MXNet computes asynchronously, and has to have read a batch before."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

from harness.comm import SingleWorld
from harness.data import Augmentation, BatchStream, Order
from harness.data.memory import BatchMemory
from harness.gluon import Learner, UpdateOptions

SAMPLES = np.random.default_rng(0).normal(size=(64, 3, 16, 16)).astype(np.float32)


class NotUsedAgain(BatchMemory):
    def empty(self, shape):
        self.num_made += 1
        return np.empty(shape, np.float32)


class Spoilt(BatchMemory):
    """Whatever still reads memory that is given out again reads NaN."""

    def empty(self, shape):
        array = super().empty(shape)
        array[:] = np.nan
        return array


class Split:
    """Samples of float32, each batch of them in memory of a kind."""

    full_scale, source = 1.0, "here"

    def __init__(self, memory):
        self.memory = memory

    def __len__(self):
        return len(SAMPLES)

    def take(self, indices, *draws):
        data = self.memory.empty((len(indices), *SAMPLES.shape[1:]))
        data[:] = SAMPLES[indices]
        return data, indices % 3

    def labels(self):
        return None


def net_that_takes_long():
    net = nn.HybridSequential()
    net.add(nn.Conv2D(32, 5, padding=2), nn.Activation("relu"), nn.Conv2D(32, 5, padding=2), nn.Flatten(), nn.Dense(3))
    mx.random.seed(3)
    net.initialize(mx.init.Xavier())
    return net


def digest_after(memory, hybridize, updates=16):
    split, order = Split(memory), Order(len(SAMPLES), shards=2, batch_size=8, seed=1)
    loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    options = UpdateOptions(hybridize=hybridize)
    with BatchStream(split, order, [0, 1], Augmentation(is_done=True), seed=1, prefetch=3) as stream:
        learner = Learner(
            net_that_takes_long(),
            loss,
            mx.optimizer.SGD(),
            SingleWorld(),
            shards=2,
            sample=SAMPLES[:1],
            options=options,
        )
        for t in range(1, updates + 1):
            learner.update(stream(t), 0.01)
        return learner.digest()


@pytest.mark.parametrize("hybridize", [False, True])
def test_a_batch_is_read_before_its_memory_is_used_again(hybridize):
    memory, fresh = Spoilt(), NotUsedAgain()
    assert digest_after(memory, hybridize) == digest_after(fresh, hybridize)
    assert memory.num_made < fresh.num_made / 2


def test_mxnet_holds_memory_until_what_was_asked_of_it_is_computed():
    memory = BatchMemory()
    before = mx.nd.ones((600, 600))
    for number in range(5):
        for _ in range(4):
            before = mx.nd.dot(before, before) * 1e-4
        array = memory.empty((100, 100))
        array[:] = number
        on_device = mx.nd.from_numpy(array[:])
        total = (on_device + before[:100, :100] * 0).sum()  # waits for what comes before
        del array, on_device
        memory.empty((100, 100))[:] = np.nan
        assert total.asscalar() == 10_000 * number
        del total
