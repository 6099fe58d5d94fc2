"""How a run is watched over and how it ends: ranks that prove they agree, signals, stalls, one exit code."""

from harness.guard.commands import Job, RunParser, add_run_options, run_job
from harness.guard.exits import report_failure
from harness.guard.ledger import Ledger
from harness.guard.preflight import compare_ranks, compare_schedules
from harness.guard.unguarded import Unguarded
from harness.guard.watch import Guard

__all__ = [
    "Guard",
    "Job",
    "Ledger",
    "RunParser",
    "Unguarded",
    "add_run_options",
    "compare_ranks",
    "compare_schedules",
    "report_failure",
    "run_job",
]
