"""Token means: shards of other lengths and sizes on every rank, one without a valid token, one empty.

Run as a program it makes 15 updates on its ranks; rank 0 prints the losses, the digest, and how far the weights are
from those of one process of plain Gluon that sees every global batch as a whole.
"""

from __future__ import annotations

import json

import mxnet as mx
import numpy as np
from mxnet.gluon import nn

from harness.comm import connect
from harness.data import Batch, GlobalBatch
from harness.gluon import Learner, shards_of_rank

SIZES, LENGTHS, WORDS, UPDATES = (3, 5, 2, 0), (4, 7, 3, 1), 11, 15


def network(initialised: bool = True):
    net = nn.HybridSequential()
    net.add(nn.Embedding(WORDS, 6), nn.Dense(8, activation="tanh", flatten=False), nn.Dense(WORDS, flatten=False))
    mx.random.seed(5)
    if initialised:
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


def stream(world):
    own = shards_of_rank(len(SIZES), world)
    return lambda t: GlobalBatch(t, tuple(shard(t, number) for number in own), sum(SIZES))


def plainly(updates: int) -> dict[str, np.ndarray]:
    """The weights after so many updates of a `gluon.Trainer` on whole global batches, padded to one length."""
    net, loss = network(), TokenMean()
    trainer = mx.gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 0.01})
    for t in range(1, updates + 1):
        batches = [shard(t, number) for number in range(len(SIZES)) if SIZES[number]]
        longest = max(batch.data.shape[1] for batch in batches)

        def joined(arrays, longest=longest):
            return mx.nd.array(np.concatenate([np.pad(a, ((0, 0), (0, longest - a.shape[1]))) for a in arrays]))

        data = joined([batch.data for batch in batches])
        label = {key: joined([batch.label[key] for batch in batches]) for key in ("words", "valid")}
        with mx.autograd.record():
            numerators, weights = loss(net(data), label)
            mean = numerators.sum() / weights.sum()
        mean.backward()
        trainer.step(1)
    return {name: one.data().asnumpy() for name, one in net._collect_params_with_prefix().items()}


if __name__ == "__main__":
    world = connect()
    batches = stream(world)
    learner = Learner(network(), TokenMean(), mx.optimizer.Adam(), world, shards=len(SIZES), sample=shard(1, 0))
    losses = [float(learner.update(batches(t), 0.01)) for t in range(1, UPDATES + 1)]
    digest, state = learner.digest(), learner.snapshot()
    if world.rank == 0:
        expected = plainly(UPDATES)
        one, other = (np.concatenate([np.ravel(of[name]) for name in expected]) for of in (state.parameters, expected))
        away = float(np.linalg.norm(one - other) / np.linalg.norm(other))
        print("FOUND", json.dumps([losses, digest, away]), flush=True)
    world.close()
