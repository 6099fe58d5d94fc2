"""`launch/train.py` (or another PROGRAM) with faults: FAULT@WHERE:RANK,..., then the program's own arguments.

FAULT is raise, an error of the harness by its name, exit, kill, stop (SIGSTOP), sleep (for ever), term (SIGTERM to
itself, and on), or slow (60 ms every iteration from there on; and every fsync takes .2 s); WHERE is an iteration,
`evaluation` or `finder`.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import time

import harness.errors
import harness.guard.watch

RANK = os.environ.get("HOROVOD_RANK", os.environ.get("PMI_RANK", "0"))
faults = [part.split(":")[0].split("@") for part in sys.argv.pop(1).split(",") if part.split(":")[1] == RANK]
is_slow = False


def strike(fault):
    global is_slow
    print(f"STRIKE {fault} {time.time()}", file=sys.stderr, flush=True)
    if fault == "raise":
        raise RuntimeError("something of the user's own")
    if fault.endswith("Error"):
        raise getattr(harness.errors, fault)("planted")
    if fault == "exit":
        sys.exit(0)
    if fault == "term":
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)  # the guard's thread takes it
        return
    if fault == "slow":
        is_slow, plain_fsync = True, os.fsync
        os.fsync = lambda file: (time.sleep(0.2), plain_fsync(file))
        return
    if fault != "sleep":
        os.kill(os.getpid(), signal.SIGKILL if fault == "kill" else signal.SIGSTOP)
    while True:
        time.sleep(3600)


def plant():
    from harness.gluon.learner import Learner  # MXNet must not be imported before the number of threads is settled

    plain_update, plain_predict, seen = Learner.update, Learner.predict_from, []

    def update(self, batch, *more):
        for fault, where in faults:
            if (where == "finder" and len(seen) == 12) or where == str(batch.t):
                strike(fault)
        seen.append(batch.t)
        if is_slow:
            time.sleep(0.06)
        return plain_update(self, batch, *more)

    def predict(self, *arguments):
        for fault, where in faults:
            if where == "evaluation" and len(seen) > 1:
                seen.clear()
                strike(fault)
        return plain_predict(self, *arguments)

    Learner.update, Learner.predict_from = update, predict


plain_open = harness.guard.watch.Guard.open


def open_and_plant(guard):
    plain_open(guard)
    plant()


harness.guard.watch.Guard.open = open_and_plant
runpy.run_path(os.environ.get("PROGRAM", "launch/train.py"), run_name="__main__")
