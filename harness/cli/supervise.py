"""Keep a job alive: `python launch/supervise.py -- horovodrun -np 2 python launch/train.py --resume auto`."""

from __future__ import annotations

import argparse
import shutil

from harness.supervising.supervise import Supervisor


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; argparse ends with exit code 2 when it cannot."""
    parser = argparse.ArgumentParser(
        description="Restart a job that was killed, lost a rank (7) or was stopped (75), from its newest checkpoint. A "
        "signal to this process asks the ranks to save and stop.",
        allow_abbrev=False,
        epilog="Ends with the exit code of the job's own outcome, which launchers hide; 1 if there is none. A "
        "command that ends by itself before any rank has started (a typo, --help) is not restarted, "
        "and the supervisor ends with its code.",
    )
    parser.add_argument(
        "--at-most", type=int, default=10, metavar="N", help="number of restarts (default: %(default)s)"
    )
    parser.add_argument(
        "--pause", type=float, default=5.0, metavar="S", help="seconds before the first restart, doubling (default: 5)"
    )
    parser.add_argument(
        "--grace", type=float, default=120.0, metavar="S", help="seconds to save when asked to stop (default: 120)"
    )
    parser.add_argument(
        "--start",
        type=float,
        default=600.0,
        metavar="S",
        help="seconds in which the first rank must have started (default: 600)",
    )
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="after --: the launcher and the program")
    options = parser.parse_args(arguments)
    if options.at_most < 0 or options.pause < 0 or options.grace < 0:
        parser.error("--at-most, --pause and --grace must be at least 0")
    if not options.start > 0:
        parser.error(f"--start: {options.start:g} is not possible; allowed: more than 0")
    if shutil.which(options.command[0]) is None:
        parser.error(f"{options.command[0]}: no such program; give the whole command after --")
    return options


def main() -> int:
    """Parse and supervise."""
    options = parse_arguments()
    supervisor = Supervisor(
        options.command,
        at_most=options.at_most,
        pause_s=options.pause,
        grace_s=options.grace,
        start_s=options.start,
    )
    return supervisor.run()
