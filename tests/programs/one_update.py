"""Run by test_bits.py at np=4: from each of 20 states of a run, one update by four ranks and by one process.

Every rank plays the whole run by itself, all four shards in one process; before each update the state is copied to a
learner that shares the shards with the other ranks.
"""

import json

import numpy as np

from harness.comm import SingleWorld, connect
from harness.config import load_config
from harness.train.build import build_learner
from harness.train.prepare import prepare_run

world = connect("horovod", sum_by="engine")
config = load_config(
    "configs/digits.yaml",
    [
        "batch={size: 8, shards: 4}",
        "network={name: cnn, params: {channels: [6], dropout: 0.2}}",
        "data.augment={pad_crop: 1, flip: true}",
        "threads_per_rank=1",
    ],
)
alone, shared = prepare_run(config, SingleWorld(), threads=1), prepare_run(config, world, threads=1)
differences, same_bits = [], 0
with alone.stream() as all_shards, shared.stream() as own_shards:
    one, four = build_learner(alone), build_learner(shared)
    for t in range(1, 21):
        four.restore(one.snapshot())
        for learner, stream in ((one, all_shards), (four, own_shards)):
            learner.update(stream(t), alone.plan.lr(t))
        expected, found = one.snapshot(), four.snapshot()
        for kind in ("parameters", "optimizer_state"):
            for name, array in getattr(expected, kind).items():
                other = getattr(found, kind)[name]
                differences.append(float(np.linalg.norm(other - array) / max(np.linalg.norm(array), 1e-12)))
                same_bits += np.array_equal(other, array)
digests = world.allgather_object(four.digest(), "digests")
if world.rank == 0:
    report = {"worst": max(differences), "arrays": len(differences), "same_bits": same_bits, "agree": len(set(digests))}
    print("REPORT", json.dumps(report), flush=True)
world.close()
