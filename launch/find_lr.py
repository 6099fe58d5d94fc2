#!/usr/bin/env python
"""Find a learning rate on all ranks: `horovodrun -np 2 python launch/find_lr.py`; rank 0 writes the report."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from harness.comm import Launch, read_launch, settle_threads
from harness.config import RunConfig, load_config
from harness.errors import ConfigError, HarnessError, NoUsableLRError
from harness.guard import begin_together, report_failure


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; argparse ends with exit code 2 when it cannot."""
    parser = argparse.ArgumentParser(
        prog="find_lr.py",
        description="Sweep the learning rate over all ranks, put everything back, suggest one, and report.",
        allow_abbrev=False,
        epilog="Exit codes: as train.py; 8 if no learning rate can be defended.",
    )
    parser.add_argument("--config", default="configs/digits.yaml", metavar="FILE", help="default: %(default)s")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a setting, such as finder.repeats=3 (repeatable)",
    )
    parser.add_argument("--emulate-np", type=int, metavar="N", help="play N ranks in this one process, for debugging")
    parser.add_argument(
        "--checkpoint", metavar="PATH", help="begin in the state of a set instead of an untrained network"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="where the report goes (default: runs/NAME/finder)")
    options = parser.parse_args(arguments)
    if options.emulate_np is not None and options.emulate_np < 1:
        parser.error(f"--emulate-np: {options.emulate_np} is not a number of ranks; allowed: 1 or more")
    if options.checkpoint in ("auto", "never"):
        parser.error(
            f"--checkpoint: {options.checkpoint!r} is no path; give a set, a folder of sets, or a run's folder"
        )
    return options


def main() -> int:
    """Parse, sweep, report; the exit code says how it ended."""
    options = parse_arguments()
    launch = Launch()

    def read() -> tuple[tuple[RunConfig, int], str]:
        config = load_config(options.config, options.set)
        if options.emulate_np is not None and launch.size > 1:
            raise ConfigError(
                f"--emulate-np plays all ranks in one process, but {launch.launcher} started {launch.size}"
            )
        return (config, settle_threads(config.threads_per_rank, launch, options.emulate_np)), config.comm

    try:
        launch = read_launch()
        (config, threads), world = begin_together(read, launch)
    except ConfigError as error:
        return report_failure(error, launch.rank)

    from harness.report import write_finder_report
    from harness.resume import Start
    from harness.run import Run

    try:
        start = Start(resume=options.checkpoint or "never", on_conflict="config")
        run = Run(config, world, threads=threads, emulate_np=options.emulate_np, start=start)
        folder = options.output or run.folder.path / "finder"
        with run.stream() as stream:
            result = run.find(run.learner(stream))
        world.on_root("report", lambda: write_finder_report(result, _free(folder), run.config.run_name))
        if world.rank == 0:
            _show(result, folder)
        refusal = result["suggestion"]["refusal"]
        if refusal is not None:
            raise NoUsableLRError(f"{refusal['reason']}. To go on: {refusal['advice']}").on_all_ranks()
    except HarnessError as error:
        code = report_failure(error, world.rank)
        if error.everywhere:
            world.close()
        return code
    except Exception as error:
        lost = world.explain(error)
        if lost is None:
            raise
        return report_failure(lost, world.rank)
    world.close()
    return 0


def _free(folder: Path) -> Path:
    """The folder, with an earlier report moved aside."""
    if (folder / "result.json").exists():
        names = (folder.with_name(f"{folder.name}.{number}") for number in range(1, 1_000_000))
        folder.rename(next(name for name in names if not name.exists()))
    return folder


def _show(result: dict[str, Any], folder: Path) -> None:
    suggestion, batch = result["suggestion"], result["provenance"]["global_batch"]
    for number, sweep in enumerate(result["sweeps"], start=1):
        points = sweep["points"]
        print(f"sweep {number}: {len(points)} iterations, {points[0][0]:.3g} to {points[-1][0]:.3g}; {sweep['stop']}")
    for rule, lr in suggestion["rules"].items():
        print(f"  {rule:14} {'nothing to say' if lr is None else f'{lr:.3g}'}")
    if suggestion["lr"] is not None:
        what = "sweeps" if len(result["sweeps"]) > 1 else "rules"
        interval = f"the {what}: {suggestion['low']:.3g} to {suggestion['high']:.3g}"
        print(f"suggested: {suggestion['lr']:g} at a global batch of {batch} ({suggestion['rule']}; {interval})")
    proof = result["proof"]
    ranks = "the one rank" if proof["num_ranks"] == 1 else f"each of {proof['num_ranks']} ranks"
    print(f"nothing was disturbed: digest {proof['digest'][:12]} before and after, on {ranks}")
    print(f"wrote {folder}/report.html, curve.png, curve.csv, result.json", flush=True)


if __name__ == "__main__":
    sys.exit(main())
