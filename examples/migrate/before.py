"""A typical hand-written training script for Horovod; after.py is the same with the harness.

Run it: horovodrun -np 2 python examples/migrate/before.py
"""

from pathlib import Path

import horovod.mxnet as hvd
import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from mxnet.gluon import nn

EPOCHS, BATCH, LR = 4, 32, 0.1
DIGITS = Path(__file__).parents[2] / "harness/data/files/digits.csv.gz"


def main() -> None:
    """Train on every worker's part of the digits."""
    hvd.init()
    table = np.loadtxt(DIGITS, dtype=np.float32, delimiter=",")
    data, label = table[:, :64] / 16, table[:, 64]
    own = slice(hvd.rank(), 1437 // hvd.size() * hvd.size(), hvd.size())
    train = gluon.data.ArrayDataset(data[:1437][own], label[:1437][own])
    loader = gluon.data.DataLoader(train, BATCH, shuffle=True, last_batch="discard")

    mx.random.seed(1)
    net = nn.HybridSequential()
    net.add(nn.Dense(64, activation="relu"), nn.Dense(10))
    net.initialize(mx.init.Xavier())
    net.hybridize()
    net(mx.nd.array(data[:1]))
    parameters = net.collect_params()
    hvd.broadcast_parameters(parameters, root_rank=0)

    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    warmup, updates = len(loader), EPOCHS * len(loader)
    scheduler = mx.lr_scheduler.CosineScheduler(
        max_update=updates, base_lr=LR * hvd.size(), warmup_steps=warmup, warmup_begin_lr=LR
    )
    optimizer = mx.optimizer.SGD(momentum=0.9, lr_scheduler=scheduler)
    trainer = hvd.DistributedTrainer(parameters, optimizer)
    for _ in range(EPOCHS):
        for samples, target in loader:
            with autograd.record():
                losses = loss(net(samples), target)
            losses.backward()
            trainer.step(BATCH)
    own_test = slice(1437 + hvd.rank(), None, hvd.size())
    prediction = net(mx.nd.array(data[own_test])).asnumpy().argmax(axis=1)
    own_accuracy = mx.nd.array([(prediction == label[own_test]).mean()])
    accuracy = hvd.allreduce(own_accuracy, name="accuracy").asscalar()
    if hvd.rank() == 0:
        print(f"accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
