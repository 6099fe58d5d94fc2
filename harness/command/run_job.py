"""What the commands that start ranks have in common: their options, how they begin, and how they end."""

from __future__ import annotations

import argparse
import secrets
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, NoReturn

from harness.causes import Cause, outranks
from harness.comm import Launch, World, read_launch, settle_threads
from harness.command.exits import join, report_failure, value_of
from harness.config import RunConfig, load_config
from harness.errors import ConfigError, HarnessError, LostRankError, StoppedOnRequestError
from harness.folder.outcome import OutcomeFiles
from harness.guard.missing import JOINING
from harness.guard.preflight import compare_configs
from harness.guard.startup import Startup
from harness.guard.watch import Guard
from harness.interrupts import leave_job
from harness.parsing import whole_number

_FAREWELL_S = 10.0


class JobContext(NamedTuple):
    """What a command works with.

    Attributes:
        config: as read.
        world: the ranks.
        threads: threads a rank computes with.
        guard: watches over this rank.
    """

    config: RunConfig
    world: World
    threads: int
    guard: Guard


class RunParser(argparse.ArgumentParser):
    """Tells a supervisor of a command line that cannot be read, so that it is not tried again."""

    def error(self, message: str) -> NoReturn:
        """End with 2."""
        with suppress(ConfigError):
            OutcomeFiles(read_launch().rank, "").write(ConfigError.exit_code, message)
        super().error(message)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Give a command `--config`, `--set` and `--emulate-np`."""
    parser.add_argument("--config", default="configs/digits.yaml", metavar="FILE", help="default: %(default)s")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a setting, such as lr.base=0.1 (repeatable)",
    )
    parser.add_argument(
        "--emulate-np", type=_at_least_one, metavar="N", help="play N ranks in this one process, for debugging"
    )


def run_job(options: argparse.Namespace, check: Callable[[RunConfig], None], work: Callable[[JobContext], None]) -> int:
    """Read, join, work, close; whatever goes wrong becomes one message and an exit code.

    Args:
        options: of `add_run_options`.
        check: refuses a configuration that does not go with the command line.
        work: what the command does on every rank.

    Returns:
        The exit code.
    """
    try:
        launch = read_launch()
    except ConfigError as error:
        OutcomeFiles(0, "").write(error.exit_code, str(error))
        return report_failure(error, 0)
    startup = Startup(launch, OutcomeFiles(launch.rank, ""))
    startup.open()
    world: World | None = None
    try:
        found, world = join(lambda: _read(options, check, launch, startup), launch)
        config, threads = world.agreed("config", lambda: value_of(found))
        files = OutcomeFiles(world.rank, world.broadcast_object(secrets.token_hex(8), "attempt"))
    except Exception as error:
        return _fail_to_start(error, startup, launch, world)
    guard = Guard(world, config, files, startup)
    try:
        guard.open()
        compare_configs(world, config)
        work(JobContext(config, world, threads, guard))
    except HarnessError as error:
        if error.everywhere or world.size == 1:
            return _end_together(error, world, guard)
        return _leave(error, world, guard)
    except SystemExit as error:
        text = f"{config.source}: the network's or the data's own code ended the process ({error!r}); it must not"
        return _leave(ConfigError(text), world, guard)
    except Exception as error:
        lost = world.explain(error)
        if lost is None and world.size == 1:
            files.write(HarnessError.exit_code, repr(error))
            files.write_page()
            guard.close()
            raise
        if lost is None:
            traceback.print_exc()
            lost = HarnessError(f"{type(error).__name__}: {error}")
        return _leave(lost, world, guard)
    return _part(world, guard)


def _read(
    options: argparse.Namespace, check: Callable[[RunConfig], None], launch: Launch, startup: Startup
) -> tuple[tuple[RunConfig, int], str, str]:
    """The configuration and the number of threads; the world and the device that it asks for."""
    startup.enter("reading the configuration")
    try:
        config = load_config(options.config, options.set)
        startup.limit(config.guard)
        check(config)
        if options.emulate_np is not None and launch.size > 1:
            raise ConfigError(
                f"--emulate-np plays all ranks in one process, but {launch.launcher} started {launch.size}; "
                "drop one of the two"
            )
        threads = settle_threads(config.threads_per_rank, launch, options.emulate_np)
    finally:
        startup.enter(JOINING)
    return (config, threads), config.comm, config.device


def _fail_to_start(error: Exception, startup: Startup, launch: Launch, world: World | None) -> int:
    """End before there is a guard of the world, or a world; the others may wait for this rank."""
    if isinstance(error, HarnessError) and (error.everywhere or launch.size == 1):
        startup.close()
        startup.signals.close()
        OutcomeFiles(launch.rank, "").write(error.exit_code, str(error))
        report_failure(error, launch.rank)
        if world is not None:
            _close_at_last(world, error.exit_code)
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


def _close_at_last(world: World, exit_code: int) -> None:
    """Wait for the others, now that everything is said: once one rank has ended, a launcher gives the rest no time.

    Nobody watches any more, so a rank that does not come is waited for with a limit.
    """
    limit = threading.Timer(_FAREWELL_S, leave_job, (exit_code,))
    limit.daemon = True
    limit.start()
    with suppress(Exception):
        world.close()
    limit.cancel()


def _end_together(error: HarnessError, world: World, guard: Guard) -> int:
    """Every rank ends, and knows why."""
    guard.files.write(error.exit_code, str(error))
    if error.exit_code != StoppedOnRequestError.exit_code:
        guard.files.write_page()  # once more, now that the page can tell how each rank failed
    report_failure(error, world.rank)
    return _part(world, guard, Cause(str(error), error.exit_code))


def _part(world: World, guard: Guard, cause: Cause | None = None) -> int:
    """Every rank ends: wait for each other under the guard's watch, for one may be lost even here, and close.

    Nothing is written down as done before, and nothing that waits for another rank comes after.
    """
    guard.begin_shutdown(cause)
    try:
        world.close()
    except Exception as error:
        lost = error if isinstance(error, HarnessError) else world.explain(error)
        if lost is None:
            raise
        return guard.leave(cause) if cause is not None else _leave(lost, world, guard)
    if cause is None:
        guard.files.write(0, "done")
    guard.close()
    return cause.exit_code if cause is not None else 0


def _leave(error: HarnessError, world: World, guard: Guard) -> int:
    """This rank ends, and the others cannot go on without it; or the other way round."""
    if world.size == 1:
        guard.files.write(error.exit_code, str(error), place=guard.activity())
        code = report_failure(error, world.rank)
        guard.close()
        return code
    kind = "" if type(error) is HarnessError else f"{type(error).__name__}: "
    is_first = not isinstance(error, LostRankError)
    own = Cause(f"{kind}{error}", error.exit_code, is_first)
    known = guard.known_loss() if is_first else guard.cause_of_loss()
    if is_first and outranks(own, known):
        cause, said = own, own.text
        told = f"rank {world.rank} left in {guard.activity()}: {own.text}"
    else:
        cause = (known or own)._replace(first=False)
        said = told = cause.text
        error = LostRankError(
            f"waiting in the collective {world.last_collective!r} in {guard.activity()}: {cause.text}"
        )
    guard.files.write(cause.exit_code, told, place=guard.activity(), collective=world.last_collective)
    report_failure(error, world.rank)
    code = guard.leave(cause._replace(text=said))
    guard.files.write_page()
    sys.stdout.flush()
    return code


def _at_least_one(text: str) -> int:
    number = whole_number(text, low=1)
    if number is None:
        raise argparse.ArgumentTypeError(f"{text} is not a number of ranks; allowed: 1 or more")
    return number
