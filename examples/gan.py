"""A generator and a discriminator of digits (Goodfellow et al. 2014, arXiv 1406.2661): two learners that share weights.

Each has an optimizer and learning rates of its own, and one checkpoint holds both. Run it, and run it again with more
epochs, which resumes: python examples/gan.py 2; mpirun -np 2 python examples/gan.py 4
"""

import sys
from pathlib import Path

import mxnet as mx
import numpy as np
from mxnet.gluon import nn

from harness.checkpoint import iteration_of, list_checkpoints, newest_valid
from harness.comm import connect
from harness.config import TrainConfig, parse_lr
from harness.data import Augmentation, Batch, BatchStream, GlobalBatch, Order, load
from harness.gluon import Learner, Learners, LearnerState, shards_of_rank
from harness.plan import LRPlan, Sizes

SHARDS, BATCH, NOISE, SEED = 2, 32, 16, 0
FOLDER = Path("runs/example-gan")
LOSS = mx.gluon.loss.SigmoidBinaryCrossEntropyLoss()


class GAN(nn.HybridBlock):
    """Noise becomes digits, digits become scores."""

    def __init__(self) -> None:
        """Make both parts."""
        super().__init__()
        with self.name_scope():
            self.generator, self.discriminator = nn.HybridSequential(), nn.HybridSequential()
            self.generator.add(nn.Dense(64), nn.BatchNorm(), nn.LeakyReLU(0.2), nn.Dense(64, activation="sigmoid"))
            self.discriminator.add(nn.Dense(64), nn.LeakyReLU(0.2), nn.Dropout(0.3), nn.Dense(1))

    def hybrid_forward(self, F, noise):  # noqa: N803
        """How real what the generator makes is."""
        return self.discriminator(self.generator(noise))


def fool(net, loss, noise, label):
    """The generator's loss: what it makes should be taken for real."""
    made = net.generator(noise)
    score = net.discriminator(made)
    return made, loss(score, mx.nd.ones_like(score))


def judge(net, loss, data, label):
    """The discriminator's loss: of data, real digits are real, and those made are not."""
    real, made = (net(digits) for digits in data)
    return real, loss(real, mx.nd.ones_like(real)) + loss(made, mx.nd.zeros_like(made))


def noise_for(batch):
    """Noise in the place of a batch's digits, by iteration and shard."""
    shards = [
        Batch(one.shard, np.random.default_rng([SEED, batch.t, one.shard]).normal(size=(one.count, NOISE)), one.label)
        for one in batch.batches
    ]
    floats = tuple(Batch(one.shard, one.data.astype(np.float32), one.label) for one in shards)
    return GlobalBatch(batch.t, floats, batch.num_samples)


def main() -> None:
    """Train, or resume training, up to a number of epochs."""
    world, digits = connect(), load("digits").train
    train = TrainConfig(epochs=int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    sizes = Sizes.of(train, num_samples=len(digits), shards=SHARDS, batch_size=BATCH)
    plan = LRPlan(parse_lr({"base": 0.002, "schedule": "1x"}), sizes)
    slower = LRPlan(
        parse_lr({"base": 0.002, "schedule": {"inverse_sqrt": {"base_lr": "1x", "timescale": "1ep"}}}), sizes
    )
    order = Order(sizes.num_samples, SHARDS, BATCH, SEED)
    mx.random.seed(1)
    net = GAN()
    net.initialize(mx.init.Xavier())
    net.generator.hybridize()
    with BatchStream(digits, order, shards_of_rank(SHARDS, world), Augmentation(), SEED) as stream:
        # The generator's learner goes through the discriminator and changes nothing there, which the other one trains.
        first = stream(1)
        adams = [mx.optimizer.Adam(beta1=0.5) for _ in range(2)]
        given = {"shards": SHARDS, "sample": noise_for(first), "forward": fool, "trainable": "generator.*"}
        generator = Learner(net, LOSS, adams[0], world, **given)
        pair = Batch(0, (first.batches[0].data, first.batches[0].data), first.batches[0].label)
        judging = Learner(net.discriminator, LOSS, adams[1], world, shards=SHARDS, sample=pair, forward=judge)
        both = Learners({"generator": generator, "discriminator": judging})

        begun = t = world.on_root("resume", lambda: resume(both))
        both.broadcast_state()
        while t < sizes.num_iterations:
            t += 1
            batch = stream(t)
            noise = noise_for(batch)
            made = generator.forward_only(noise)
            pairs = [Batch(a.shard, (a.data, b), a.label) for a, b in zip(batch.batches, made, strict=True)]
            judged = judging.update(GlobalBatch(t, tuple(pairs), batch.num_samples), slower.lr(t))
            fooled = generator.update(noise, plan.lr(t))
            if t % sizes.iterations_per_epoch == 0:
                losses = f"discriminator {float(judged):.4f}  generator {float(fooled):.4f}"
                both.check_weights(t)
                world.on_root("save", lambda t=t: str(both.snapshot().save(FOLDER, t)))
                if world.rank == 0:
                    print(f"epoch {sizes.epoch(t)}: {losses}", flush=True)
    if world.rank == 0:
        print(f"begun after {begun}, ended after {t} updates: digest {both.digest()[:12]}", flush=True)
    world.close()


def resume(both) -> int:
    """Take up the newest valid checkpoint, on rank 0; returns its iteration."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    newest = newest_valid(list_checkpoints(FOLDER)).newest
    if newest is None:
        return 0
    both.restore(LearnerState.load(newest))
    return iteration_of(newest)


if __name__ == "__main__":
    main()
