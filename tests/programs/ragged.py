"""Run by test_bits.py: for each list of sizes, one update from shards of these; rank 0 prints the gradients."""

import json
import sys

import mxnet as mx
import numpy as np
from mxnet.gluon import nn

from harness.comm import connect
from harness.data import Batch, GlobalBatch
from harness.gluon import Learner, shards_of_rank

world = connect()
random = np.random.default_rng(0)
data, label = random.normal(size=(16, 6)).astype("f"), random.integers(0, 3, 16).astype("f")


def gradient(sizes):
    ends = np.cumsum(sizes)

    def stream(t):
        own = shards_of_rank(len(sizes), world)
        parts = [slice(ends[s] - sizes[s], ends[s]) for s in own]
        return GlobalBatch(t, tuple(Batch(s, data[p], label[p]) for s, p in zip(own, parts, strict=True)), sum(sizes))

    net = nn.HybridSequential()
    net.add(nn.Dense(5, activation="tanh"), nn.Dense(3))
    mx.random.seed(4)
    net.initialize(mx.init.Xavier())
    learner = Learner(
        net,
        mx.gluon.loss.SoftmaxCrossEntropyLoss(),
        mx.optimizer.SGD(),
        world,
        shards=len(sizes),
        sample=data[:1],
    )
    before = learner.snapshot().parameters
    learner.update(stream(1), 1.0)
    after = learner.snapshot().parameters
    return np.concatenate([(before[n] - after[n]).ravel() for n in before]).tolist()


gradients = [gradient(sizes) for sizes in json.loads(sys.argv[1])]
if world.rank == 0:
    print("GRADIENTS", json.dumps(gradients), flush=True)
world.close()
