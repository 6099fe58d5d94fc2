"""`launch/train.py`, of which one rank does not get to the others: FAULT:RANK, then the program's own arguments.

FAULT is absent (it never begins), early (the same, and the others hang in an import), frozen (SIGSTOP to itself on its
way), killed (the same with SIGKILL), or import (it hangs where MPI or MXNet is imported).
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import time

fault, rank = sys.argv.pop(1).split(":")
RANK = os.environ.get("HOROVOD_RANK", os.environ.get("PMI_RANK", "0"))


class Hangs:
    """An import of a dead file system."""

    def find_spec(self, name, path=None, target=None):
        if name in ("mpi4py", "mxnet"):
            while True:
                time.sleep(3600)


def act():
    if fault in ("absent", "early"):
        time.sleep(3600)
    if fault == "import":
        sys.meta_path.insert(0, Hangs())
    if fault in ("frozen", "killed"):
        import harness.command.job as commands

        plain = commands.join

        def begin(*arguments):
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGSTOP if fault == "frozen" else signal.SIGKILL)
            return plain(*arguments)

        commands.join = begin


if rank == RANK:
    act()
elif fault == "early":
    sys.meta_path.insert(0, Hangs())
runpy.run_path("launch/train.py", run_name="__main__")
