"""From a command line to the ranks that train together: read the configuration, and join, whatever came of reading."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

from harness.comm import Launch, Membership, World, configure_threads, connect
from harness.config import RunConfig, load_config, parse_config
from harness.errors import ConfigError
from harness.guard.missing import JOINING
from harness.guard.preflight import OF_A_HOST
from harness.guard.startup import Startup


class Settings(NamedTuple):
    """What a rank has read.

    Attributes:
        config: the configuration.
        threads: that a rank computes with.
    """

    config: RunConfig
    threads: int


def read_settings(
    options: argparse.Namespace, check: Callable[[RunConfig], None], launch: Launch, startup: Startup
) -> Settings:
    """Read and check the configuration, and set the number of threads.

    Raises:
        ConfigError: if it cannot be read, or does not go with the command line or the launcher.
    """
    startup.enter("reading the configuration")
    try:
        config = load_config(options.config, options.set)
        startup.limit(config.guard)
        check(config)
        if options.emulate_np is not None and (launch.size > 1 or launch.is_elastic):
            started = "an elastic job" if launch.is_elastic else launch.size
            raise ConfigError(
                f"--emulate-np runs all shards in one process, but {launch.launcher} started {started}; drop one of "
                "the two"
            )
        return Settings(config, configure_threads(config.threads_per_rank, launch, options.emulate_np))
    finally:
        startup.enter(JOINING)


def join(read: Callable[[], Settings], launch: Launch) -> tuple[Settings | ConfigError, World]:
    """Join the world that the configuration asks for, or any world if this rank could not read it.

    A rank whose file is damaged, or missing on its host, joins nevertheless, because the others would wait for it.

    Args:
        read: reads the settings.
        launch: how this process was started.

    Returns:
        The settings, or why they could not be read, on which the ranks have yet to agree; and the world.

    Raises:
        ConfigError: if no other rank waits: there is none, or all fail alike.
    """
    try:
        found = read()
        return found, connect(found.config.comm, launch, found.config.device, found.config.sum)
    except ConfigError as error:
        if launch.size == 1 or error.everywhere:
            raise
        return error, connect("auto", launch)


def settings_of_job(membership: Membership, own: RunConfig, may_wait: Callable[[], None]) -> Settings:
    """The settings of a job that this process joins, as the others have resolved them; waits until they tell them.

    Args:
        membership: of this process.
        own: as it was read here; what belongs to this host is taken from it.
        may_wait: is called while this process waits.
    """
    plain, mine = membership.wait_for_offer(may_wait), own.plain()
    for *section, key in OF_A_HOST:
        theirs, ours = (plain[section[0]], mine[section[0]]) if section else (plain, mine)
        theirs[key] = ours[key]
    config = parse_config(plain, own.source)
    return Settings(config, configure_threads(config.threads_per_rank, Launch()))


def value_of(found: Settings | ConfigError) -> Settings:
    """The settings.

    Raises:
        ConfigError: if they could not be read.
    """
    if isinstance(found, ConfigError):
        raise found
    return found
