"""How a run ends: one message, one exit code."""

from harness.guard.commands import Job, add_run_options, run_job
from harness.guard.exits import begin_together, report_failure

__all__ = ["Job", "add_run_options", "begin_together", "report_failure", "run_job"]
