"""The report of a finder at several batches: curves and rates as a table, a picture and one self-contained page."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import ConfigError
from harness.files import make_folder, replace_file
from harness.finder import fit
from harness.finder.across import RULES, MeasuredScaling
from harness.finder.across_result import AcrossResult, ResultsAt, plan_of, sentences
from harness.folder import write_object
from harness.report.charts import Chart, Scale, Series, scale_for
from harness.report.pages import render
from harness.report.plots import COLOURS, DASHES, as_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from harness.report.charts import Numbers

_WORDS = {"none": "no scaling", "sqrt": "sqrt", "linear": "linear"}


def write_across_report(result: AcrossResult, folder: Path, title: str) -> None:
    """Write `scaling.json`, `curves.csv`, `scaling.png` and `report.html`.

    Raises:
        ConfigError: if the folder cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        make_folder(folder)
        replace_file(folder / "curves.csv", _table(result))
        replace_file(folder / "scaling.png", as_png(draw_across(result, title)))
        replace_file(folder / "report.html", _page(result, title).encode("utf-8", errors="xmlcharrefreplace"))
        write_object(folder / "scaling.json", result.to_json())  # last: with it the report is complete
    except OSError as error:
        raise ConfigError(
            f"{error.filename or folder}: cannot be written ({error.strerror or error}); choose another --output"
        ) from None


def draw_across(result: AcrossResult, title: str) -> Figure:
    """The smoothed curves of every batch, and beside them the rates over the batch."""
    from matplotlib.figure import Figure

    measured = result.measured
    figure = Figure(figsize=(8 if measured is None else 11, 4.6), layout="constrained", dpi=110)
    axes = figure.subplots(1, 1 if measured is None else 2, squeeze=False)[0]
    _draw_curves(axes[0], result)
    if measured is not None:
        _draw_rates(axes[1], measured)
    figure.suptitle(title, fontsize=11, parse_math=False)
    return figure


def across_charts(result: AcrossResult) -> list[Chart]:
    """The same for a page."""
    measured, curves = result.measured, _curves(result)
    series = [Series(str(batch), rates, losses, colour) for colour, batch, rates, losses in curves]
    rates = np.concatenate([one.x for one in series])
    losses = np.concatenate([one.y for one in series])
    x = Scale(float(rates.min()), float(rates.max()), is_log=True)
    if measured is not None:
        ends = np.array([x.low, x.high])
        series.append(Series("compared at", ends, np.full(2, measured.level), 5, "planned"))
    top = _highest_shown(result)
    charts = [
        Chart(
            title="smoothed loss at a global batch of",
            x=x,
            y=scale_for([losses[losses <= top], np.array([top])]),
            series=series,
            x_title="learning rate",
            height=300,
        )
    ]
    if measured is None:
        return charts
    points = [
        Series("a sweep", np.full(len(some), float(one.global_batch)), np.array(some), 0, "dots")
        for one in measured.batches
        for some in (one.slow, one.fast)
    ]
    bars = [
        Series("measured", np.full(2, float(one.global_batch)), np.array([one.rate.low, one.rate.high]), 1, "line")
        for one in measured.batches
    ]
    lines = [
        Series(name, *line, colour, "planned" if colour > 1 else "line")
        for colour, (name, line) in enumerate(_lines(measured).items(), start=1)
    ]
    drawn = [*points, *lines, *bars]
    batches = np.array([one.global_batch for one in measured.batches], np.float64)
    heights = np.concatenate([one.y for one in drawn])
    return [
        *charts,
        Chart(
            title="learning rate",
            x=Scale(float(batches[0]) / 1.2, float(batches[-1]) * 1.2, is_log=True),
            y=Scale(float(heights.min()) / 1.2, float(heights.max()) * 1.2, is_log=True),
            series=drawn,
            x_title="global batch",
            height=320,
        ),
    ]


def _draw_curves(axes: Axes, result: AcrossResult) -> None:
    seen = set()
    for colour, batch, rates, losses in _curves(result):
        label = None if batch in seen else str(batch)
        axes.plot(rates, losses, color=COLOURS[colour % len(COLOURS)], linewidth=1, label=label, alpha=0.8)
        seen.add(batch)
    if result.measured is not None:
        axes.axhline(result.measured.level, color="#555555", linewidth=0.8, linestyle="--", label="compared at")
    lowest = min(float(losses.min()) for _, _, _, losses in _curves(result))
    top = _highest_shown(result)
    axes.set_ylim(lowest - 0.05 * (top - lowest), top)
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("smoothed loss")
    axes.grid(linewidth=0.4, alpha=0.5)
    axes.legend(fontsize=8, title="global batch", title_fontsize=8)


def _draw_rates(axes: Axes, measured: MeasuredScaling) -> None:
    from matplotlib.ticker import FuncFormatter, NullLocator

    batches = [one.global_batch for one in measured.batches]
    for index, one in enumerate(measured.batches):
        sweeps = [*one.slow, *one.fast]
        label = "a sweep" if index == 0 else None
        axes.plot([one.global_batch] * len(sweeps), sweeps, ".", color="#9fb8d3", markersize=5, label=label)
    rates = [one.rate for one in measured.batches]
    errors = [[rate.value - rate.low for rate in rates], [rate.high - rate.value for rate in rates]]
    values = [rate.value for rate in rates]
    axes.errorbar(batches, values, errors, fmt="o", color=COLOURS[0], capsize=4, label="measured, 95%", zorder=4)
    for number, (name, (x, y)) in enumerate(_lines(measured).items()):
        axes.plot(x, y, color=COLOURS[(0, 1, 2, 3)[number]], linestyle=DASHES[number], linewidth=1.4, label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.set_xlabel("global batch")
    axes.set_ylabel("learning rate")
    axes.grid(linewidth=0.4, alpha=0.5)
    axes.legend(fontsize=8)


def _lines(measured: MeasuredScaling) -> dict[str, tuple[Numbers, Numbers]]:
    """The fitted power, and each rule of `lr.scaling` from the middle of the batches, all over the same batches."""
    first, last = measured.batches[0].global_batch, measured.batches[-1].global_batch
    x = np.geomspace(first, last, 50)
    middle = math.sqrt(first * last)
    height, exponent = measured.rate(middle), measured.exponent
    interval = f"{exponent.low:.2f} to {exponent.high:.2f}"
    powers = {f"fitted: {exponent.value:.2f} ({interval})": exponent.value}
    powers |= {_WORDS[rule]: RULES[rule] for rule in ("linear", "sqrt", "none")}
    return {name: (x, height * (x / middle) ** power) for name, power in powers.items()}


def _curves(result: AcrossResult) -> list[tuple[int, int, Numbers, Numbers]]:
    """Number of a colour, batch, rates and smoothed losses of each slower sweep."""
    found = []
    for colour, at in enumerate(result.results):
        for sweep in at.slow.sweeps:
            points = [point for point in sweep.points if math.isfinite(point.loss)]
            if len(points) > 1:
                curve = fit(points)
                found.append((colour, at.global_batch, 10**curve.log_lr, curve.smooth))
    return found


def _highest_shown(result: AcrossResult) -> float:
    """What is above is an explosion, and would hide all else."""
    firsts = [float(losses[0]) for _, _, _, losses in _curves(result)]
    lows = [float(losses.min()) for _, _, _, losses in _curves(result)]
    return max(firsts) + 0.5 * (max(firsts) - min(lows))


def _table(result: AcrossResult) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["global_batch", "speed", "sweep", "iteration", "lr", "loss"])
    for at in result.results:
        for speed, one in at._asdict().items():
            for number, sweep in enumerate(one.sweeps, start=1):
                for k, (lr, loss) in enumerate(sweep.points, start=1):
                    writer.writerow([at.global_batch, speed, number, k, repr(lr), repr(loss)])
    return text.getvalue()


def _page(result: AcrossResult, title: str) -> str:
    measured = result.measured
    return render(
        "across.html",
        title=title,
        result=result,
        measured=measured,
        sentences=[] if measured is None else sentences(measured),
        plan="" if measured is None else plan_of(measured),
        charts_drawn=across_charts(result),
        iterations=_iterations,
    )


def _iterations(at: ResultsAt) -> int:
    return sum(len(sweep.points) for one in at for sweep in one.sweeps)
