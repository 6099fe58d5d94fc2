"""From an error to a message on the terminal and an exit code, once for the whole job."""

from __future__ import annotations

import sys

from harness.comm import Launch, connect
from harness.errors import ConfigError, HarnessError


def report_failure(error: HarnessError, rank: int) -> int:
    """Print an error, once if every rank has it, and return the exit code."""
    if rank == 0 or not error.everywhere:
        who = "" if rank == 0 else f"rank {rank}: "
        print(f"error: {who}{error}", file=sys.stderr, flush=True)
    return error.exit_code


def fail_together(error: ConfigError, launch: Launch) -> int:
    """End a job whose configuration this rank could not read, before any rank has joined a world.

    Every rank that launcher started reads the same file, so most often all are here; joining the others turns their
    messages into one, and tells those whose copy of the file was good.
    """
    if launch.size == 1:
        return report_failure(error, 0)
    world = connect("auto", launch)

    def fail() -> None:
        raise error

    try:
        world.agreed("config", fail)
    except HarnessError as merged:
        error_code = report_failure(merged, world.rank)
        world.close()
        return error_code
    raise AssertionError("an agreed failure did not fail")
