#!/usr/bin/env python
"""What a sweep costs: against as many training iterations of the same learner, and against the loop people write.

The loop people write: a Gluon `DataLoader` with `transform_first(ToTensor())`, `autograd.record`, `trainer.step`, and
`asscalar` in every iteration. Interleaved rounds, medians; MNIST's CNN on Fashion-MNIST, batch 64.

    OMP_NUM_THREADS=1 python benchmarks/sweep.py --data ../shared/data/fashion-mnist [--rounds 7]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from contextlib import nullcontext
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import mxnet as mx
import numpy as np
from mxnet.gluon.data import ArrayDataset, DataLoader
from mxnet.gluon.data.vision import transforms

from harness.comm import SingleWorld
from harness.data import Augmentation, BatchStream, Order, load
from harness.finder import FinderSettings, StopRule, Sweep, find_lr
from harness.gluon import Learner
from harness.model.networks import build_network

ITERATIONS, BATCH = 150, 64
SWEEP = Sweep(lr_start=1e-6, lr_end=1e-2, lr_multiplier=None, num_iterations=ITERATIONS)


def build(train: object) -> tuple[Learner, BatchStream]:
    """A learner on one shard of 64."""
    mx.random.seed(0)
    net = build_network("mnist_cnn", {}, 10)
    net.initialize(mx.init.Xavier())
    stream = BatchStream(train, Order(len(train), 1, BATCH, 0), [0], Augmentation(), 0)
    sample = train.take(np.arange(1))[0].astype(np.float32)
    loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    return Learner(net, loss, mx.optimizer.SGD(momentum=0.9), SingleWorld(), shards=1, sample=sample), stream


def usual_loop(train: object) -> float:
    """Seconds of a sweep as the tutorials write it, its loader's construction included."""
    images, labels = train.take(np.arange(BATCH * (ITERATIONS + 10)))
    net = build_network("mnist_cnn", {}, 10)
    net.initialize(mx.init.Xavier())
    net.hybridize(static_alloc=True)
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"momentum": 0.9})
    loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    pictures = mx.nd.array(images.transpose(0, 2, 3, 1), dtype=np.uint8)
    dataset = ArrayDataset(pictures, labels.astype(np.float32)).transform_first(transforms.ToTensor())
    net(mx.nd.zeros((1, *images.shape[1:]))).wait_to_read()
    started = time.perf_counter()
    loader = iter(DataLoader(dataset, BATCH, shuffle=True))
    for k in range(ITERATIONS):
        data, label = next(loader)
        trainer.set_learning_rate(SWEEP.lr(k))
        with mx.autograd.record():
            losses = loss(net(data), label)
        losses.backward()
        trainer.step(BATCH)
        losses.mean().asscalar()
    return time.perf_counter() - started


def main() -> None:
    """Measure and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with Fashion-MNIST's files")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    train = load("fashion_mnist", root=str(options.data)).train
    learner, stream = build(train)
    settings = FinderSettings(SWEEP, StopRule(growth=1e9))
    times: dict[str, list[float]] = {"training": [], "snapshot and restore": [], "sweep": [], "usual loop": []}
    with stream:
        find_lr(learner, settings, lambda repeat: nullcontext(stream))
        for _ in range(options.rounds):
            mx.nd.waitall()
            started = time.perf_counter()
            for t in range(1, ITERATIONS + 1):
                learner.update(stream(t), SWEEP.lr(t - 1))
            learner.check_pending()
            mx.nd.waitall()
            times["training"].append(time.perf_counter() - started)
            started = time.perf_counter()
            learner.restore(learner.snapshot())
            times["snapshot and restore"].append(time.perf_counter() - started)
            started = time.perf_counter()
            find_lr(learner, settings, lambda repeat: nullcontext(stream))
            times["sweep"].append(time.perf_counter() - started)
            times["usual loop"].append(usual_loop(train))
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, value in medians.items():
        print(f"{name:22} {value * 1e3:8.1f} ms")
    fair = 1.1 * medians["training"] + medians["snapshot and restore"]
    print(f"sweep / (1.1 x training + snapshot and restore): {medians['sweep'] / fair:.3f}")
    print(f"sweep / usual loop: {medians['sweep'] / medians['usual loop']:.3f}")


if __name__ == "__main__":
    main()
