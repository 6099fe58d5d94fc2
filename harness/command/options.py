"""The options that all commands which start ranks have in common."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from harness.causes import Cause
from harness.comm import read_launch
from harness.errors import ConfigError
from harness.folder.outcome import OutcomeFiles
from harness.guard.startup import open_registry
from harness.parsing import whole_number
from harness.shipped import DEFAULT_CONFIG

_LINGER_S = 1.0


class RunParser(argparse.ArgumentParser):
    """Tells a supervisor about a command line that cannot be parsed, so that it does not start the job again."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2; of ranks that have a place in common, the first one prints the message."""
        with suppress(ConfigError):
            launch = read_launch()
            OutcomeFiles(launch.rank, "").write(ConfigError.exit_code, message)
            if not open_registry(launch).fail(Cause(message, ConfigError.exit_code)):
                time.sleep(_LINGER_S)  # a launcher may end all ranks as soon as one has ended
                self.exit(ConfigError.exit_code)
        super().error(message)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Give a command `--config`, `--set` and `--emulate-np`."""
    add_config_options(parser, "override a setting, such as lr.base=0.1 (repeatable)")
    parser.add_argument(
        "--emulate-np",
        type=number_of("ranks"),
        metavar="N",
        help="run the shards of N ranks in this one process, for debugging",
    )


def add_config_options(parser: argparse.ArgumentParser, set_help: str) -> None:
    """Give a command `--config` and `--set`."""
    parser.add_argument(
        "--config",
        default=DEFAULT_CONFIG,
        metavar="FILE|NAME",
        help="a file, or the name of one in configs/ or of a shipped one (default: %(default)s)",
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=set_help)


def number_of(what: str, low: int = 1) -> Callable[[str], int]:
    """The type of an argument that counts something, so many or more."""

    def read(text: str) -> int:
        number = whole_number(text, low=low)
        if number is None:
            raise argparse.ArgumentTypeError(f"{text} is not a number of {what}; allowed: {low} or more")
        return number

    return read
