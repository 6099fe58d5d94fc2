"""What every command that starts ranks does, from top to bottom: read, join, agree, watch, work, end."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from harness.causes import Cause
from harness.comm import JobOverError, SingleWorld, World, read_launch
from harness.command.exits import end_with_error, fail_to_start, finish, report_failure
from harness.command.joining import Settings, join, read_settings, settings_of_job, value_of
from harness.config import RunConfig
from harness.errors import ConfigError
from harness.folder.outcome import OutcomeFiles
from harness.guard.preflight import compare_configs
from harness.guard.startup import Startup
from harness.guard.watch import Guard


@dataclass
class JobContext:
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

    def settle(self) -> Settings:
        """The settings to work with: those of the job that this process joins, or else its own."""
        membership = self.world.membership
        if membership is None or not membership.is_joining:
            return Settings(self.config, self.threads)
        # the others may be in the finder, before which nobody knows all of them
        return settings_of_job(membership, self.config, lambda: self.guard.enter("waiting for the settings", "first"))

    def enter(self, world: World) -> Guard:
        """Watch over this rank among those of another world, and compare their configurations; a collective."""
        signals = self.guard.let_go()
        self.world = world
        attempt = world.broadcast_object(self.guard.files.attempt, "attempt")
        self.guard = Guard(world, self.config.guard, OutcomeFiles(world.rank, attempt), signals=signals)
        self.guard.open()
        compare_configs(world, self.config)
        return self.guard

    def step_out(self, *, is_over: bool) -> None:
        """This rank ends by itself.

        Args:
            is_over: whether the job ends with it; otherwise the others go on, and nothing is written of its end.
        """
        world = SingleWorld()
        world.membership = self.world.membership
        files = self.guard.files if is_over else OutcomeFiles(0, "", environ={})
        self.world, signals = world, self.guard.let_go()
        self.guard = Guard(world, self.config.guard, files, signals=signals)


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
        if world.membership is not None and world.membership.is_joining:
            files = OutcomeFiles(0, "", environ={})  # of a job that others lead
    except Exception as error:
        return fail_to_start(error, startup, launch, world)

    # The guard takes over from the start-up watch. The configurations are compared before anything follows them, and
    # then the command does its work; what it raises decides how the ranks end.
    job = JobContext(config, world, threads, Guard(world, config.guard, files, startup))
    try:
        job.guard.open()
        compare_configs(world, config)
        _work(job, work)
    except (Exception, SystemExit) as error:
        code = end_with_error(error, job.world, job.guard, config.source)
        if code is None:
            raise
    else:
        code = finish(job.world, job.guard)
    return code if job.world.membership is None else job.world.membership.end(code)


def _work(job: JobContext, work: Callable[[JobContext], None]) -> None:
    """Work, unless this process was to join a job that has ended meanwhile: then it ends as that job has."""
    try:
        work(job)
    except JobOverError as over:
        assert job.world.membership is not None
        job.world.membership.leave()
        job.step_out(is_over=False)
        if over.exit_code:
            raise Cause(str(over), over.exit_code).error().on_all_ranks() from None
