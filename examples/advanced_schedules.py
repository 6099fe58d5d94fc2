"""Advanced schedules, following MXNet's tutorial of that name: warm-up, cool-down, 1cycle, cyclical, and SGDR.

The tutorial writes a class for each; here they combine the same few parts. Draws each over the run and trains on
the digits with it; momentum buffers follow the learning rate. Run it: python examples/advanced_schedules.py
"""

import mxnet as mx
from mxnet.gluon import nn

from harness.comm import SingleWorld
from harness.data import Augmentation, BatchStream, Order, load
from harness.gluon import Learner, evaluate
from harness.model import build_metrics
from harness.schedules import (
    ConstantSchedule,
    CosineAnnealingSchedule,
    CyclicalSchedule,
    LinearCoolDown,
    LinearWarmUp,
    OneCycleSchedule,
    ScheduleLike,
    SequentialSchedule,
    TriangularSchedule,
)

UPDATES = 154  # seven epochs of 22
PEAK = 0.3
SCHEDULES: dict[str, ScheduleLike] = {
    "constant": ConstantSchedule(PEAK),
    "triangular": TriangularSchedule(0.0, PEAK, cycle_length=UPDATES, inc_fraction=0.2),
    "warm-up": LinearWarmUp(CosineAnnealingSchedule(0.0, PEAK, UPDATES - 22), start_lr=0.0, length=22),
    "cool-down": LinearCoolDown(ConstantSchedule(PEAK), finish_lr=0.0, start_idx=66, length=88),
    "1cycle": OneCycleSchedule(0.03, PEAK, cycle_length=132, cooldown_length=22, finish_lr=0.0003),
    "cyclical": CyclicalSchedule(
        TriangularSchedule, cycle_length=38, cycle_magnitude_decay=0.5, min_lr=0.0, max_lr=PEAK
    ),
    # cycles of 1, 2 and 4 epochs; the last update would start a fourth, so it gets 0 instead
    "SGDR": SequentialSchedule(
        [
            CyclicalSchedule(CosineAnnealingSchedule, cycle_length=22, cycle_length_decay=2, min_lr=0.0, max_lr=PEAK),
            ConstantSchedule(0.0),
        ],
        boundaries=[UPDATES],
    ),
}


def drawn(schedule: ScheduleLike, width: int = 44) -> str:
    """A schedule as a line of blocks."""
    rates = [schedule(1 + k * (UPDATES - 1) // (width - 1)) for k in range(width)]
    return "".join("▁▂▃▄▅▆▇█"[min(7, int(8 * rate / PEAK))] for rate in rates)


def main() -> None:
    """Draw and train each."""
    digits = load("digits")
    order = Order(len(digits.train), shards=1, batch_size=64, seed=0)
    with BatchStream(digits.train, order, [0], Augmentation(), seed=0) as stream:
        for name, schedule in SCHEDULES.items():
            mx.random.seed(1)
            net = nn.HybridSequential()
            net.add(nn.Dense(64, activation="relu"), nn.Dense(10))
            net.initialize(mx.init.Xavier())
            loss, optimizer = mx.gluon.loss.SoftmaxCrossEntropyLoss(), mx.optimizer.SGD(momentum=0.9)
            learner = Learner(net, loss, optimizer, SingleWorld(), shards=1, sample=stream(1))
            for t in range(1, UPDATES + 1):
                learner.update(stream(t), schedule(t))
            found = evaluate(learner, digits.test, 64, Augmentation(), build_metrics(["accuracy"]))
            print(f"{name:11}{drawn(schedule)}  loss {found['loss']:.4f}  accuracy {found['accuracy']:.4f}")


if __name__ == "__main__":
    main()
