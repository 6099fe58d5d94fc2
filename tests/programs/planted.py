"""`launch/train.py`, with one thing different on rank 1: DIFFERENCE, then train.py's own arguments."""

from __future__ import annotations

import dataclasses
import os
import runpy
import sys

import harness.guard.watch
import harness.versions

what = sys.argv.pop(1)
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
AT = 20 if what == "running statistic" else 7  # where a rank goes astray; statistics are averaged in every update


def plant():
    """Once the ranks are connected: MXNet may be imported now."""
    import harness.gluon.learner as learner
    import harness.guard.preflight as preflight
    import harness.model.parameters as parameters
    import harness.train.prepare as prepare
    import harness.train.run as run
    from harness.data import BatchStream
    from harness.gluon.learner import Learner
    from harness.plan import LRPlan

    plain_update, plain_load = Learner.update, prepare.load_splits
    plain_call, plain_lr = BatchStream.__call__, LRPlan.lr

    def renamed(net):
        return {name.replace("weight", "kernel"): p for name, p in parameters.parameters_of(net).items()}

    def reordered(net):
        return dict(reversed(parameters.parameters_of(net).items()))

    def astray(self, batch, lr, momentum=None, ask=None):
        if batch.t != AT:
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

    def other_data(config):
        splits = plain_load(config)
        array = {"pixel": splits.train.data, "label": splits.train.label}[what]
        array.flags.writeable = True
        array[700] = array[701] if what == "label" and array[700] != array[701] else (array[700] + 1) % 10
        return splits

    def fewer(self, t):
        batch = plain_call(self, t)
        if t != AT:
            return batch
        first = batch.batches[0]
        fewer = dataclasses.replace(first, data=first.data[:-1], label=first.label[:-1])
        return dataclasses.replace(batch, batches=(fewer, *batch.batches[1:]))

    if what == "parameter name":
        learner.parameters_of = renamed
    if what == "parameter order":
        learner.parameters_of = reordered
    if what in ("pixel", "label"):
        prepare.load_splits = other_data
    if what == "version":
        harness.versions.version = lambda package: "9.9" if package == "numpy" else "1"
    if what == "code":
        plain_digest = preflight.code_digest
        preflight.code_digest = lambda config: {**plain_digest(config), "harness": "edited"}
    if what == "shards":
        run.shards_of_rank = lambda shards, world, _: list(range(0, shards, world.size))
    if what == "schedule":
        LRPlan.lr = lambda self, t: plain_lr(self, t) * (1.5 if t == 33 else 1)
    if what == "fewer samples":
        BatchStream.__call__ = fewer
    Learner.update = astray


if os.environ.get("HOROVOD_RANK") == "1":
    if what in SETTINGS:
        sys.argv += ["--set", SETTINGS[what]]
    if what == "threads":
        os.environ["OMP_NUM_THREADS"] = "2"
    plain_open = harness.guard.watch.Guard.open

    def open_and_plant(guard):
        plain_open(guard)
        plant()

    harness.guard.watch.Guard.open = open_and_plant
runpy.run_path("launch/train.py", run_name="__main__")
