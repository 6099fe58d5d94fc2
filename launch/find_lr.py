#!/usr/bin/env python
"""Find a learning rate on all ranks: `horovodrun -np 2 python launch/find_lr.py`; rank 0 writes the report."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness.errors import NoUsableLRError
from harness.finder import FinderResult
from harness.guard import Job, RunParser, add_run_options, run_job


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; argparse ends with exit code 2 when it cannot."""
    parser = RunParser(
        prog="find_lr.py",
        description="Sweep the learning rate over all ranks, put everything back, suggest one, and report.",
        allow_abbrev=False,
        epilog="Exit codes: as train.py; 8 if no learning rate can be defended.",
    )
    add_run_options(parser)
    parser.add_argument(
        "--checkpoint", metavar="PATH", help="begin in the state of a set instead of an untrained network"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="where the report goes (default: runs/NAME/finder)")
    options = parser.parse_args(arguments)
    if options.checkpoint in ("auto", "never"):
        parser.error(
            f"--checkpoint: {options.checkpoint!r} is no path; give a set, a folder of sets, or a run's folder"
        )
    return options


def main() -> int:
    """Parse, sweep, report; the exit code says how it ended."""
    options = parse_arguments()

    def work(job: Job) -> None:
        # not before the number of threads is settled, which MXNet reads when it is imported
        from harness.report import write_finder_report
        from harness.resume import Start
        from harness.run import Run

        start = Start(resume=options.checkpoint or "never", on_conflict="config")
        run = Run(
            job.config, job.world, threads=job.threads, emulate_np=options.emulate_np, start=start, guard=job.guard
        )
        folder = options.output or run.folder.path / "finder"
        with run.stream() as stream:
            result = run.find(run.learner(stream))
        job.world.on_root("report", lambda: write_finder_report(result, _free(folder), run.config.run_name))
        if job.world.rank == 0:
            _show(result, folder)
        refusal = result.suggestion.refusal
        if refusal is not None:
            raise NoUsableLRError(f"{refusal.reason}. To go on: {refusal.advice}").on_all_ranks()

    return run_job(options, lambda config: None, work)


def _free(folder: Path) -> Path:
    """The folder, with an earlier report moved aside."""
    if (folder / "result.json").exists():
        names = (folder.with_name(f"{folder.name}.{number}") for number in range(1, 1_000_000))
        folder.rename(next(name for name in names if not name.exists()))
    return folder


def _show(result: FinderResult, folder: Path) -> None:
    suggestion, num_ranks = result.suggestion, result.num_ranks
    for number, sweep in enumerate(result.sweeps, start=1):
        points = sweep.points
        print(f"sweep {number}: {len(points)} iterations, {points[0].lr:.3g} to {points[-1].lr:.3g}; {sweep.stop}")
    for rule, lr in suggestion.rules.items():
        print(f"  {rule:14} {'nothing to say' if lr is None else f'{lr:.3g}'}")
    if suggestion.lr is not None:
        what = "sweeps" if len(result.sweeps) > 1 else "rules"
        interval = f"the {what}: {suggestion.low:.3g} to {suggestion.high:.3g}"
        batch = result.global_batch
        print(f"suggested: {suggestion.lr:g} at a global batch of {batch} ({suggestion.rule}; {interval})")
    ranks = "the one rank" if num_ranks == 1 else f"each of {num_ranks} ranks"
    print(f"nothing was disturbed: digest {(result.digest or '')[:12]} before and after, on {ranks}")
    print(f"wrote {folder}/report.html, curve.png, curve.csv, result.json", flush=True)


if __name__ == "__main__":
    sys.exit(main())
