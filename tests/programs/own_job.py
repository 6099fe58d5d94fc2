"""A program with a Job, on any number of ranks: it trains, saves and resumes; or a rank fails as its arguments say.

Arguments: the job's folder, and what happens: `whole`, `saved` (stops after the checkpoint), `resumed`, or `raise`,
`kill` and `hang` of the last rank in iteration 4.
"""

import os
import signal
import sys
import time

import mxnet as mx
from mxnet.gluon import nn

from harness import Job
from harness.data import load

folder, what = sys.argv[1:3]
digits = load("digits")
mx.random.seed(1)
net = nn.HybridSequential()
net.add(nn.Dense(16, activation="relu"), nn.Dropout(0.2), nn.Dense(10))
net.initialize(mx.init.Xavier())
loss, optimizer = mx.gluon.loss.SoftmaxCrossEntropyLoss(), mx.optimizer.NAG(momentum=0.9)
lr = {"base": 0.1, "warmup": {"length": "4it"}, "schedule": {"poly": {"base_lr": "1x", "max_update": "100%"}}}
with Job(
    net,
    loss,
    optimizer,
    train=digits.train,
    batch=16,
    shards=2,
    iterations=12,
    lr=lr,
    folder=folder,
    stall_after_s=4 if what == "hang" else 60,
) as job:
    begun = job.resume() if what == "resumed" else 0
    for t in job:
        job.update(t)
        if t == 4 and job.rank == job.world.size - 1:
            if what == "raise":
                raise ValueError("no room for more")
            if what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if what == "hang":
                time.sleep(60)
        if t == 6 and what == "saved":
            job.save()
            break
    found = job.evaluate(digits.test, ["accuracy", "top_5_accuracy"])
    digests = job.world.allgather_object(job.learner.digest(), "digests")
    job.print(f"begun after {begun}, {len(set(digests))} digest: {digests[0]}; accuracy {found['accuracy']:.4f}")
