"""`launch/train.py` (or find_lr.py, as PROGRAM) with a fault on one rank: FAULT@WHERE RANK, then its own arguments.

FAULT is raise, exit, kill, stop (SIGSTOP) or sleep; WHERE is an iteration, or `evaluation`, or `finder`.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import time

spec, rank = sys.argv.pop(1), sys.argv.pop(1)
fault, where = spec.split("@")


def strike():
    print(f"STRIKE {time.time()}", file=sys.stderr, flush=True)
    if fault == "raise":
        raise RuntimeError("something of the user's own")
    if fault == "exit":
        sys.exit(0)
    if fault == "sleep":
        while True:
            time.sleep(3600)
    os.kill(os.getpid(), signal.SIGKILL if fault == "kill" else signal.SIGSTOP)
    time.sleep(3600)


def plant():
    from harness.gluon.learner import Learner  # MXNet must not be imported before the number of threads is settled

    plain_iteration, plain_predict, seen = Learner.iteration, Learner.predict, []

    def iteration(self, t, *more):
        if (where == "finder" and len(seen) == 12) or (where.isdigit() and t == int(where)):
            strike()
        seen.append(t)
        return plain_iteration(self, t, *more)

    def predict(self, data, label):
        if where == "evaluation" and seen:
            strike()
        return plain_predict(self, data, label)

    Learner.iteration, Learner.predict = iteration, predict


if os.environ.get("HOROVOD_RANK", "0") == rank:
    import harness.guard.watch

    plain_open = harness.guard.watch.Guard.open

    def open_and_plant(self):
        plain_open(self)
        plant()

    harness.guard.watch.Guard.open = open_and_plant
runpy.run_path(os.environ.get("PROGRAM", "launch/train.py"), run_name="__main__")
