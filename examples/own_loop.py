"""A loop of your own on any number of ranks: your network and data, a plan, an evaluation, and checkpoints.

Saves the complete state after every epoch; started again, it resumes where it stopped, with the same bits. Run it, and
run it again with more epochs: python examples/own_loop.py 2; mpirun -np 2 python examples/own_loop.py 4
"""

import sys

import mxnet as mx
from mxnet.gluon import nn

from harness import Job
from harness.data import load

LR = {
    "base": 0.1,
    "reference_batch": 64,
    "warmup": {"length": "1ep", "start": 0.01},
    "schedule": {"inverse_sqrt": {"base_lr": "1x", "timescale": "2ep"}},  # has no end, so more epochs can follow
}


def main() -> None:
    """Train, or resume training, up to a number of epochs."""
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    digits = load("digits")
    net = nn.HybridSequential()
    net.add(nn.Dense(64, activation="relu"), nn.Dropout(0.2), nn.Dense(10))
    mx.random.seed(1)
    net.initialize(mx.init.Xavier())
    loss, optimizer = mx.gluon.loss.SoftmaxCrossEntropyLoss(), mx.optimizer.NAG(momentum=0.9)
    data = {"train": digits.train, "batch": 32, "shards": 2}  # two shards, whether one rank computes them or two
    with Job(net, loss, optimizer, **data, epochs=epochs, lr=LR, folder="runs/example-own-loop") as job:
        begun = job.resume()
        for t in job:
            job.update(t)
            if t % job.sizes.iterations_per_epoch == 0:
                accuracy = job.evaluate(digits.test)["accuracy"]
                job.print(f"epoch {job.sizes.epoch(t)}: lr {job.lr(t):.4f}  accuracy {accuracy:.4f}")
                job.save()
        digest = job.learner.digest()[:12]
        job.print(f"begun after {begun}, ended after {job.iteration} updates: digest {digest}")


if __name__ == "__main__":
    main()
