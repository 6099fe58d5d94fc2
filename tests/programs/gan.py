"""A generator and a discriminator (Goodfellow et al. 2014, arXiv 1406.2661), each with a learner and rates of its own.

Run as a program, it trains both, perhaps from a checkpoint, and rank 0 prints the digest.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mxnet as mx
import numpy as np
from mxnet.gluon import nn

from harness.checkpoint import iteration_of
from harness.comm import connect
from harness.data import Batch, GlobalBatch
from harness.gluon import Learner, Learners, LearnerState, Placement, UpdateOptions, shards_of_rank
from harness.guard import ConsistencyCheck

POINTS, NOISE, SHARDS, ROWS, UPDATES, SAVED_AT = 6, 3, 4, 5, 12, 5
LOSS = mx.gluon.loss.SigmoidBinaryCrossEntropyLoss()


class GAN(nn.HybridBlock):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        with self.name_scope():
            self.generator, self.discriminator = nn.HybridSequential(), nn.HybridSequential()
            self.generator.add(nn.Dense(8, activation="relu"), nn.BatchNorm(), nn.Dense(POINTS))
            self.discriminator.add(nn.Dense(8), nn.BatchNorm(), nn.LeakyReLU(0.2), nn.Dropout(dropout), nn.Dense(1))

    def hybrid_forward(self, F, noise):
        return self.discriminator(self.generator(noise))


def gan(contexts=(), dropout=0.1):
    net = GAN(dropout)
    mx.random.seed(3)
    net.initialize(mx.init.Xavier(), ctx=list(contexts) or mx.cpu())
    net(mx.nd.zeros((2, NOISE)))
    return net


def loss_of(score, is_real):
    return LOSS(score, mx.nd.ones_like(score) if is_real else mx.nd.zeros_like(score))


def judge(net, loss, data, label):
    """The discriminator's loss, as its learner has it: from real points and those of `forward_only`."""
    real, made = (net(points) for points in data)
    return real, loss_of(real, True) + loss_of(made, False)


def judge_whole(net, loss, data, label):
    """The same where the learner has the whole network, and generates points itself."""
    real, noise = data
    with mx.autograd.pause(train_mode=mx.autograd.is_training()):
        made = net.generator(noise)
    return judge(net.discriminator, loss, (real, made), label)


def fool(net, loss, data, label):
    made = net.generator(data[1])
    return made, loss_of(net.discriminator(made), True)


def batch_of(t, own):
    """Points on a curve and noise; sizes differ by shard, and one is empty now and then."""
    batches = []
    for shard in range(SHARDS):
        random = np.random.default_rng([t, shard])
        rows = 0 if (t + shard) % 5 == 0 else ROWS - shard
        angle = random.uniform(0, 3, (rows, 1)) + np.arange(POINTS) / 4
        noise = random.normal(size=(rows, NOISE)).astype(np.float32)
        batches.append(Batch(shard, (np.sin(angle).astype(np.float32), noise), np.ones(rows, np.float32)))
    return GlobalBatch(t, tuple(batches[shard] for shard in own), sum(one.count for one in batches))


def learners_of(world, contexts=(), whole=False, pattern="generator.*", **options):
    """Generator's and discriminator's; `whole`: both over the whole network."""
    net = gan(contexts)
    given = {"shards": SHARDS, "sample": batch_of(1, [0]), "placement": Placement(contexts)}
    given["options"] = UpdateOptions(**options)
    adam, sgd = mx.optimizer.Adam(beta1=0.5), mx.optimizer.SGD(momentum=0.9)
    generator = Learner(net, LOSS, adam, world, forward=fool, trainable=pattern, **given)
    if whole:
        judging = Learner(net, LOSS, sgd, world, forward=judge_whole, trainable=["discriminator.*"], **given)
    else:
        first = batch_of(1, [0]).batches[0]
        given["sample"] = Batch(0, (first.data[0], first.data[0]), first.label)
        judging = Learner(net.discriminator, LOSS, sgd, world, forward=judge, **given)
    return Learners({"generator": generator, "discriminator": judging}), generator, judging


def update(t, own, generator, judging, whole=False):
    """One update of each, at rates of its own."""
    batch = batch_of(t, own)
    seen = batch
    if not whole:
        made = generator.forward_only(batch)
        pairs = zip(batch.batches, made, strict=True)
        batches = tuple(
            Batch(one.shard, (one.data[0], one.data[0][:0] if points is None else points), one.label)
            for one, points in pairs
        )
        seen = GlobalBatch(t, batches, batch.num_samples)
    return float(judging.update(seen, 0.05 / t, 0.5)), float(generator.update(batch, 0.01))


def main(folder: Path, begun: Path | None, *, whole: bool, apart: bool) -> None:
    world = connect()
    pattern = "generator.0.*" if apart and world.rank else "generator.*"
    learners, *both = learners_of(world, whole=whole, pattern=pattern)
    t, losses, own = 0, [], shards_of_rank(SHARDS, world)
    if begun is not None:
        t = iteration_of(begun)
        world.on_root("resume", lambda: learners.restore(LearnerState.load(begun)))
        learners.broadcast_state()
    while t < UPDATES:
        t += 1
        losses.append(update(t, own, *both, whole=whole))
        if t == SAVED_AT:
            learners.gather_state()
            world.on_root("save", lambda t=t: str(learners.snapshot().save(folder, t)))
    ConsistencyCheck(world, learners).verify(t, 0.01, None, 0)
    if world.rank == 0:
        print("FOUND", json.dumps([learners.digest(), losses[SAVED_AT - UPDATES :]]), flush=True)
    world.close()


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        None if sys.argv[2] == "new" else Path(sys.argv[2]),
        whole=sys.argv[3] == "whole",
        apart=sys.argv[3] == "apart",
    )
