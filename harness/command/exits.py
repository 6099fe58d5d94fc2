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


def join(read: Callable[[], tuple[T, str, str]], launch: Launch) -> tuple[T | ConfigError, World]:
    """Join the world that the configuration asks for, whether or not this rank could read it.

    A rank whose file is damaged, or missing on its host, joins the others nevertheless: they would wait for it.

    Args:
        read: reads the configuration; returns what is wanted of it, the kind of world, and the device.
        launch: how this process was started.

    Returns:
        What was read, or why it could not be, on which the ranks have still to agree; and the world.

    Raises:
        ConfigError: if the others do not wait: there are none, or they failed alike.
    """
    try:
        value, kind, device = read()
        return value, connect(kind, launch, device)
    except ConfigError as error:
        if launch.size == 1 or error.everywhere:
            raise
        return error, connect("auto", launch)


def value_of(found: T | ConfigError) -> T:
    """What was read.

    Raises:
        ConfigError: if it could not be.
    """
    if isinstance(found, ConfigError):
        raise found
    return found
