"""The same training with the harness: every worker computes its shards, rates and sample order from the iteration.

Run it: horovodrun -np 2 python examples/migrate/after.py, or mpirun -np 2, or python alone
"""

from pathlib import Path

import mxnet as mx
import numpy as np
from mxnet import gluon
from mxnet.gluon import nn

from harness import Job

EPOCHS, BATCH, LR = 4, 32, 0.1
DIGITS = Path(__file__).parents[2] / "harness/data/files/digits.csv.gz"


def main() -> None:
    """Train on every worker's shards of the digits."""
    table = np.loadtxt(DIGITS, dtype=np.float32, delimiter=",")
    data, label = table[:, :64] / 16, table[:, 64]
    train = gluon.data.ArrayDataset(data[:1437], label[:1437])

    mx.random.seed(1)
    net = nn.HybridSequential()
    net.add(nn.Dense(64, activation="relu"), nn.Dense(10))
    net.initialize(mx.init.Xavier())

    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    cosine = {"cosine": {"max_lr": "1x", "min_lr": 0, "cycle_length": "100%"}}
    lr = {"base": LR, "warmup": {"length": "1ep", "start": "unscaled"}, "schedule": cosine}
    optimizer = mx.optimizer.SGD(momentum=0.9)
    with Job(net, loss, optimizer, train=train, batch=BATCH, epochs=EPOCHS, lr=lr) as job:
        for t in job:
            job.update(t)
        accuracy = job.evaluate((data[1437:], label[1437:]))["accuracy"]
        job.print(f"accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
