"""`report.html`: an entire run on one page, from its folder."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from harness.errors import HarnessError
from harness.folder import AmendmentRecord, Outcome, seen
from harness.report.charts import Chart, Scale, Series, Stretch, above_each_other, scale_for
from harness.report.finder import finder_chart, rule_of
from harness.report.pages import clock, number, plain, render, write_page
from harness.report.record import RunRecord, read_record
from harness.report.words import sentence_of
from harness.shipped import training_command

_MOST_PHASES = 60  # that are marked, and listed; of more nobody would see any
_LEAST_WIDTH = 4.0  # percent of the run, for a phase that has its number above it
_MOST_EVENTS = 200
_MOST_SETS = 200
_IDLE = {
    "skipped": "update skipped: loss or gradient not finite",
    "weightless": "nothing updated: every weight of the loss is 0",
}
_MOST_REPLACED = 20  # epochs and evaluations with damaged samples that are listed: the last ones
_SAID = 2000  # characters of one line of what happened


@contextmanager
def reported(folder: Path, rank: int) -> Iterator[None]:
    """Write a run's page (on rank 0) when the block ends, normally or with an expected error.

    After anything else, such as a lost rank, nothing may delay the end of the job.
    """
    try:
        yield
    except HarnessError as error:
        if rank == 0:
            _write_at_the_end(folder, error.exit_code, str(error))
        raise
    if rank == 0:
        _write_at_the_end(folder, 0, "done")


def write_run_report(folder: Path, output: Path | None = None, ending: Outcome | None = None) -> str:
    """Write the page of a run.

    Args:
        folder: of the run.
        output: the page; by default `report.html` in the folder.
        ending: how the current attempt ends, as `outcome.json` will record it.

    Returns:
        The result in one sentence.

    Raises:
        ConfigError: if the folder is not a run's, or the page cannot be written.
    """
    record = read_record(folder, ending)
    write_page(output or folder / "report.html", run_page(record))
    return sentence_of(record)


def run_page(record: RunRecord) -> str:
    """The page as HTML."""
    finder = record.finder
    return render(
        "run.html",
        title=record.name,
        run=record,
        sentence=sentence_of(record),
        charts_drawn=_charts(record),
        happened=[(t, seen(said, _SAID)) for t, said in _happened(record)],
        replaced=_replaced(record),
        most_replaced=_MOST_REPLACED,
        most_phases=_MOST_PHASES,
        most_events=_MOST_EVENTS,
        most_sets=_MOST_SETS,
        finder_chart=None if finder is None else finder_chart(finder),
        rule_of=rule_of,
        command=_command(record),
        written_at=clock(time.time()),
    )


def _write_at_the_end(folder: Path, exit_code: int, cause: str) -> None:
    try:
        write_run_report(folder, ending=Outcome("", exit_code, cause, time.time()))
    except Exception as error:  # any error: no page is worth failing a run that has been trained
        said = error if isinstance(error, HarnessError) else repr(error)
        print(f"warning: {folder}/report.html was not written: {said}", file=sys.stderr, flush=True)


def _charts(record: RunRecord) -> list[Chart]:
    """Loss, learning rate, momentum if it changes, and every metric, over one axis of iterations."""
    training, evaluations = record.metrics.training, record.metrics.evaluations
    t, x = training["iteration"], axis_of([record])
    drawn = {
        "loss": [Series("training", t, training["loss"], 0, "thin")],
        "learning rate": [Series("planned", *record.curve, 0, "planned"), Series("applied", t, training["lr"], 0)],
    }
    if np.unique(training["momentum"][np.isfinite(training["momentum"])]).size > 1:
        drawn["momentum"] = [Series("momentum", t, training["momentum"], 0)]
    for colour, (split, found) in enumerate(evaluations.items(), start=1):
        for name, (at, values) in found.items():
            drawn.setdefault(name, []).append(Series(split, at, values, colour, "marked"))
    marked = [*_phases(record), *_events(record)]
    unlabelled = [one._replace(label="") for one in marked]
    charts = [
        Chart(
            title=name,
            x=x,
            y=scale_for([one.y for one in series], from_zero=name == "learning rate"),
            series=[one for one in series if one.x.size],
            stretches=marked if name == "loss" else unlabelled,
        )
        for name, series in drawn.items()
    ]
    return above_each_other(charts, "iteration")


def axis_of(records: Sequence[RunRecord]) -> Scale:
    """The axis of iterations, which includes all of several runs."""
    longest = max(max(record.num_iterations or 1, record.last_iteration) for record in records)
    return Scale(0, longest, is_whole=True)


def _phases(record: RunRecord) -> list[Stretch]:
    found = []
    phases = record.plan.phases if record.plan is not None else []
    for k, phase in enumerate(phases[:_MOST_PHASES], start=1):
        first, last = phase.first, phase.last
        start, end = map(number, phase.lr)
        wide = 100 * (last - first + 1) >= _LEAST_WIDTH * (record.num_iterations or 1)
        said = f"phase {k}: iterations {first} to {last}, learning rate {start} to {end}"
        found.append(Stretch(first - 1, last, "odd phase" if k % 2 else "phase", said, str(k) if wide else ""))
    return found


def _events(record: RunRecord) -> list[Stretch]:
    return [Stretch(t, t, "event", seen(said, _SAID)) for t, said in _happened(record)[:_MOST_EVENTS] if t]


def _happened(record: RunRecord) -> list[tuple[int, str]]:
    """All events that made the run deviate from its plan, each with the iteration after which it happened."""
    begun = [attempt.start.after for attempt in record.attempts[1:]]
    found = [(t, "resumed" if t else "started over") for t in begun]
    found += [(one.iteration, _amended(one)) for one in (record.plan.amendments if record.plan is not None else [])]
    found += [(line.iteration, _IDLE[line.split]) for line in record.metrics.events if line.split in _IDLE]
    waiting = [line for line in record.metrics.events if line.split == "input"]
    found += [(line.iteration, f"updates wait for their samples: {'; '.join(line.said)}") for line in waiting]
    return sorted(found)


def _replaced(record: RunRecord) -> list[tuple[int, int, tuple[str, ...]]]:
    """Of each epoch and evaluation with damaged samples, its last iteration, how many, and what there is to say."""
    lines = [line for line in record.metrics.events if line.split == "replaced"]
    return [(line.iteration, int(line.values.get("count", 0)), line.said) for line in lines]


def _amended(amendment: AmendmentRecord) -> str:
    if amendment.choice in ("plateau", "early_stop"):
        best = "" if amendment.best is None else f" {number(amendment.best)}"
        at = f" (best{best} after iteration {amendment.best_at})" if amendment.best_at else ""
        count = f"{amendment.evaluations} evaluation{'' if amendment.evaluations == 1 else 's'}"
        since = f"{amendment.monitor} has not improved in {count}{at}"
        if amendment.choice == "early_stop":
            return f"stopped early: {since}"
        floor = f" (at least {number(amendment.min_lr)})" if amendment.min_lr else ""
        return f"plateau: {since}; learning rates x {number(amendment.lr_factor)}{floor} from here"
    if amendment.choice == "rewind":
        return (
            f"rewound to here from iteration {amendment.diverged_at}, which was not finite; learning rates "
            f"x {number(amendment.lr_factor)} from here"
        )
    changes = "; ".join(f"{key}: {plain(old)} -> {plain(new)}" for key, (old, new) in amendment.changes.items())
    kept = "the new settings" if amendment.choice == "config" else "the saved settings"
    return f"resumed with {kept}, where checkpoint and configuration differed: {changes}"


def _command(record: RunRecord) -> str:
    """The command that repeats the run from its folder."""
    start = training_command(record.attempts[-1].start.command if record.attempts else "")
    config = shlex.quote(str(record.folder / "config.yaml"))
    return f"{start} --config {config} --set name={shlex.quote(record.name)}-again"
