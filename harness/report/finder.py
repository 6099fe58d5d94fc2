"""The finder's report: the curve as a table and a picture, and one self-contained page."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from harness.errors import ConfigError
from harness.files import make_folder, replace_file
from harness.finder import ROLES, Curve, FinderResult, Point, Suggestion, fit, to_paste
from harness.folder import write_object
from harness.report.charts import Chart, Scale, Series, Spot, Stretch, scale_for
from harness.report.pages import render
from harness.report.plots import as_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_RAW, _SMOOTH, _MARK = "#9fb8d3", "#1f5fa8", "#c0392b"


class Rule(NamedTuple):
    """How to show a rule of the finder.

    Attributes:
        words: its name.
        shape: of its spot on a page.
        marker: of its spot in matplotlib's picture.
    """

    words: str
    shape: str
    marker: str


RULES = {
    "steepest": Rule("steepest descent", "triangle", "v"),
    "valley": Rule("middle of the valley", "circle", "o"),
    "minimum_tenth": Rule("a tenth of the rate with the lowest loss", "square", "s"),
    "edge": Rule("half of the highest stable rate", "diamond", "D"),
}
_LEAST = 3  # points for a line
_MOST_FITTED = 2000  # points of a line: every one is weighed against every other
_MOST_SWEEPS = 50  # that are drawn


def write_finder_report(result: FinderResult, folder: Path, title: str) -> None:
    """Write `result.json`, `curve.csv`, `curve.png` and `report.html`.

    Raises:
        ConfigError: if the folder cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        make_folder(folder)
        write_object(folder / "result.json", result.to_json())
        replace_file(folder / "curve.csv", _table(result))
        replace_file(folder / "curve.png", as_png(draw_curve(result, title)))
        replace_file(folder / "report.html", _page(result, title).encode("utf-8", errors="xmlcharrefreplace"))
    except OSError as error:
        raise ConfigError(
            f"{error.filename or folder}: cannot be written ({error.strerror or error}); choose another --output"
        ) from None


def draw_curve(result: FinderResult, title: str) -> Figure:
    """Learning rate against loss, both logarithmic if the losses allow it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.6), layout="constrained", dpi=110)
    axes = figure.subplots()
    curves = _curves(result)
    for points, curve in curves:
        axes.plot([p.lr for p in points], [p.loss for p in points], ".", color=_RAW, markersize=4, zorder=1)
        if curve is not None:
            axes.plot(10**curve.log_lr, curve.smooth, color=_SMOOTH, linewidth=1.6, zorder=2)
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel(_loss_of(result))
    axes.grid(linewidth=0.4, alpha=0.5)
    _limit(axes, [point for points, _ in curves for point in points])
    _mark(axes, result, curves)
    stops = sorted({sweep.stop for sweep in result.sweeps})
    figure.suptitle(title, fontsize=11, parse_math=False)
    axes.set_title(f"stopped: {'; '.join(stops)}", fontsize=9, loc="left", color="#555555")
    return figure


def finder_chart(result: FinderResult) -> Chart:
    """The same chart for a page."""
    curves, suggestion = _curves(result), result.suggestion
    points = [point for one, _ in curves for point in one]
    rates, losses = (np.array(column) for column in ([p.lr for p in points], [p.loss for p in points]))
    series = [
        Series("an iteration", np.array([p.lr for p in one]), np.array([p.loss for p in one]), 0, "dots")
        for one, _ in curves
    ]
    series += [Series("smoothed", 10**curve.log_lr, curve.smooth) for _, curve in curves if curve is not None]
    low, high = _loss_limits(points) or (0.0, 0.0)
    return Chart(
        title=_loss_of(result),
        x=Scale(rates.min(), rates.max(), is_log=True) if rates.size and rates.min() < rates.max() else Scale(0, 1),
        y=Scale(low, high, is_log=True) if low else scale_for([losses]),
        series=series,
        stretches=_suggested(result),
        spots=[
            Spot(lr, height, rule_of(rule).shape, "chosen" if is_chosen else "rule", f"{rule_of(rule).words}: {lr:.3g}")
            for rule, lr, height, is_chosen in _spots(suggestion, curves)
        ],
        x_title="learning rate",
        height=320,
    )


def _loss_of(result: FinderResult) -> str:
    """What the curve is of."""
    batches = result.settings.get("held_out_batches")
    return f"loss of {batches} held-out batches" if batches else "loss (mean over the global batch)"


def rule_of(name: str) -> Rule:
    """How to show a rule; one from another version is shown by its name."""
    return RULES.get(name, Rule(name, "circle", "o"))


def _suggested(result: FinderResult) -> list[Stretch]:
    lr, low, high = result.suggestion.lr, result.suggestion.low, result.suggestion.high
    if lr is None:
        return []
    line = Stretch(lr, lr, "chosen", f"suggested: {lr:.3g}")
    if low is None or high is None or not low < high or len(result.sweeps) < 2:
        return [line]
    return [Stretch(low, high, "interval", f"the sweeps: {low:.3g} to {high:.3g}"), line]


def _spots(
    suggestion: Suggestion, curves: list[tuple[list[Point], Curve | None]]
) -> list[tuple[str, float, float, bool]]:
    """Every rule with an answer: its name, learning rate, the loss there, and whether it is the suggestion."""
    curve = next((curve for _, curve in curves if curve is not None), None)
    if curve is None:
        return []
    has_lr = suggestion.lr is not None
    return [
        (rule, lr, _height(curve, lr), has_lr and rule == suggestion.rule)
        for rule, lr in suggestion.rules.items()
        if lr is not None
    ]


def _loss_limits(points: list[Point]) -> tuple[float, float] | None:
    """The ends of a logarithmic loss axis, which need not show a loss that has grown fourfold."""
    low = min((point.loss for point in points), default=0.0)
    return (0.8 * low, 4 * points[0].loss) if low > 1e-300 and points[0].loss < 1e300 else None


def _limit(axes: Axes, points: list[Point]) -> None:
    rates = [point.lr for point in points]
    if rates and rates[0] < max(rates):
        axes.set_xlim(min(rates), max(rates))
    limits = _loss_limits(points)
    if limits is not None:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

        axes.set_yscale("log")
        axes.set_ylim(*limits)
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _mark(axes: Axes, result: FinderResult, curves: list[tuple[list[Point], Curve | None]]) -> None:
    for rule, lr, height, is_chosen in _spots(result.suggestion, curves):
        axes.plot(
            [lr],
            [height],
            rule_of(rule).marker,
            color=_MARK if is_chosen else "#555555",
            markersize=9 if is_chosen else 6,
            zorder=3,
            linestyle="none",
            label=f"{rule_of(rule).words}: {lr:.3g}" + (" (suggested)" if is_chosen else ""),
        )
    for stretch in _suggested(result):
        if stretch.first < stretch.last:
            axes.axvspan(stretch.first, stretch.last, color=_MARK, alpha=0.12, label="interval of the sweeps")
        else:
            axes.axvline(stretch.first, color=_MARK, linewidth=0.8, linestyle="--")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, loc="best", framealpha=0.9)


def _height(curve: Curve, lr: float) -> float:
    position = abs(curve.log_lr - math.log10(lr)).argmin()
    return float(curve.smooth[position])


def _curves(result: FinderResult) -> list[tuple[list[Point], Curve | None]]:
    """The finite points of each sweep, and the smoothed curve; thinned if there are very many."""
    curves = []
    for sweep in result.sweeps[:_MOST_SWEEPS]:
        points = [point for point in sweep.points if math.isfinite(point.loss)]
        some = points[:: 1 + len(points) // _MOST_FITTED]
        curves.append((points, fit(some) if len(some) >= _LEAST else None))
    return curves


def _table(result: FinderResult) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["sweep", "iteration", "lr", "loss", "smoothed"])
    for number, sweep in enumerate(result.sweeps, start=1):
        points = [point for point in sweep.points if math.isfinite(point.loss)]
        smooth = iter(fit(points).smooth.tolist() if len(points) >= _LEAST else [])
        for k, (lr, loss) in enumerate(sweep.points, start=1):
            is_finite = math.isfinite(loss)
            fitted = next(smooth, None) if is_finite else None
            shown = repr(loss) if is_finite else "nan"
            writer.writerow([number, k, repr(lr), shown, "" if fitted is None else repr(fitted)])
    return text.getvalue()


def _page(result: FinderResult, title: str) -> str:
    settings = [value for value in map(result.settings.get, ("sweep", "stop_rule")) if isinstance(value, dict)]
    shown = {key: value for part in settings for key, value in part.items() if value is not None}
    shown |= {key: value for key, value in result.settings.items() if not isinstance(value, dict) and value is not None}
    found = result.suggestion
    uses = []
    if found.lr is not None:
        # the configuration's own schedule first
        for name in sorted(ROLES, key=lambda role: role != result.role):
            uses.append((ROLES[name], to_paste(found, name, result.global_batch, result.scaling)))
    return render(
        "finder.html",
        title=title,
        chart=finder_chart(result),
        result=result,
        settings=shown,
        uses=uses,
        rule_of=rule_of,
        most_sweeps=_MOST_SWEEPS,
    )
