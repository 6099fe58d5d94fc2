"""For test_divergence.py: ITERATION CONFIG SETTING...: the updates of a run but one, and the digest of its end."""

from __future__ import annotations

import sys

from harness.comm import connect
from harness.config import load_config
from harness.train.build import build_learner
from harness.train.prepare import prepare_run

left_out, config, settings = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
world = connect()
run = prepare_run(load_config(config, settings), world, threads=1)
with run.stream() as stream:
    learner = build_learner(run)
    for t in range(1, run.sizes.num_iterations + 1):
        if t != left_out:
            learner.update(stream(t), run.plan.lr(t), run.plan.momentum(t))
    digest = learner.digest()
if world.rank == 0:
    print(f"digest {digest}", flush=True)
world.close()
