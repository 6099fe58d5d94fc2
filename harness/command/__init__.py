"""How a command that starts ranks begins and ends: options, one exit code, the supervisor."""

from harness.command.exits import report_failure
from harness.command.run_job import JobContext, RunParser, add_run_options, run_job

__all__ = [
    "JobContext",
    "RunParser",
    "add_run_options",
    "report_failure",
    "run_job",
]
