"""Run by tests/bridge: every rank writes the hashes of the batches that it sees, by this harness or under torchrun.

The arguments are a file of JSON, by name the settings beside those of configs/digits.yaml, and a folder, in which rank
r writes r.json. (What ranks print gets mixed: a line is longer than a pipe takes at once.)
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from harness.comm import configure_threads, connect, read_launch
from harness.config import load_config
from harness.data import leaves_of, names_of

CONFIG = "configs/digits.yaml"


def digest(*nested):
    """Of nested arrays or tensors, with their names, types and shapes."""
    found = hashlib.sha256()
    for one in nested:
        for name, leaf in zip(names_of(one, ""), leaves_of(one), strict=True):
            array = np.ascontiguousarray(np.asarray(leaf))
            found.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return found.hexdigest()[:16]


def of_harness(settings, world, emulate_np=None):
    """By iteration the shards of this rank with their hashes, samples of all ranks, and whether an epoch begins."""
    from harness.train.prepare import prepare_run

    config = load_config(CONFIG, [*settings, "output=/nonexistent"])
    run = prepare_run(config, world, threads=1, emulate_np=emulate_np)
    with run.stream() as stream:
        found = {}
        for t in range(1, run.sizes.num_iterations + 1):
            batch = stream(t)
            shards = [(one.shard, digest(one.data, one.label)) for one in batch.batches if one.count]
            found[t] = (shards, batch.num_samples, batch.begins)
    run.close()
    run.folder.close()
    return found


def of_torch(run, begin=1, end=None, **options):
    """The same of an opened run."""
    from harness.bridge.data import TrainingBatches, as_loader

    found = {}
    for update in as_loader(TrainingBatches(run, begin, end), **options):
        shards = [(one.shard, digest(one.data, one.label)) for one in update.shards if one.counts]
        found[update.t] = (shards, update.num_samples, update.begins)
    return found


def of_evaluation(run, **options):
    """By number the hashes of this rank's batches of an evaluation."""
    from harness.bridge.data import EvaluationBatches, as_loader

    return {one.number: digest(one.data, one.label) for one in as_loader(EvaluationBatches(run), **options)}


def of_torchrun(settings, launch):
    """The same of a run that this opens."""
    from harness.bridge.continuing import open_run

    with open_run(CONFIG, settings, launch=launch) as run:
        return of_torch(run)


def main():
    """Write by name what this rank sees."""
    jobs = json.loads(Path(sys.argv[1]).read_text())
    launch = read_launch()
    if launch.launcher == "torchrun":
        import torch

        torch.distributed.init_process_group("gloo")
        found = {name: of_torchrun(settings, launch) for name, settings in jobs.items()}
        torch.distributed.destroy_process_group()
    else:
        configure_threads(1, launch)
        world = connect()
        found = {name: of_harness(settings, world) for name, settings in jobs.items()}
        world.close()
    Path(sys.argv[2], f"{launch.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
