"""What every command that starts ranks does, from top to bottom: read, join, agree, watch, work, end."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Callable
from typing import NamedTuple

from harness.comm import World, read_launch
from harness.command.exits import end_with_error, fail_to_start, finish, report_failure
from harness.command.joining import join, read_settings, value_of
from harness.config import RunConfig
from harness.errors import ConfigError
from harness.folder.outcome import OutcomeFiles
from harness.guard.preflight import compare_configs
from harness.guard.startup import Startup
from harness.guard.watch import Guard


class JobContext(NamedTuple):
    """What a command works with.

    Attributes:
        config: as read.
        world: the ranks.
        threads: threads that a rank computes with.
        guard: watches over this rank.
    """

    config: RunConfig
    world: World
    threads: int
    guard: Guard


def run_job(options: argparse.Namespace, check: Callable[[RunConfig], None], work: Callable[[JobContext], None]) -> int:
    """Run a command on all ranks; whatever goes wrong becomes one message and an exit code.

    Args:
        options: of `add_run_options`.
        check: refuses a configuration that does not go with the command line.
        work: what the command does on every rank.

    Returns:
        The exit code.
    """
    # Which rank is this? The launcher's environment says so; nothing is imported or started for it.
    try:
        launch = read_launch()
    except ConfigError as error:
        OutcomeFiles(0, "").write(error.exit_code, str(error))
        return report_failure(error, 0)

    # From here on a thread watches: a rank that does not start is named, and SIGTERM ends the process at once.
    startup = Startup(launch, OutcomeFiles(launch.rank, ""))
    startup.open()

    # Every rank joins, even one that could not read its configuration. Then all have one, or all end with one error.
    world: World | None = None
    try:
        found, world = join(lambda: read_settings(options, check, launch, startup), launch)
        config, threads = world.agreed("config", lambda: value_of(found))
        files = OutcomeFiles(world.rank, world.broadcast_object(secrets.token_hex(8), "attempt"))
    except Exception as error:
        return fail_to_start(error, startup, launch, world)

    # The guard takes over from the start-up watch. The configurations are compared before anything follows them, and
    # then the command does its work; what it raises decides how the ranks end.
    guard = Guard(world, config.guard, files, startup)
    try:
        guard.open()
        compare_configs(world, config)
        work(JobContext(config, world, threads, guard))
    except (Exception, SystemExit) as error:
        code = end_with_error(error, world, guard, config.source)
        if code is None:
            raise
        return code
    return finish(world, guard)
