"""How a job ends: from an error on one rank or on all to one message, the files that record it, and an exit code.

There are four ways out, and `job.py` takes one of them:

- `fail_to_start`: before the ranks are connected and a guard watches;
- `end_together`: every rank raised the same error, or was asked to stop;
- `leave`: this rank failed and the others cannot continue without it, or the other way round;
- `finish`: everything is done.
"""

from __future__ import annotations

import sys
import threading
import traceback
from contextlib import suppress

from harness.causes import Cause
from harness.comm import Launch, World
from harness.command.leaving import close_together, record_departure
from harness.errors import ConfigError, HarnessError, LostRankError, StoppedOnRequestError
from harness.folder.outcome import OutcomeFiles
from harness.guard.startup import Startup
from harness.guard.watch import Guard
from harness.interrupts import leave_job
from harness.shipped import install_command

_CLOSE_S = 10.0


def report_failure(error: HarnessError, rank: int) -> int:
    """Print an error, once if every rank has it, and return its exit code."""
    if rank == 0 or not error.everywhere:
        who = "" if rank == 0 else f"rank {rank}: "
        what = "" if isinstance(error, StoppedOnRequestError) else "error: "
        print(f"{what}{who}{error}", file=sys.stderr, flush=True)
    return error.exit_code


def fail_to_start(error: Exception, startup: Startup, launch: Launch, world: World | None) -> int:
    """End before there is a guard, or even a world; other ranks may be waiting for this one."""
    if isinstance(error, HarnessError) and (error.everywhere or launch.size == 1):
        startup.close()
        startup.signals.close()
        OutcomeFiles(launch.rank, "").write(error.exit_code, str(error))
        report_failure(error, launch.rank)
        if world is not None:
            _close_with_limit(world, error.exit_code)
        return error.exit_code
    if isinstance(error, LostRankError):
        cause = Cause(f"{error}: {startup.explain_missing()}")
    elif isinstance(error, HarnessError):
        cause = Cause(str(error), error.exit_code)
    else:
        traceback.print_exception(error)
        cause = Cause(f"{type(error).__name__}: {error}", HarnessError.exit_code)
    startup.end(cause)
    return cause.exit_code


def end_with_error(error: BaseException, world: World, guard: Guard, source: str) -> int | None:
    """End for whatever was raised while the guard was watching.

    Args:
        error: an exception, or a `SystemExit` from the user's own code.
        world: the ranks.
        guard: watches over this one.
        source: the configuration's file, for messages.

    Returns:
        The exit code; `None` if the error is a bug in a job of one process, whose traceback Python should show.
    """
    if isinstance(error, ModuleNotFoundError) and error.name == "mxnet":
        error = ConfigError(f"{sys.executable} has no mxnet; run `{install_command('mxnet')}`")
    if isinstance(error, HarnessError):
        return end_together(error, world, guard) if error.everywhere or world.size == 1 else leave(error, world, guard)
    if isinstance(error, SystemExit):
        text = f"{source}: the network's or the data's own code ended the process ({error!r}); it must not"
        return leave(ConfigError(text), world, guard)
    lost = world.explain(error) if isinstance(error, Exception) else None
    if lost is None and world.size == 1:
        guard.files.write(HarnessError.exit_code, repr(error))
        guard.files.write_page()
        guard.close()
        return None
    if lost is None:
        traceback.print_exception(error)
        lost = HarnessError(f"{type(error).__name__}: {error}")
    return leave(lost, world, guard)


def end_together(error: HarnessError, world: World, guard: Guard) -> int:
    """Every rank ends, and every rank knows why."""
    guard.files.write(error.exit_code, str(error))
    if error.exit_code != StoppedOnRequestError.exit_code:
        guard.files.write_page()  # again, because now the page can show how each rank failed
    report_failure(error, world.rank)
    return finish(world, guard, Cause(str(error), error.exit_code))


def finish(world: World, guard: Guard, cause: Cause | None = None) -> int:
    """All ranks end, for a cause or because they are done: wait for each other, and close."""
    try:
        close_together(world, guard, cause)
    except HarnessError as lost:
        return guard.leave(cause) if cause is not None else leave(lost, world, guard)
    return cause.exit_code if cause is not None else 0


def leave(error: HarnessError, world: World, guard: Guard) -> int:
    """This rank ends, and the others cannot continue without it; or another one has left, and this one follows."""
    if world.size == 1:
        guard.files.write(error.exit_code, str(error), place=guard.activity())
        code = report_failure(error, world.rank)
        guard.close()
        return code
    cause, error = record_departure(error, world, guard)
    report_failure(error, world.rank)
    code = guard.leave(cause)
    guard.files.write_page()
    sys.stdout.flush()
    return code


def _close_with_limit(world: World, exit_code: int) -> None:
    """Wait until all ranks have printed their message: once one has ended, a launcher may kill the rest.

    Nobody watches any more, so a rank that does not arrive is waited for with a limit.
    """
    limit = threading.Timer(_CLOSE_S, leave_job, (exit_code,))
    limit.daemon = True
    limit.start()
    with suppress(Exception):
        world.close()
    limit.cancel()
