"""How a command that starts ranks begins and ends: options, joining, exit codes, the supervisor."""

from harness.command.exits import report_failure
from harness.command.job import JobContext, run_job
from harness.command.options import RunParser, add_run_options

__all__ = [
    "JobContext",
    "RunParser",
    "add_run_options",
    "report_failure",
    "run_job",
]
