"""A loop of your own on any number of ranks: your network and data, a plan, an evaluation, and sets to go on from.

Saves the whole state after every epoch; started again, it goes on where it was, with the same bits. Run it, and run it
again with more epochs: python examples/own_loop.py 2; mpirun -np 2 python examples/own_loop.py 4
"""

import sys
from functools import partial
from pathlib import Path

import mxnet as mx
from mxnet.gluon import nn

from harness.checkpoint import iteration_of, list_checkpoints, newest_valid
from harness.comm import connect
from harness.config import TrainConfig, parse_lr
from harness.data import Augmentation, BatchStream, Order, load
from harness.gluon import Learner, State, evaluate, shards_of_rank
from harness.model import build_metrics
from harness.plan import LRPlan, Sizes

SETS = Path("runs/example-own-loop")
LR = {
    "base": 0.1,
    "reference_batch": 64,
    "warmup": {"length": "1ep", "start": 0.01},
    "schedule": {"inverse_sqrt": {"base_lr": "1x", "timescale": "2ep"}},  # has no end, so it can always go on
}


def main() -> None:
    """Train, or go on training, up to so many epochs."""
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    world, digits = connect(), load("digits")
    sizes = Sizes.of(TrainConfig(epochs=epochs), num_samples=len(digits.train), shards=2, batch_size=32)
    plan = LRPlan(parse_lr(LR), sizes)
    order = Order(sizes.num_samples, sizes.shards, sizes.batch_size, seed=0)
    net = nn.HybridSequential()
    net.add(nn.Dense(64, activation="relu"), nn.Dropout(0.2), nn.Dense(10))
    mx.random.seed(1)
    net.initialize(mx.init.Xavier())
    loss, optimizer = mx.gluon.loss.SoftmaxCrossEntropyLoss(), mx.optimizer.NAG(momentum=0.9)
    with BatchStream(digits.train, order, shards_of_rank(order.shards, world), Augmentation(), seed=0) as stream:
        learner = Learner(net, loss, optimizer, world, shards=order.shards, sample=stream(1))
        begun = world.on_root("go on", lambda: go_on(learner))
        learner.broadcast_state()
        for t in range(begun + 1, sizes.num_iterations + 1):
            learner.update(stream(t), plan.lr(t), plan.momentum(t))
            if t % sizes.iterations_per_epoch == 0:
                found = evaluate(learner, digits.test, 64, Augmentation(), build_metrics(["accuracy"]))
                world.on_root("save", partial(save, learner, t))
                if world.rank == 0:
                    print(f"epoch {sizes.epoch(t)}: lr {plan.lr(t):.4f}  accuracy {found['accuracy']:.4f}")
    if world.rank == 0:
        print(f"begun after {begun}, ended after {sizes.num_iterations} updates: digest {learner.digest()[:12]}")
    world.close()


def go_on(learner: Learner) -> int:
    """Take the newest set that is whole, and tell its iteration; 0 where there is none."""
    found = newest_valid(list_checkpoints(SETS)).newest
    if found is None:
        return 0
    learner.restore(State.load(found))
    return iteration_of(found)


def save(learner: Learner, t: int) -> None:
    """Write the whole state; a set that has its name is complete."""
    SETS.mkdir(parents=True, exist_ok=True)
    learner.snapshot().save(SETS, t)


if __name__ == "__main__":
    main()
