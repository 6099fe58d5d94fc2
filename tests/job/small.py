"""A small job on the digits, which tests build, train and compare."""

from __future__ import annotations

import mxnet as mx
from mxnet.gluon import nn

from harness import Job
from harness.data import load

LR = {"base": 0.1, "warmup": {"length": "4it"}, "schedule": {"poly": {"base_lr": "1x", "max_update": "100%"}}}
LOSS = mx.gluon.loss.SoftmaxCrossEntropyLoss()
DIGITS = load("digits")


def small():
    """The network, with the same weights every time."""
    mx.random.seed(1)
    net = nn.HybridSequential()
    net.add(nn.Dense(16, activation="relu"), nn.Dropout(0.2), nn.Dense(10))
    net.initialize(mx.init.Xavier())
    return net


def job_of(folder, **changed):
    """A job of 12 updates with checkpoints in `folder`."""
    given = {"train": DIGITS.train, "batch": 16, "shards": 2, "iterations": 12, "lr": LR, "folder": folder, **changed}
    net, loss, optimizer = given.pop("net", None), given.pop("loss", LOSS), given.pop("optimizer", None)
    return Job(net or small(), loss, optimizer or mx.optimizer.NAG(momentum=0.9), **given)


def finished(job):
    """The digest of a job that is trained to its end."""
    with job:
        for t in job:
            job.update(t)
        return job.learner.digest()
