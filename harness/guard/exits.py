"""From an error to a message on the terminal and an exit code, once for the whole job."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from harness.comm import Launch, World, connect
from harness.errors import ConfigError, HarnessError, StoppedOnRequestError

T = TypeVar("T")


def report_failure(error: HarnessError, rank: int) -> int:
    """Print an error, once if every rank has it, and return the exit code."""
    if rank == 0 or not error.everywhere:
        who = "" if rank == 0 else f"rank {rank}: "
        what = "" if isinstance(error, StoppedOnRequestError) else "error: "
        print(f"{what}{who}{error}", file=sys.stderr, flush=True)
    return error.exit_code


def begin_together(read: Callable[[], tuple[T, str, str]], launch: Launch) -> tuple[T, World]:
    """Join the world that the configuration asks for, or fail on every rank if any rank could not read it.

    A rank whose file is damaged, or missing on its host, joins the others nevertheless: they would wait for it.

    Args:
        read: reads the configuration; returns what is wanted of it, the kind of world, and the device.
        launch: how this process was started.

    Raises:
        ConfigError: on every rank; its world is closed.
    """
    done: list[T] = []
    failure: ConfigError | None = None
    try:
        value, kind, device = read()
        world = connect(kind, launch, device)
        done.append(value)
    except ConfigError as error:
        if launch.size == 1 or error.everywhere:  # the others are not waiting: they know
            raise
        failure = error
        world = connect("auto", launch)

    def fail_if_failed() -> None:
        if failure is not None:
            raise failure

    try:
        world.agreed("config", fail_if_failed)
    except ConfigError:
        world.close()
        raise
    return done[0], world
