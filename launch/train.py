#!/usr/bin/env python
"""Train a network: `horovodrun -np 2 python launch/train.py --config configs/digits.yaml`, or without horovodrun."""

from __future__ import annotations

import argparse
import sys

from harness.comm import Launch, read_launch, settle_threads
from harness.config import RunConfig, load_config
from harness.errors import ConfigError, HarnessError
from harness.guard import begin_together, report_failure


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; argparse ends with exit code 2 when it cannot."""
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Train a Gluon network with a scheduled learning rate, on one or many workers.",
        allow_abbrev=False,
        epilog="Exit codes: 0 done, 2 configuration, 3 data, 4 checkpoint, 5 ranks differ, 6 diverged, 7 rank lost.",
    )
    parser.add_argument("--config", default="configs/digits.yaml", metavar="FILE", help="default: %(default)s")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a setting, such as lr.base=0.1 (repeatable)",
    )
    parser.add_argument("--emulate-np", type=int, metavar="N", help="play N ranks in this one process, for debugging")
    parser.add_argument(
        "--resume",
        default="never",
        metavar="auto|PATH|never",
        help="go on from the newest whole set of the run, or from a set elsewhere (default: %(default)s)",
    )
    parser.add_argument(
        "--on-conflict",
        choices=("error", "config", "checkpoint"),
        default="error",
        help="where set and configuration differ in the plan: stop, or go on by one of them (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="move an existing run of this name aside")
    parser.add_argument("--evaluate-only", action="store_true", help="evaluate the weights in init.from and stop")
    options = parser.parse_args(arguments)
    if options.emulate_np is not None and options.emulate_np < 1:
        parser.error(f"--emulate-np: {options.emulate_np} is not a number of ranks; allowed: 1 or more")
    if options.overwrite and options.resume == "auto":
        parser.error("--overwrite begins anew and --resume auto goes on; give one of the two")
    if options.evaluate_only and (options.resume != "never" or options.overwrite):
        parser.error("--evaluate-only reads weights from init.from and touches no run; drop --resume and --overwrite")
    if options.on_conflict != "error" and options.resume == "never":
        parser.error("--on-conflict has no effect without --resume")
    return options


def read_settings(options: argparse.Namespace, launch: Launch) -> tuple[RunConfig, int]:
    """The configuration and the number of threads, which is settled before MXNet is imported."""
    config = load_config(options.config, options.set)
    if options.evaluate_only and config.init.from_ is None:
        raise ConfigError("--evaluate-only needs weights: give a file with --set init.from=runs/NAME/final.params")
    if options.emulate_np is not None and launch.size > 1:
        raise ConfigError(
            f"--emulate-np plays all ranks in one process, but {launch.launcher} started {launch.size}; "
            "drop one of the two"
        )
    return config, settle_threads(config.threads_per_rank, launch, options.emulate_np)


def main() -> int:
    """Parse, build, run; the exit code says how it ended."""
    options = parse_arguments()
    launch = Launch()

    def read() -> tuple[tuple[RunConfig, int], str]:
        config, threads = read_settings(options, launch)
        return (config, threads), config.comm

    try:
        launch = read_launch()
        (config, threads), world = begin_together(read, launch)
    except ConfigError as error:
        return report_failure(error, launch.rank)

    from harness.loop import evaluate_only, train
    from harness.resume import Start
    from harness.run import Run

    try:
        start = Start(options.resume, options.overwrite, options.on_conflict)
        run = Run(config, world, threads=threads, emulate_np=options.emulate_np, start=start)
        if options.evaluate_only:
            evaluate_only(run)
        else:
            train(run)
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


if __name__ == "__main__":
    sys.exit(main())
