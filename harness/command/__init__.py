"""How a command that starts ranks begins and ends.

`job.py` reads from top to bottom: `joining.py` connects the ranks, `exits.py` and `leaving.py` end them with one
message and one exit code.
"""

from harness.command.exits import report_failure
from harness.command.job import JobContext, run_job
from harness.command.options import RunParser, add_config_options, add_run_options

__all__ = [
    "JobContext",
    "RunParser",
    "add_config_options",
    "add_run_options",
    "report_failure",
    "run_job",
]
