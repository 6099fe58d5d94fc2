"""The learning-rate finder, following MXNet's tutorial of that name: sweep, read the curve, and test the suggestion.

Sweeps over batches of the digits with a small network, verifies that its state is restored, writes a report, and trains
at the suggested rate, at a hundredth of it and at thirty times it. Run it: python examples/finder.py
"""

from pathlib import Path

import mxnet as mx
from mxnet.gluon import nn

from harness import Job
from harness.data import Splits, load
from harness.errors import DivergedError
from harness.finder import FinderSettings
from harness.report import write_finder_report

REPORT = Path("runs/example-finder")


def job_at(lr: float, digits: Splits) -> Job:
    """A job of two epochs at a constant rate; the network has batch norm and the same weights each time."""
    mx.random.seed(1)
    net = nn.HybridSequential()
    net.add(nn.Conv2D(16, 3), nn.BatchNorm(), nn.Activation("relu"), nn.MaxPool2D(), nn.Dense(10))
    net.initialize(mx.init.Xavier())
    loss, optimizer = mx.gluon.loss.SoftmaxCrossEntropyLoss(), mx.optimizer.SGD(momentum=0.9)
    return Job(net, loss, optimizer, train=digits.train, batch=32, epochs=2, lr=lr)


def accuracy_at(lr: float, digits: Splits) -> str:
    """Train a little at a constant rate."""
    try:
        with job_at(lr, digits) as job:
            for t in job:
                job.update(t)
            return f"accuracy {job.evaluate(digits.test)['accuracy']:.4f}"
    except DivergedError as error:
        return f"diverged at iteration {error.iteration}"


def main() -> None:
    """Sweep, report, train."""
    digits = load("digits")
    with job_at(0.1, digits) as job:
        before = job.learner.digest()
        result = job.find_lr(FinderSettings(repeats=3))
        is_restored = job.learner.digest() == before
    for number, sweep in enumerate(result.sweeps, start=1):
        print(f"sweep {number}: {len(sweep.points)} iterations up to {sweep.points[-1].lr:.3g}; {sweep.stop}")
    for lr, loss in result.sweeps[0].points[::16]:
        print(f"  at {lr:8.2e} a loss of {loss:6.3f}  {'#' * round(10 * loss)}")
    found = result.suggestion
    if found.lr is None:
        raise SystemExit(f"no reliable learning rate found: {found.refusal}")
    print(f"suggested: {found.lr:.3g}; the sweeps gave {found.low:.3g} to {found.high:.3g}")
    print(f"state restored: {is_restored}")
    write_finder_report(result, REPORT, "the finder's example")
    print(f"report: {REPORT}/report.html")
    for name, factor in (("a hundredth", 0.01), ("suggested", 1.0), ("thirtyfold", 30.0)):
        print(f"{name:11} {found.lr * factor:8.2e}: {accuracy_at(found.lr * factor, digits)}")


if __name__ == "__main__":
    main()
