"""Watches over a run: ranks that verify they agree, signals, stalls, lost ranks. Imports neither mxnet nor horovod.

Before the ranks are connected: `startup.py`, with `registry*.py` (which ranks have started) and `missing.py` (sentences
on those that have not). Afterwards each rank has two threads: `watch.py` is what the training's thread calls,
`monitor.py` what the guard's thread decides. They share `this_rank.py` (this rank), `peers.py` (the others, over
`heartbeat.py`, `listener.py`, `link.py` and `messages.py`) and `departures.py` (how ranks agree on why the job ends);
`stall.py` names the rank that holds up the others, `ending.py` ends a process that hangs, `timing.py` has all times.
`preflight.py` and `consistency.py` compare ranks; `signals.py` handles stop requests.
"""

from harness.guard.consistency import ConsistencyCheck
from harness.guard.preflight import compare_ranks, compare_schedules
from harness.guard.unguarded import Unguarded
from harness.guard.watch import Guard

__all__ = ["ConsistencyCheck", "Guard", "Unguarded", "compare_ranks", "compare_schedules"]
