"""Find a learning rate on all ranks: `horovodrun -np 2 python launch/find_lr.py`; rank 0 writes the report."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from harness.command import JobContext, RunParser, add_run_options, run_job
from harness.errors import ConfigError, NoUsableLRError
from harness.files import move_aside
from harness.finder import ROLES, FinderResult, Refusal, to_paste
from harness.locks import HeldError, lock_of_name
from harness.parsing import whole_number

if TYPE_CHECKING:
    from harness.folder import RunFolder
    from harness.train.run import Run

_MOST_MULTIPLES, _LARGEST_MULTIPLE = 16, 65536


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
    parser.add_argument(
        "--across",
        type=_multiples,
        metavar="1,2,4,...",
        help="sweep at these multiples of the global batch, and measure how the learning rate grows with it",
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder for the report (default: runs/NAME/finder, or finder-across)"
    )
    parser.add_argument(
        "--resume",
        choices=("auto", "never"),
        default="never",
        help="resume a range test that was stopped or killed; start one where there is none (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="move an existing report aside")
    options = parser.parse_args(arguments)
    if options.checkpoint in ("auto", "never", ""):
        parser.error(
            f"--checkpoint: {options.checkpoint!r} is not a path; give a checkpoint, a folder of checkpoints, or a "
            f"run's folder"
        )
    if options.overwrite and options.resume == "auto":
        parser.error("--overwrite starts over, but --resume auto resumes; give only one of them")
    if options.across and options.checkpoint:
        parser.error(
            "--across changes the batch, which is fixed in a checkpoint; to start from its weights, give --set "
            f"init.from={options.checkpoint} instead of --checkpoint"
        )
    return options


def main() -> int:
    """Parse, sweep, report; the exit code says how the run ended."""
    options = parse_arguments()
    work = _find_across if options.across else _find
    return run_job(options, lambda config: None, lambda job: work(job, options))


def _find(job: JobContext, options: argparse.Namespace) -> None:
    # import late: MXNet reads the number of threads at import, so it must be set first
    from harness.finder.journal import UNFINISHED, remove_unfinished
    from harness.report import write_finder_report
    from harness.train.build import build_learner
    from harness.train.find import earlier_result, find_base, journal_of
    from harness.train.prepare import prepare_run
    from harness.train.resume import StartOptions

    start = StartOptions(resume=options.checkpoint or "never", on_conflict="config")
    run = prepare_run(
        job.config, job.world, threads=job.threads, emulate_np=options.emulate_np, start=start, guard=job.guard
    )
    folder = options.output or run.folder.path / "finder"
    with ExitStack() as stack:
        stack.callback(run.close)
        is_done = _open(run, folder, "result.json", options, stack)
        result = earlier_result(run, folder / "result.json") if is_done else None
        if result is None:
            learner = build_learner(run)
            if job.world.rank == 0:
                _say([*job.world.remarks, *learner.remarks])
            journal = journal_of(run, learner, folder / UNFINISHED)
            result = found = find_base(run, learner, journal=journal)
            job.world.on_root("report", lambda: write_finder_report(found, folder, run.config.run_name))
            job.world.on_root("finder.done", lambda: remove_unfinished(folder))
            if job.world.rank == 0:
                _say(journal.told())
    if job.world.rank == 0:
        _show(result, folder)
    _refuse(result.suggestion.refusal)


def _find_across(job: JobContext, options: argparse.Namespace) -> None:
    from harness.finder.journal import remove_unfinished
    from harness.report import write_across_report
    from harness.train.across import earlier_across, find_across, runs_across

    world = job.world
    runs = runs_across(
        job.config, world, options.across, threads=job.threads, emulate_np=options.emulate_np, guard=job.guard
    )
    first = next(runs)
    folder = options.output or first.folder.path / "finder-across"
    with ExitStack() as stack:
        stack.callback(first.close)
        if _open(first, folder, "scaling.json", options, stack):
            told, refusal = earlier_across(world, folder / "scaling.json")
        else:
            found = find_across(first, runs, folder, _say if world.rank == 0 else lambda lines: None)
            world.on_root("report", lambda: write_across_report(found, folder, first.config.run_name))
            world.on_root("finder.done", lambda: remove_unfinished(folder))
            told, refusal = found.told(), found.refusal
    if world.rank == 0:
        _say([*told, f"wrote {folder}/report.html, scaling.png, curves.csv, scaling.json"])
    _refuse(refusal)


def _open(run: Run, folder: Path, result: str, options: argparse.Namespace, stack: ExitStack) -> bool:
    """Lock the report's folder, and make room in it as the options say; a collective.

    Returns:
        Whether it holds a result that `--resume auto` asks for.
    """
    from harness.finder.journal import refuse_what_is_there

    def take() -> bool:
        # before the sweep, because a training run writes there too
        _lock(folder, run.folder if options.output is None else None, stack)
        if options.resume == "auto":
            return (folder / result).exists()
        if options.overwrite:
            _move_aside(folder)
        refuse_what_is_there(folder, result)
        return False

    return run.world.on_root("folder", take)


def _lock(folder: Path, run: RunFolder | None, stack: ExitStack) -> None:
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


def _move_aside(folder: Path) -> None:
    """Move a folder with an earlier report, or a part of one, aside."""
    from harness.finder.journal import UNFINISHED

    if not any((folder / name).exists() for name in ("result.json", "scaling.json", UNFINISHED)):
        return
    try:
        moved = move_aside(folder)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder}: an earlier report cannot be moved aside ({error}); move it") from None
    _say([f"moved the previous report to {moved}"])


def _refuse(refusal: Refusal | None) -> None:
    if refusal is not None:
        raise NoUsableLRError(f"{refusal.reason}. What to do: {refusal.advice}").on_all_ranks()


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
        for group in result.groups:
            names = ", ".join(group.names[:3]) + (", ..." if group.count > 3 else "")
            print(f"  x {group.lr:<12.4g} {group.lr * suggestion.lr:.3g} for {names}")
        print(f"to paste; 1x is {ROLES[result.role].words}:")
        print(to_paste(suggestion, result.role, batch, result.scaling))
    ranks = "the only rank" if num_ranks == 1 else f"each of {num_ranks} ranks"
    print(f"state restored: digest {(result.digest or '')[:12]} unchanged on {ranks}")
    print(f"wrote {folder}/report.html, curve.png, curve.csv, result.json", flush=True)


def _say(lines: list[str]) -> None:
    if lines:
        print("\n".join(lines), flush=True)


def _multiples(text: str) -> list[int]:
    found = [whole_number(part, low=1, high=_LARGEST_MULTIPLE) for part in text.split(",")]
    numbers = [number for number in found if number is not None]
    if len(numbers) < len(found) or not 2 <= len(set(numbers)) == len(numbers) <= _MOST_MULTIPLES:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of multiples of the global batch; give 2 to {_MOST_MULTIPLES} different whole "
            "numbers from 1, such as 1,2,4,8"
        )
    return sorted(numbers)
