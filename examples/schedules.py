"""Learning-rate schedules, following MXNet's tutorial of that name: steps, polynomial, cosine, and warm-up.

Shows each at a few iterations, out of order, which MXNet's own schedulers cannot do; then trains on the digits in a
plain Gluon loop, where `as_mx` turns any of them into a Trainer's scheduler. Run it: python examples/schedules.py
"""

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from mxnet.gluon import nn

from harness.data import load
from harness.schedules import (
    CosineAnnealingSchedule,
    FactorSchedule,
    LinearWarmUp,
    MultiFactorSchedule,
    PolySchedule,
    ScheduleLike,
    as_mx,
)

EPOCHS, BATCH, UPDATES = 6, 32, 264  # 44 updates per epoch
SCHEDULES: dict[str, ScheduleLike] = {
    "factor": FactorSchedule(base_lr=0.5, step=88, factor=0.3),
    "multi factor": MultiFactorSchedule(base_lr=0.5, step=[132, 220], factor=0.1),
    "poly": PolySchedule(base_lr=0.5, max_update=UPDATES, pwr=2),
    "cosine": CosineAnnealingSchedule(min_lr=0.0, max_lr=0.5, cycle_length=UPDATES),
    "warm-up, then cosine": LinearWarmUp(
        CosineAnnealingSchedule(min_lr=0.0, max_lr=0.5, cycle_length=UPDATES - 44), start_lr=0.05, length=44
    ),
}


def accuracy_after_training(schedule: ScheduleLike) -> float:
    """Train a small network with a schedule, as one would without the harness."""
    digits = load("digits")
    (train, label), (test, test_label) = (split.take(np.arange(len(split))) for split in (digits.train, digits.test))
    mx.random.seed(1)
    np.random.seed(1)  # for shuffling
    net = nn.HybridSequential()
    net.add(nn.Dense(64, activation="relu"), nn.Dense(10))
    net.initialize(mx.init.Xavier())
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"lr_scheduler": as_mx(schedule)})
    samples = gluon.data.ArrayDataset(train.astype("float32") / 16, label.astype("float32"))
    loader = gluon.data.DataLoader(samples, BATCH, shuffle=True, last_batch="discard")
    for _ in range(EPOCHS):
        for data, target in loader:
            with autograd.record():
                losses = loss(net(data), target)
            losses.backward()
            trainer.step(BATCH)
    prediction = net(mx.nd.array(test.astype("float32") / 16)).asnumpy().argmax(axis=1)
    return float((prediction == test_label).mean())


def main() -> None:
    """Show and train."""
    shown = (264, 1, 88, 89, 132, 133, 44)
    print(f"{'learning rate of update':24}" + "".join(f"{t:>8}" for t in shown) + "  accuracy")
    for name, schedule in SCHEDULES.items():
        rates = "".join(f"{schedule(t):8.4f}" for t in shown)
        print(f"{name:24}{rates}{accuracy_after_training(schedule):10.4f}")


if __name__ == "__main__":
    main()
