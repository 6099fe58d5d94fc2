"""Find a learning rate on all ranks: `horovodrun -np 2 python launch/find_lr.py`; rank 0 writes the report."""

from __future__ import annotations

import argparse
import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from harness.command import JobContext, RunParser, add_run_options, run_job
from harness.errors import ConfigError, NoUsableLRError
from harness.finder import FinderResult
from harness.locks import HeldError, lock_of_name

if TYPE_CHECKING:
    from harness.folder import RunFolder


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; argparse ends with exit code 2 when it cannot."""
    parser = RunParser(
        description="Sweep the learning rate on all ranks, restore the state, suggest a rate, and write a report.",
        allow_abbrev=False,
        epilog="Exit codes: as for training; 8 if there is no reliable learning rate.",
    )
    add_run_options(parser)
    parser.add_argument(
        "--checkpoint", metavar="PATH", help="start from the state of a checkpoint instead of an untrained network"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for the report (default: runs/NAME/finder)")
    options = parser.parse_args(arguments)
    if options.checkpoint in ("auto", "never", ""):
        parser.error(
            f"--checkpoint: {options.checkpoint!r} is not a path; give a checkpoint, a folder of checkpoints, or a "
            f"run's folder"
        )
    return options


def main() -> int:
    """Parse, sweep, report; the exit code says how the run ended."""
    options = parse_arguments()

    def work(job: JobContext) -> None:
        # import late: MXNet reads the number of threads at import, so it must be set first
        from harness.report import write_finder_report
        from harness.train.build import build_learner
        from harness.train.find import find_base
        from harness.train.prepare import prepare_run
        from harness.train.resume import StartOptions

        start = StartOptions(resume=options.checkpoint or "never", on_conflict="config")
        run = prepare_run(
            job.config, job.world, threads=job.threads, emulate_np=options.emulate_np, start=start, guard=job.guard
        )
        folder = options.output or run.folder.path / "finder"
        with ExitStack() as stack:
            stack.callback(run.close)
            # before the sweep, because a training run writes there too; an earlier report is moved aside
            job.world.on_root("folder", lambda: _take(folder, run.folder if options.output is None else None, stack))
            learner = build_learner(run)
            remarks = [*job.world.remarks, *learner.remarks]
            if job.world.rank == 0 and remarks:
                print("\n".join(remarks))
            result = find_base(run, learner)
            job.world.on_root("report", lambda: write_finder_report(result, _free(folder), run.config.run_name))
        if job.world.rank == 0:
            _show(result, folder)
        refusal = result.suggestion.refusal
        if refusal is not None:
            raise NoUsableLRError(f"{refusal.reason}. What to do: {refusal.advice}").on_all_ranks()

    return run_job(options, lambda config: None, work)


def _take(folder: Path, run: RunFolder | None, stack: ExitStack) -> None:
    """Lock the report's folder until the stack ends; if it lies in a run's folder, lock that."""
    if run is not None:
        run.open()
        stack.callback(run.close)
        return
    try:
        lock = lock_of_name(folder.resolve())
        lock.path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except HeldError as error:
        raise ConfigError(
            f"{folder}: {error.owner} is writing there; wait until it has ended, or choose another --output"
        ) from None
    except (OSError, ValueError) as error:  # the root of the file system gives a ValueError
        raise ConfigError(f"{folder}: cannot be written ({error}); choose another --output") from None
    stack.callback(lock.release, remove=True)


def _free(folder: Path) -> Path:
    """Move an earlier report in the folder aside, and return the folder."""
    if (folder / "result.json").exists():
        names = (folder.with_name(f"{folder.name}.{number}") for number in range(1, 1_000_000))
        try:
            folder.rename(next(name for name in names if not os.path.lexists(name)))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{folder}: an earlier report cannot be moved aside ({error}); move it") from None
    return folder


def _show(result: FinderResult, folder: Path) -> None:
    suggestion, num_ranks = result.suggestion, result.num_ranks
    for number, sweep in enumerate(result.sweeps, start=1):
        points = sweep.points
        print(f"sweep {number}: {len(points)} iterations, {points[0].lr:.3g} to {points[-1].lr:.3g}; {sweep.stop}")
    for rule, lr in suggestion.rules.items():
        print(f"  {rule:14} {'no answer' if lr is None else f'{lr:.3g}'}")
    if suggestion.lr is not None:
        what = "sweeps" if len(result.sweeps) > 1 else "rules"
        interval = f"the {what}: {suggestion.low:.3g} to {suggestion.high:.3g}"
        batch = result.global_batch
        print(f"suggested: {suggestion.lr:g} at a global batch of {batch} ({suggestion.rule}; {interval})")
    ranks = "the only rank" if num_ranks == 1 else f"each of {num_ranks} ranks"
    print(f"state restored: digest {(result.digest or '')[:12]} unchanged on {ranks}")
    print(f"wrote {folder}/report.html, curve.png, curve.csv, result.json", flush=True)
