"""The finder's report: the curve as a table and a picture, and one page to read anywhere. Draws a result's JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError
from harness.finder import Curve, Point, fit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_RAW, _SMOOTH, _MARK = "#9fb8d3", "#1f5fa8", "#c0392b"
_RULES = {
    "steepest": ("v", "steepest descent"),
    "valley": ("o", "middle of the valley"),
    "minimum_tenth": ("s", "a tenth of the minimum's"),
    "edge": ("D", "half of the last stable"),
}
_LEAST = 3  # points for a line


def write_finder_report(result: Mapping[str, Any], folder: Path, title: str) -> None:
    """Write `result.json`, `curve.csv`, `curve.png` and `report.html`.

    Raises:
        ConfigError: if the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        (folder / "curve.csv").write_text(_table(result), encoding="utf-8")
        draw_curve(result, title).savefig(folder / "curve.png", metadata={"Software": None})
        (folder / "report.html").write_text(_page(result, title), encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{error.filename or folder}: cannot be written ({error.strerror or error}); give another --output"
        ) from None


def draw_curve(result: Mapping[str, Any], title: str) -> Figure:
    """Learning rate against loss, both logarithmic where the losses allow it."""
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
    axes.set_ylabel("loss (mean over the global batch)")
    axes.grid(linewidth=0.4, alpha=0.5)
    _limit(axes, [point for points, _ in curves for point in points])
    _mark(axes, result, curves)
    stops = sorted({sweep["stop"] for sweep in result["sweeps"]})
    figure.suptitle(title, fontsize=11, parse_math=False)
    axes.set_title(f"stopped: {'; '.join(stops)}", fontsize=9, loc="left", color="#555555")
    return figure


def _limit(axes: Axes, points: list[Point]) -> None:
    if not points:
        return
    rates = [point.lr for point in points]
    low, first = min(point.loss for point in points), points[0].loss
    if rates[0] < max(rates):
        axes.set_xlim(min(rates), max(rates))
    if low > 0:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

        axes.set_yscale("log")
        axes.set_ylim(0.8 * low, 4 * first)
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _mark(axes: Axes, result: Mapping[str, Any], curves: list[tuple[list[Point], Curve | None]]) -> None:
    suggestion = result["suggestion"]
    curve = next((curve for _, curve in curves if curve is not None), None)
    if curve is None:
        return
    for rule, lr in suggestion["rules"].items():
        if lr is None:
            continue
        marker, words = _RULES[rule]
        chosen = rule == suggestion["rule"] and suggestion["lr"] is not None
        height = _height(curve, lr)
        axes.plot(
            [lr],
            [height],
            marker,
            color=_MARK if chosen else "#555555",
            markersize=9 if chosen else 6,
            zorder=3,
            linestyle="none",
            label=f"{words}: {lr:.3g}" + (" (suggested)" if chosen else ""),
        )
    if suggestion["lr"] is not None:
        if len(result["sweeps"]) > 1 and suggestion["low"] < suggestion["high"]:
            axes.axvspan(suggestion["low"], suggestion["high"], color=_MARK, alpha=0.12, label="interval of the sweeps")
        axes.axvline(suggestion["lr"], color=_MARK, linewidth=0.8, linestyle="--")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, loc="best", framealpha=0.9)


def _height(curve: Curve, lr: float) -> float:
    position = abs(curve.log_lr - math.log10(lr)).argmin()
    return float(curve.smooth[position])


def _curves(result: Mapping[str, Any]) -> list[tuple[list[Point], Curve | None]]:
    curves = []
    for sweep in result["sweeps"]:
        points = [Point(lr, loss) for lr, loss in sweep["points"] if loss is not None]
        curves.append((points, fit(points) if len(points) >= _LEAST else None))
    return curves


def _table(result: Mapping[str, Any]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["sweep", "iteration", "lr", "loss", "smoothed"])
    for number, (sweep, (_, curve)) in enumerate(zip(result["sweeps"], _curves(result), strict=True), start=1):
        smooth = iter([] if curve is None else curve.smooth.tolist())
        for k, (lr, loss) in enumerate(sweep["points"], start=1):
            fitted = None if loss is None else next(smooth, None)
            shown = "nan" if loss is None else repr(loss)
            writer.writerow([number, k, repr(lr), shown, "" if fitted is None else repr(fitted)])
    return text.getvalue()


def _page(result: Mapping[str, Any], title: str) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    figure = draw_curve(result, title)
    figure.set_size_inches(8, 4.6)
    picture = io.StringIO()
    figure.savefig(picture, format="svg", metadata={"Date": None, "Creator": None})
    svg = picture.getvalue()
    environment = Environment(
        loader=PackageLoader("harness.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["number"] = lambda value: "" if value is None else f"{value:.4g}"
    environment.filters["plain"] = lambda value: json.dumps(value) if isinstance(value, dict | list) else str(value)
    template = environment.get_template("finder.html")
    return template.render(
        title=title, svg=svg[svg.index("<svg") :], result=result, suggestion=result["suggestion"], rules=_RULES
    )
