"""The learning-rate finder, after MXNet's tutorial of that name: sweep, read the curve, and try what it says.

Sweeps a network of its own over batches of the digits, proves that nothing was disturbed, writes the report, and trains
at the suggested rate, at a hundredth of it and at thirty times it. Run it: python examples/finder.py
"""

from dataclasses import replace
from pathlib import Path

import mxnet as mx
from mxnet.gluon import nn

from harness.comm import SingleWorld
from harness.data import Augmentation, BatchStream, Order, Splits, load
from harness.errors import DivergedError
from harness.finder import FinderSettings, find_lr, result_of
from harness.gluon import Learner, evaluate, shards_of_rank
from harness.model import build_metrics
from harness.report import write_finder_report

EPOCHS, BATCH = 2, 32
REPORT = Path("runs/example-finder")


def convolutional() -> nn.HybridSequential:
    """A network with batch norm, whose weights are the same each time."""
    mx.random.seed(1)
    net = nn.HybridSequential()
    net.add(nn.Conv2D(16, 3), nn.BatchNorm(), nn.Activation("relu"), nn.MaxPool2D(), nn.Dense(10))
    net.initialize(mx.init.Xavier())
    return net


def learner_of(stream: BatchStream) -> Learner:
    """An untrained learner in a world of one rank."""
    loss, optimizer = mx.gluon.loss.SoftmaxCrossEntropyLoss(), mx.optimizer.SGD(momentum=0.9)
    return Learner(convolutional(), loss, optimizer, SingleWorld(), shards=1, sample=stream(1))


def accuracy_at(lr: float, digits: Splits, stream: BatchStream, updates: int) -> str:
    """Train a little at a constant rate."""
    learner = learner_of(stream)
    try:
        for t in range(1, updates + 1):
            learner.update(stream(t), lr)
        found = evaluate(learner, digits.test, 64, Augmentation(), build_metrics(["accuracy"]))
    except DivergedError as error:
        return f"diverged at iteration {error.iteration}"
    return f"accuracy {found['accuracy']:.4f}"


def main() -> None:
    """Sweep, report, train."""
    digits = load("digits")
    order = Order(len(digits.train), shards=1, batch_size=BATCH, seed=0)
    own = shards_of_rank(order.shards, SingleWorld())

    def stream_of(name: str) -> BatchStream:
        return BatchStream(digits.train, replace(order, stream=name), own, Augmentation(), seed=0)

    with stream_of("train") as stream:
        learner, settings = learner_of(stream), FinderSettings(repeats=3)
        finding = find_lr(learner, settings, lambda k: stream_of(f"finder/{k}"))
        for number, sweep in enumerate(finding.sweeps, start=1):
            print(f"sweep {number}: {len(sweep.points)} iterations up to {sweep.points[-1].lr:.3g}; {sweep.stop}")
        for lr, loss in finding.sweeps[0].points[::16]:
            print(f"  at {lr:8.2e} a loss of {loss:6.3f}  {'#' * round(10 * loss)}")
        found = finding.suggestion
        if found.lr is None:
            raise SystemExit(f"no learning rate can be defended: {found.refusal}")
        print(f"suggested: {found.lr:.3g}; the sweeps gave {found.low:.3g} to {found.high:.3g}")
        print(f"undisturbed: {learner.digest() == finding.digest}")
        provenance = {"global_batch": order.global_batch, "data": "digits"}
        write_finder_report(result_of(finding, settings, provenance), REPORT, "the finder's example")
        print(f"report: {REPORT}/report.html")
        for name, factor in (("a hundredth", 0.01), ("suggested", 1.0), ("thirtyfold", 30.0)):
            updates = EPOCHS * order.iterations_per_epoch
            print(f"{name:11} {found.lr * factor:8.2e}: {accuracy_at(found.lr * factor, digits, stream, updates)}")


if __name__ == "__main__":
    main()
