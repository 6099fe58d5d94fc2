"""What a run opens and finds before its first update: its folder, its metrics, a learning rate."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from functools import partial

from harness.errors import ConfigError
from harness.folder import METRICS, AttemptStart, EventFile, MetricsFile
from harness.gluon import Learner
from harness.report import write_finder_report, write_run_report
from harness.train.find import find_base, with_found_base
from harness.train.resume import open_folder, warnings_for
from harness.train.run import Run
from harness.train.saving import attempt_start, environment_of
from harness.train.standing import Standing, WorldChangedError


def open_run_folder(at: Standing) -> list[str]:
    """Open the run's folder, or only lock it where it is this attempt's already; what the user should know of it."""
    run = at.run
    if at.is_open:
        if not run.folder.path.is_dir():
            raise ConfigError(
                f"{run.folder.path}: rank 0 is now on {socket.gethostname()}, where this folder is missing; where "
                "workers come and go, `output` has to be on a disk that all hosts share"
            )
        # a rank 0 that was frozen is killed, which may take a moment; one on another host may be frozen still
        run.folder.lock_after_another(run.config.elastic.wait_s)
        return []
    notes = open_folder(run.folder, run.start, run.resume_point)
    if run.resume_point is not None:
        notes.insert(0, f"resuming after iteration {run.resume_point.iteration} from {run.resume_point.path}")
        notes += warnings_for(run.resume_point, {**environment_of(run), "sum": run.world.sum_by})
    return notes


def find_base_of(run: Run, learner: Learner) -> tuple[Run, list[str]]:
    """Run the finder, report, and continue with what it found."""
    folder = run.folder.path / "finder"
    result = find_base(run, learner)
    run.world.on_root("finder", lambda: write_finder_report(result, folder, run.config.run_name))
    return with_found_base(run, result, str(folder / "report.html"))


def open_metrics(run: Run, after: int, stack: ExitStack) -> MetricsFile | None:
    """`metrics.jsonl` on rank 0, cut back to an iteration; `None` on the others."""
    folder = run.folder.path
    opened: list[MetricsFile] = []  # on rank 0, which fails on all ranks or on none
    run.world.on_root("metrics", lambda: opened.append(MetricsFile(folder / METRICS, after)))
    if not opened:
        return None
    metrics = stack.enter_context(opened[0])
    if run.config.log.tensorboard:
        resolved = (folder / "config.yaml").read_text(encoding="utf-8")  # written a moment ago
        texts = {"config": f"```yaml\n{resolved}```", "plan": run.plan.describe()}
        pictures = {"plan": folder / "plan.png", "finder": folder / "finder" / "curve.png"}
        metrics.show_in(EventFile(folder / "tensorboard", texts, pictures))
    return metrics


def unread_lines(run: Run, metrics: MetricsFile | None) -> list[str]:
    """Warnings of lines that an earlier attempt left damaged."""
    return [
        f"warning: {run.folder.path / part.file}, line {part.line}, cannot be read and stays as it is: it {part.reason}"
        for part in (() if metrics is None else metrics.unread.parts)
    ]


def record_beginning(at: Standing, change: WorldChangedError | None) -> AttemptStart:
    """Record in the run's history how this attempt begins, or how its workers have changed; how it has begun.

    Args:
        at: where the run stands.
        change: of its workers.
    """
    run, start = at.run, attempt_start(at.run)
    folder, page = run.folder.path, partial(write_run_report, run.folder.path)
    if change is None:
        return run.guard.use_folder(folder, start, page)
    run.guard.continue_in(folder, change.record(at.state.iteration, run.world.size), page)
    return start


def offer(run: Run) -> None:
    """Show to processes that may join what they have to know."""
    if run.world.membership is not None and run.world.rank == 0:
        run.world.membership.offer(run.config.plain())
