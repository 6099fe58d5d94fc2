"""Several runs on one page: their curves in common charts, their results, and the settings that differ."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import ConfigError
from harness.report.charts import Chart, Scale, Series, above_each_other, scale_for
from harness.report.pages import clock, number, render, write_page
from harness.report.record import RunRecord, differing_settings, read_record
from harness.report.run_page import axis_of
from harness.report.words import results_of, sentence_of, state_of

_CUT_FACTOR = 3
_FAR_APART = 30  # peaks of learning rates, from which their axis is logarithmic


def write_comparison(folders: Sequence[Path], output: Path) -> list[str]:
    """Write the page that compares runs.

    Args:
        folders: of the runs, at least two.
        output: the page.

    Returns:
        The result of each run in one sentence.

    Raises:
        ConfigError: naming every folder that is not a run's; or if the page cannot be written.
    """
    records, problems = [], []
    for folder in folders:
        try:
            records.append(read_record(folder))
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    write_page(output, compare_page(records))
    return [sentence_of(record) for record in records]


def compare_page(records: Sequence[RunRecord]) -> str:
    """The page as HTML."""
    labels = labels_of(records)
    drawn = _curves(records, labels)
    cut_at, x = _cut_at(drawn), axis_of(records)
    charts = [Chart(title, x, _scale(title, series, cut_at), series, height=180) for title, series in drawn.items()]
    return render(
        "compare.html",
        title=f"{len(records)} runs compared",
        labels=labels,
        unread_of=[(label, record.unread) for label, record in zip(labels, records, strict=True)],
        sentences=[sentence_of(record) for record in records],
        charts_drawn=above_each_other(charts, "iteration"),
        cut_at=cut_at,
        cut_factor=_CUT_FACTOR,
        results=_results(records),
        settings=differing_settings(records),
        written_at=clock(time.time()),
    )


def labels_of(records: Sequence[RunRecord]) -> list[str]:
    """The names of the runs, or their folders if two have the same name."""
    names = [record.name for record in records]
    return names if len(set(names)) == len(names) else [str(record.folder) for record in records]


def _curves(records: Sequence[RunRecord], labels: Sequence[str]) -> dict[str, list[Series]]:
    """The curves of every run, by their quantity."""
    drawn: dict[str, list[Series]] = {"training loss": [], "learning rate": []}
    for colour, (record, label) in enumerate(zip(records, labels, strict=True)):
        training = record.metrics.training
        if training["iteration"].size:
            drawn["training loss"].append(Series(label, training["iteration"], training["loss"], colour, "thin"))
            drawn["learning rate"].append(Series(label, training["iteration"], training["lr"], colour))
        for split, found in record.metrics.evaluations.items():
            for name, (at, values) in found.items():
                drawn.setdefault(f"{name} on {split}", []).append(Series(label, at, values, colour, "marked"))
    return drawn


def _cut_at(drawn: Mapping[str, Sequence[Series]]) -> float | None:
    """The upper end of loss axes, if a loss exceeds it: one run that diverged must not flatten the others."""
    losses = [one.y[np.isfinite(one.y)] for title, series in drawn.items() if "loss" in title for one in series]
    losses = [values for values in losses if values.size]
    limit = _CUT_FACTOR * max((max(values[0], values[-1]) for values in losses), default=0.0)
    return float(limit) if any(values.max() > limit for values in losses) else None


def _scale(title: str, series: Sequence[Series], cut_at: float | None) -> Scale:
    curves = [one.y for one in series]
    if title == "learning rate":
        peaks = [float(y.max()) for y in curves]
        return scale_for(curves, from_zero=max(peaks, default=0.0) < _FAR_APART * min(peaks, default=0.0))
    if cut_at is not None and "loss" in title:
        curves = [np.minimum(y, cut_at) for y in curves]
    return scale_for(curves)


def _results(records: Sequence[RunRecord]) -> dict[str, list[str]]:
    """A row for each quantity, with a value for each run."""
    results = [results_of(record) for record in records]
    measured = list(dict.fromkeys((split, name) for one in results for split in one for name in one[split]))
    rows: dict[str, list[Any]] = {
        "state": [state_of(record) for record in records],
        "iterations": [f"{record.last_iteration} of {record.num_iterations or '?'}" for record in records],
        "learning rate": ["" if record.plan is None else record.plan.described for record in records],
        "training loss": [_last(record) for record in records],
    }
    for split, name in measured:
        found = [one.get(split, {}).get(name) for one in results]
        rows[f"{name} on {split}"] = ["" if value is None else number(value[1]) for value in found]
    rows["images/s"] = [_median(record) for record in records]
    rows["ranks"] = [", ".join(map(str, _ranks(record))) for record in records]
    return rows


def _last(record: RunRecord) -> str:
    losses = record.metrics.training["loss"]
    return number(float(losses[-1])) if losses.size else ""


def _median(record: RunRecord) -> str:
    rates = record.metrics.training["images_per_s"]
    finite = rates[np.isfinite(rates)]
    return f"{np.median(finite):.0f}" if finite.size else ""


def _ranks(record: RunRecord) -> list[int]:
    return list(dict.fromkeys(one.start.ranks for one in record.attempts if one.start.ranks is not None))
