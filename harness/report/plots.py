"""Pictures of what plan, finder and loop return; matplotlib without a display and without global state."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.plan import LRPlan

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINE = "#1f5fa8"
_MARK = "#8a8a8a"


def plot_plan(plan: LRPlan, path: Path, title: str) -> None:
    """Draw the learning rate (and the momentum, where it has a schedule) of every iteration."""
    from matplotlib.figure import Figure

    iterations = list(plan.rows())
    momenta = [plan.momentum(t) for t in iterations]
    has_momentum = any(momentum is not None for momentum in momenta)
    figure = Figure(figsize=(8, 5.2 if has_momentum else 3.6), layout="constrained", dpi=110)
    rows = figure.subplots(2 if has_momentum else 1, 1, sharex=True, squeeze=False)
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
    figure.suptitle(f"{title}: {plan.describe()}", fontsize=10, parse_math=False)
    figure.savefig(path, metadata={"Software": None})


def _draw(axes: Axes, plan: LRPlan, iterations: list[int], values: list[float], label: str) -> None:
    axes.plot(iterations, values, color=_LINE, linewidth=1.6)
    for point in plan.breakpoints()[1:-1][:60]:
        axes.axvline(point, color=_MARK, linewidth=0.6, linestyle=":")
    axes.set_ylabel(label)
    if label != "momentum":  # whose interesting part is far from 0
        axes.set_ylim(0, 1.08 * max(*values, 1e-12))
    axes.set_xlim(0, plan.sizes.num_iterations)
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)
