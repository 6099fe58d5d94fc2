"""Pictures of what plan, finder and loop return; uses matplotlib without a display and without global state."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.files import replace_file
from harness.plan import LRPlan
from harness.report.plans import NamedPlan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINE = "#1f5fa8"
_MARK = "#8a8a8a"
COLOURS = (_LINE, "#c1541c", "#2b7a3d", "#7a3fa0", "#a3762b", "#4a4a4a")
DASHES = ("-", (0, (5, 2)), (0, (1.2, 1.2)), (0, (6, 2, 1.2, 2)))  # lines that coincide all stay visible
_TITLE = 110  # characters over a picture
# Margins in inches, enough for the longest numbers: every run draws its plan, and an automatic layout, which draws
# everything twice to measure it, would take twice as long.
_LEFT, _RIGHT, _BOTTOM, _TOP = 1.1, 0.15, 0.5, 0.8


def plot_plan(plan: LRPlan, path: Path, title: str) -> None:
    """Draw the learning rate (and the momentum, if it has a schedule) of every iteration."""
    from matplotlib.figure import Figure

    iterations = list(plan.rows())
    momenta = [plan.momentum(t) for t in iterations]
    has_momentum = any(momentum is not None for momentum in momenta)
    width, height = 8, 5.2 if has_momentum else 3.6
    figure = Figure(figsize=(width, height), dpi=110)
    margins = {"left": _LEFT / width, "right": 1 - _RIGHT / width, "bottom": _BOTTOM / height, "top": 1 - _TOP / height}
    shape = 2 if has_momentum else 1, 1
    rows = figure.subplots(*shape, sharex=True, squeeze=False, gridspec_kw={**margins, "hspace": 0.08})
    axes: list[Axes] = [row[0] for row in rows]
    unit = " (in units of the base)" if plan.in_units_of_base else ""
    _draw(axes[0], plan, iterations, [plan.lr(t) for t in iterations], f"learning rate{unit}")
    if has_momentum:
        _draw(axes[1], plan, iterations, [math.nan if m is None else m for m in momenta], "momentum")
    axes[-1].set_xlabel("iteration")
    per_epoch = plan.sizes.iterations_per_epoch
    epochs = axes[0].secondary_xaxis(
        "top", functions=(partial(np.multiply, 1 / per_epoch), partial(np.multiply, per_epoch))
    )
    epochs.set_xlabel("epoch")
    heading = textwrap.shorten(f"{title}: {plan.describe()}", _TITLE, placeholder=" ...")
    figure.suptitle(heading, fontsize=10, y=1 - 0.1 / height, parse_math=False)
    replace_file(path, as_png(figure))


def as_png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file, the same for the same figure."""
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def plot_plans(plans: Sequence[NamedPlan], path: Path, title: str, size: tuple[float, float] = (8, 3.8)) -> None:
    """Draw several plans over epochs, so that runs with different numbers of iterations can be compared.

    The momenta are drawn below, if any of them has a schedule.

    Args:
        plans: their names stand in the legend, if there is more than one.
        path: `.png` or `.svg`.
        title: above the picture; may be empty.
        size: of the learning rates' part in inches, (width, height).
    """
    from matplotlib.figure import Figure

    width, height = size
    has_momentum = any(named.has_momentum_schedule for named in plans)
    figure = Figure(figsize=(width, 1.5 * height if has_momentum else height), layout="constrained", dpi=110)
    heights = [1.6, 1] if has_momentum else [1]
    axes = [row[0] for row in figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)]
    for index, named in enumerate(plans):
        iterations = np.fromiter(named.plan.rows(), np.int64)
        epochs = iterations / named.plan.sizes.iterations_per_epoch
        style = {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)]}
        for part, values in zip(axes, (named.plan.lrs(iterations), named.momenta(iterations)), strict=False):
            part.plot(epochs, values, linewidth=1.6, label=named.name, **style)
    unit = " (in units of the base)" if plans[0].plan.in_units_of_base else ""
    axes[0].set_ylabel(f"learning rate{unit}")
    axes[0].set_ylim(bottom=0)
    if has_momentum:
        axes[1].set_ylabel("momentum")
    axes[-1].set_xlabel("epoch")
    for part in axes:
        part.set_xlim(0, max(named.num_iterations / named.plan.sizes.iterations_per_epoch for named in plans))
        part.grid(axis="y", linewidth=0.4, alpha=0.5)
    if len(plans) > 1:
        axes[0].legend(fontsize=9)
    if title:
        figure.suptitle(title, fontsize=10, parse_math=False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {"Software": None})


def _draw(axes: Axes, plan: LRPlan, iterations: list[int], values: list[float], label: str) -> None:
    axes.plot(iterations, values, color=_LINE, linewidth=1.6)
    for point in plan.breakpoints()[1:-1][:60]:
        axes.axvline(point, color=_MARK, linewidth=0.6, linestyle=":")
    axes.set_ylabel(label)
    if label != "momentum":  # whose interesting part is far from 0
        axes.set_ylim(0, 1.08 * max(*values, 1e-12))
    axes.set_xlim(0, plan.sizes.num_iterations)
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)
