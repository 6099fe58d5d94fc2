"""A run trained on in both, side by side from a checkpoint: the verdict, and the page with both curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.bridge.layers import Array
from harness.bridge.mapping import rows_of
from harness.bridge.replaying import Losses, Rates, TorchUpdates, in_order, side_by_side
from harness.errors import ConfigError
from harness.report.charts import Chart, Scale, Series, above_each_other, scale_for
from harness.report.pages import render, write_page

if TYPE_CHECKING:
    from harness.bridge.mapping import ArrayMap
    from harness.bridge.opening import Opened
    from harness.bridge.sides import Sides


@dataclass(frozen=True)
class Replayed:
    """What both have made of the same updates.

    Attributes:
        rows: an iteration each.
        weights: how far an array is apart at the end, as a part of how far it has moved; the largest over arrays.
        weights_rounding: the same of MXNet that adds in other orders.
    """

    rows: Sequence[Losses]
    weights: float
    weights_rounding: float

    @property
    def differences(self) -> Array:
        """How far the loss in PyTorch is from that in MXNet, by iteration."""
        return np.array([abs(one.torch - one.mxnet) for one in self.rows])

    @property
    def rounding(self) -> Array:
        """How far the losses of those two runs of MXNet are apart that differ most, by iteration."""
        runs = [[one.mxnet, *one.reordered] for one in self.rows]
        return np.array([max(losses) - min(losses) for losses in runs])

    @property
    def agrees(self) -> bool:
        """Whether PyTorch is as near to MXNet as two runs of MXNet are that add in other orders."""
        return bool(self.differences.max() <= self.rounding.max())

    @property
    def is_close(self) -> bool:
        """Whether they are apart by less than twice as much: the runs of MXNet are a few of many orders."""
        return bool(self.differences.max() < 2 * self.rounding.max())

    def verdict(self) -> str:
        """One sentence."""
        worst = self.rows[int(self.differences.argmax())].t
        told = (
            f"losses differ by {self.differences.max():.3g} at most (iteration {worst}), those of two of "
            f"{1 + len(self.rows[0].reordered)} runs of MXNet that add in other orders by {self.rounding.max():.3g}"
        )
        if self.agrees:
            return f"{told}: the same run"
        if self.is_close:
            return f"{told}: NOT SHOWN to be the same run; less than twice as much may be chance, more --orders tell"
        return f"{told}: NOT the same run"


def replay(opened: Opened, sides: Sides, mapping: ArrayMap, iterations: int, orders: int) -> Replayed:
    """Train on in both.

    Args:
        opened: the run.
        sides: both networks.
        mapping: of the arrays.
        iterations: updates to make, as far as the plan goes.
        orders: in which MXNet adds besides the run's.

    Raises:
        ConfigError: if the optimizer has no counterpart, or the run is over.
    """
    from harness.bridge import of_gluon
    from harness.bridge.of_torch import arrays_of
    from harness.bridge.orders import accurate_operators
    from harness.bridge.state import optimizer_of
    from harness.train.build import build_learner

    run, first = opened.run, opened.iteration + 1
    last = min(opened.iteration + iterations, run.sizes.num_iterations)
    if last < first:
        raise ConfigError(
            f"{opened.checkpoint}: is of the run's last iteration; give an earlier checkpoint, after which it goes on"
        )
    sides.switch_off_dropout()
    sides.load(mapping)
    updates = TorchUpdates(sides.torch, optimizer_of(opened, sides, mapping)[0])
    rates = Rates(run.plan.lr, run.plan.momentum)
    with accurate_operators(), run.stream() as stream:
        learners = []
        for number in range(1 + orders):
            with in_order(number):
                learners.append(build_learner(run, prepare=of_gluon.switch_off_dropout))
        rows = list(side_by_side(learners, updates, stream, rates, first, last))
    before = mapping.convert(sides.parameters, sides.module_shapes)
    after = [mapping.convert(one.snapshot().parameters, sides.module_shapes) for one in learners]
    tensors = arrays_of(sides.torch.module)
    found = {name: np.array(rows_of(tensors, name).detach().numpy()) for name in before}
    return Replayed(rows, _apart(before, after[0], found), max(_apart(before, after[0], one) for one in after[1:]))


def _apart(before: Mapping[str, Array], one: Mapping[str, Array], other: Mapping[str, Array]) -> float:
    """How far two ends are apart, as a part of how far the first is from the beginning; the largest over arrays."""
    found = [0.0]
    for name, begin in before.items():
        moved = float(np.abs(one[name] - begin).max())
        if moved:
            found.append(float(np.abs(one[name] - other[name]).max()) / moved)
    return max(found)


def write_replay(path: Path, name: str, module: str, found: Replayed) -> None:
    """Write the page.

    Raises:
        ConfigError: if it cannot be written.
    """
    t = np.array([float(one.t) for one in found.rows])
    x = Scale(t[0], max(t[-1], t[0] + 1), is_whole=True)
    losses = [
        Series("MXNet", t, np.array([one.mxnet for one in found.rows]), 0),
        Series("PyTorch", t, np.array([one.torch for one in found.rows]), 1, "planned"),
    ]
    count = 1 + len(found.rows[0].reordered)
    apart = [
        Series("PyTorch against MXNet", t, _shown(found.differences), 1),
        Series(f"largest between {count} runs of MXNet", t, _shown(found.rounding), 0, "thin"),
    ]
    rates = [Series("learning rate", t, np.array([one.lr for one in found.rows]), 2)]
    charts = [
        Chart("training loss", x, scale_for([one.y for one in losses]), losses, height=220),
        Chart("difference of losses", x, scale_for([one.y for one in apart]), apart, height=180),
        Chart("learning rate", x, scale_for([one.y for one in rates]), rates, height=100),
    ]
    page = render(
        "replay.html",
        title=f"{name} in MXNet and in PyTorch",
        module=module,
        found=found,
        verdict=found.verdict(),
        first=found.rows[0],
        last=found.rows[-1],
        charts_drawn=above_each_other(charts, "iteration"),
    )
    write_page(path, page)


def _shown(values: Array) -> Array:
    """Differences on a logarithmic axis, on which there is no 0."""
    least = values[values > 0].min() if (values > 0).any() else 1e-8
    return np.maximum(values, least / 2)
