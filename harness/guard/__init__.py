"""How a run is watched over: ranks that prove they agree, signals, stalls, lost ranks."""

from harness.guard.consistency import ConsistencyCheck
from harness.guard.preflight import compare_ranks, compare_schedules
from harness.guard.unguarded import Unguarded
from harness.guard.watch import Guard

__all__ = ["ConsistencyCheck", "Guard", "Unguarded", "compare_ranks", "compare_schedules"]
