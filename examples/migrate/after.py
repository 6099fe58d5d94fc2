"""The same training with the harness: every worker computes its shards, its rates and its order from the iteration.

Run it: horovodrun -np 2 python examples/migrate/after.py, or mpirun -np 2, or python alone
"""

from pathlib import Path

import mxnet as mx
import numpy as np
from mxnet import gluon
from mxnet.gluon import nn

from harness.comm import connect
from harness.config import TrainConfig, parse_lr
from harness.data import ArrayDataset, Augmentation, BatchStream, Order
from harness.gluon import Learner, evaluate, shards_of_rank
from harness.model import build_metrics
from harness.plan import LRPlan, Sizes

EPOCHS, BATCH, LR = 4, 32, 0.1
DIGITS = Path(__file__).parents[2] / "harness/data/files/digits.csv.gz"


def main() -> None:
    """Train on every worker's shards of the digits."""
    world = connect()
    table = np.loadtxt(DIGITS, dtype=np.float32, delimiter=",")
    data, label = table[:, :64] / 16, table[:, 64].astype(np.int64)
    train = ArrayDataset(data[:1437], label[:1437], full_scale=1.0)
    sizes = Sizes.of(TrainConfig(epochs=EPOCHS), num_samples=len(train), shards=world.size, batch_size=BATCH)
    order = Order(sizes.num_samples, sizes.shards, sizes.batch_size, seed=0)

    mx.random.seed(1)
    net = nn.HybridSequential()
    net.add(nn.Dense(64, activation="relu"), nn.Dense(10))
    net.initialize(mx.init.Xavier())

    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    cosine = {"cosine": {"max_lr": "1x", "min_lr": 0, "cycle_length": "100%"}}
    plan = LRPlan(parse_lr({"base": LR, "warmup": {"length": "1ep", "start": "unscaled"}, "schedule": cosine}), sizes)
    optimizer = mx.optimizer.SGD(momentum=0.9)
    with BatchStream(train, order, shards_of_rank(order.shards, world), Augmentation(), seed=0) as stream:
        learner = Learner(net, loss, optimizer, world, shards=order.shards, sample=stream(1))
        for t in range(1, sizes.num_iterations + 1):
            learner.update(stream(t), plan.lr(t))
        test = ArrayDataset(data[1437:], label[1437:], full_scale=1.0)
        found = evaluate(learner, test, BATCH, Augmentation(), build_metrics(["accuracy"]))
    if world.rank == 0:
        print(f"accuracy {found['accuracy']:.4f}")
    world.close()


if __name__ == "__main__":
    main()
