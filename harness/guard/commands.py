"""What the commands that start ranks have in common: their options, how they begin, and how they end."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

from harness.comm import Launch, World, read_launch, settle_threads
from harness.config import RunConfig, load_config
from harness.errors import ConfigError, HarnessError
from harness.guard.exits import begin_together, report_failure


class Job(NamedTuple):
    """What a command works with.

    Attributes:
        config: as read.
        world: the ranks.
        threads: threads a rank computes with.
    """

    config: RunConfig
    world: World
    threads: int


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


def run_job(options: argparse.Namespace, check: Callable[[RunConfig], None], work: Callable[[Job], None]) -> int:
    """Read, join, work, close; whatever goes wrong becomes one message and an exit code.

    Args:
        options: of `add_run_options`.
        check: refuses a configuration that does not go with the command line.
        work: what the command does on every rank.

    Returns:
        The exit code.
    """
    launch = Launch()

    def read() -> tuple[tuple[RunConfig, int], str]:
        config = load_config(options.config, options.set)
        check(config)
        if options.emulate_np is not None and launch.size > 1:
            raise ConfigError(
                f"--emulate-np plays all ranks in one process, but {launch.launcher} started {launch.size}; "
                "drop one of the two"
            )
        return (config, settle_threads(config.threads_per_rank, launch, options.emulate_np)), config.comm

    try:
        launch = read_launch()
        (config, threads), world = begin_together(read, launch)
    except ConfigError as error:
        return report_failure(error, launch.rank)
    try:
        work(Job(config, world, threads))
    except HarnessError as error:
        code = report_failure(error, world.rank)
        if error.everywhere:
            world.close()
        return code
    except SystemExit as error:
        text = f"{config.source}: the network's or the data's own code ended the process ({error!r}); it must not"
        return report_failure(ConfigError(text), world.rank)
    except Exception as error:
        lost = world.explain(error)
        if lost is None:
            raise
        return report_failure(lost, world.rank)
    world.close()
    return 0


def _at_least_one(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of ranks; allowed: 1 or more")
    return int(text)
