"""Train a network: `horovodrun -np 2 python launch/train.py --config configs/digits.yaml`, or without horovodrun."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from dataclasses import replace

from harness.command import JobContext, RunParser, add_run_options, run_job
from harness.command.options import number_of
from harness.config import RunConfig
from harness.errors import ConfigError
from harness.report import LOG_LEVELS


class _PrintSchema(argparse.Action):
    """Print the JSON Schema of a configuration, as `--help` prints its text."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from harness.config.schema import json_schema

        sys.stdout.write(json_schema())
        parser.exit()


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; argparse ends with exit code 2 when it cannot."""
    parser = RunParser(
        description="Train a Gluon network with a scheduled learning rate, on one or many workers.",
        allow_abbrev=False,
        epilog="Exit codes: 0 done, 2 configuration, 3 data, 4 checkpoint, 5 ranks disagree, 6 diverged, 7 rank lost, "
        "8 no reliable learning rate, 75 stopped on request: resume it with --resume auto.",
    )
    add_run_options(parser)
    parser.add_argument(
        "--resume",
        default="never",
        metavar="auto|PATH|never",
        help="resume from the newest valid checkpoint of the run, or from another one (default: %(default)s)",
    )
    parser.add_argument(
        "--on-conflict",
        choices=("error", "config", "checkpoint"),
        default="error",
        help="if checkpoint and configuration have different plans: stop, or follow one of them (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="move an existing run of this name aside")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument(
        "--log-level",
        choices=LOG_LEVELS,
        default="info",
        help="what rank 0 shows; debug shows every line of metrics.jsonl at once (default: %(default)s)",
    )
    shown.add_argument(
        "--quiet", action="store_const", const="warning", dest="log_level", help="short for --log-level warning"
    )
    parser.add_argument("--print-schema", action=_PrintSchema, nargs=0, help="print a config's JSON Schema and stop")
    parser.add_argument("--evaluate-only", action="store_true", help="evaluate the weights in init.from and stop")
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="try the run in a folder of its own: three updates, an evaluation, a checkpoint, and a resume",
    )
    parser.add_argument(
        "--profile",
        type=number_of("updates"),
        metavar="N",
        help="time the parts of N updates after the first few, on every rank, with MXNet's operators",
    )
    options = parser.parse_args(arguments)
    if options.overwrite and options.resume == "auto":
        parser.error("--overwrite starts over, but --resume auto resumes; give only one of them")
    if options.evaluate_only and (options.resume != "never" or options.overwrite):
        parser.error("--evaluate-only reads weights from init.from and touches no run; remove --resume and --overwrite")
    if options.evaluate_only and (options.smoke or options.profile):
        parser.error("--evaluate-only makes no update; remove --smoke and --profile")
    if options.smoke and options.profile:
        parser.error("--smoke makes three updates, fewer than a profile needs to warm up; give only one of them")
    if options.on_conflict != "error" and options.resume == "never":
        parser.error("--on-conflict has no effect without --resume")
    return options


def main() -> int:
    """Parse, build, run; the exit code says how the run ended."""
    options = parse_arguments()

    def check(config: RunConfig) -> None:
        if options.evaluate_only and config.init.from_ is None:
            raise ConfigError("--evaluate-only needs weights: give a file with --set init.from=runs/NAME/final.params")

    def work(job: JobContext) -> None:
        config, threads = job.settle()
        # import late: MXNet reads the number of threads at import, so it must be set first
        from harness.train.loop import evaluate_only, train
        from harness.train.prepare import prepare_run
        from harness.train.profile import Profile
        from harness.train.resume import StartOptions
        from harness.train.smoke import Prepare, smoke
        from harness.train.worlds import train_in_worlds

        start = StartOptions(options.resume, options.overwrite, options.on_conflict)
        if options.smoke:
            smoke(job.config, Prepare(job.world, job.threads, options.emulate_np, job.guard), start, options.log_level)
            return
        membership = job.world.membership
        if membership is not None and membership.is_joining:
            start = StartOptions()
        run = prepare_run(
            config, job.world, threads=threads, emulate_np=options.emulate_np, start=start, guard=job.guard
        )
        with closing(run):
            if options.profile:
                run = replace(run, timing=Profile(run, options.profile))
            if options.evaluate_only:
                evaluate_only(run)
            elif membership is not None:
                train_in_worlds(run, options.log_level, job)
            else:
                train(run, options.log_level)

    return run_job(options, check, work)
