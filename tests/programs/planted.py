"""Runs that begin, one after the other, in one job, each with one thing different on rank 1: DIFFERENCES SETTING...

DIFFERENCES is a list in JSON. Rank 0 prints a line for each: its name, and the error with which each rank ended.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from contextlib import ExitStack
from unittest.mock import patch

import harness.gluon.network
import harness.guard.preflight
import harness.model.parameters
import harness.train.prepare
import harness.train.run
import harness.versions
from harness.comm import connect
from harness.config import load_config
from harness.data import BatchStream
from harness.errors import HarnessError
from harness.gluon.learner import Learner
from harness.guard.preflight import compare_configs
from harness.plan import LRPlan
from harness.train.loop import train
from harness.train.prepare import prepare_run

SETTINGS = {  # of rank 1 alone
    "seed": "seed=1",
    "learning rate": "lr.base=0.11",
    "batch size": "batch.size=8",
    "iterations": "train={iterations: 41}",
    "optimizer": "optimizer={name: sgd, params: {momentum: 0.8}}",
    "last batch": "train.last_batch=keep",
    "logging": "log.every=3it",
    "own threads": "threads_per_rank=2",
}


def planted(what):
    """What is replaced on the rank that is different: objects, their attributes and the values of these."""
    at = 20 if what == "running statistic" else 7  # statistics are averaged in every update
    plain_update, plain_load = Learner.update, harness.train.prepare.load_splits
    plain_call, plain_lr, parameters_of = BatchStream.__call__, LRPlan.lr, harness.model.parameters.parameters_of
    plain_code = harness.guard.preflight.code_of

    def renamed(net):
        return {name.replace("weight", "kernel"): p for name, p in parameters_of(net).items()}

    def reordered(net):
        return dict(reversed(parameters_of(net).items()))

    def astray(self, batch, lr, momentum=None, ask=None):
        if batch.t != at:
            return plain_update(self, batch, lr, momentum, ask)
        if what == "another rate":
            return plain_update(self, batch, lr * 1.001, momentum, ask)
        if what == "another momentum":
            return plain_update(self, batch, lr, 0.85, ask)
        before = self.snapshot()
        loss = plain_update(self, batch, lr, momentum, ask)
        after = self.snapshot()
        if what == "skipped update":
            self.restore(before)
        if what == "weight":
            weight = next(iter(self.parameters.values())).data()
            weight[0] += 1e-7
        if what == "running statistic":
            statistic = next(p for name, p in self.parameters.items() if name.endswith("running_mean")).data()
            statistic[:] += 1e-3
        if what == "slot":
            next(iter(after.optimizer_state.values()))[0] += 1e-7
            self.restore(after)
        if what == "counter":
            after.numbers["update_counts"][0] += 1
            self.restore(after)
        return loss

    def other_data(*given):
        splits = plain_load(*given)
        array = {"pixel": splits.train.data, "label": splits.train.label}[what]
        array.flags.writeable = True
        array[700] = array[701] if what == "label" and array[700] != array[701] else (array[700] + 1) % 10
        return splits

    def fewer(self, t):
        batch = plain_call(self, t)
        if t != at:
            return batch
        first = batch.batches[0]
        fewer = dataclasses.replace(first, data=first.data[:-1], label=first.label[:-1])
        return dataclasses.replace(batch, batches=(fewer, *batch.batches[1:]))

    by_name = {
        "parameter name": (harness.gluon.network, "parameters_of", renamed),
        "parameter order": (harness.gluon.network, "parameters_of", reordered),
        "pixel": (harness.train.prepare, "load_splits", other_data),
        "label": (harness.train.prepare, "load_splits", other_data),
        "version": (harness.versions, "version", lambda package: "9.9" if package == "numpy" else "1"),
        "code": (harness.guard.preflight, "code_of", lambda of: {**plain_code(of), "harness": "edited"}),
        "shards": (harness.train.run, "shards_of_rank", lambda shards, of, _: list(range(0, shards, of.size))),
        "schedule": (LRPlan, "lr", lambda self, t: plain_lr(self, t) * (1.5 if t == 33 else 1)),
        "fewer samples": (BatchStream, "__call__", fewer),
    }
    return [by_name.get(what, (Learner, "update", astray))]


world = connect()
for number, what in enumerate(json.loads(sys.argv[1])):
    is_different, ended = world.rank == 1, None
    settings = [*sys.argv[2:], f"name=run-{number}"]
    with ExitStack() as stack:
        if is_different:
            settings += [SETTINGS[what]] if what in SETTINGS else []
            for replacement in planted(what):
                stack.enter_context(patch.object(*replacement))
        try:
            config = load_config("configs/digits.yaml", settings)
            compare_configs(world, config)
            train(prepare_run(config, world, threads=2 if is_different and what == "threads" else 1))
        except HarnessError as error:
            if not error.everywhere:  # the next run could not begin
                raise
            ended = [error.exit_code, str(error)]
    everyone = world.allgather_object(ended, "ended")
    if world.rank == 0:
        print("ENDED", json.dumps([what, everyone]), flush=True)
world.close()
