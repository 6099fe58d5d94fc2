"""Run by test_find_lr.py with CONFIG SETTING...: the finder untrained, at iteration 137, and with a sweep that raises.

Rank 0 prints the digests of every rank before and after each of the three.
"""

import contextlib
import json
import sys

from harness.comm import connect
from harness.config import load_config
from harness.finder import find_lr
from harness.train.build import build_learner
from harness.train.find import find_base
from harness.train.prepare import prepare_run

world = connect()
run = prepare_run(load_config(sys.argv[1], sys.argv[2:]), world, threads=1)


@contextlib.contextmanager
def broken_stream(repeat):
    with run.finder_stream(repeat) as stream:

        def broken(t):
            if t == 9:
                raise RuntimeError("in the middle")
            return stream(t)

        yield broken


def digests(when):
    return world.allgather_object(learner.digest(), when)


report = {}
with run.stream() as stream:
    learner = build_learner(run)
    report["untrained"] = [digests("a"), len(find_base(run, learner).sweeps[0].points), digests("b")]
    for t in range(1, 138):
        learner.update(stream(t), 1e-3)
    report["at 137"] = [digests("c"), len(find_base(run, learner).sweeps[0].points), digests("d")]
    with contextlib.suppress(RuntimeError):
        find_lr(learner, run.finder_settings, broken_stream)
        report["raising"] = "it did not"
    report["raised"] = [report["at 137"][0], 9, digests("e")]
if world.rank == 0:
    print("REPORT", json.dumps(report), flush=True)
world.close()
