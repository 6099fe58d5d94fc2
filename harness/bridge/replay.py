"""A run trained on in both, side by side from a checkpoint, and the page with both curves."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.bridge.layers import Array
from harness.bridge.mapping import rows_of
from harness.bridge.replaying import Rates, TorchUpdates, in_order, side_by_side
from harness.bridge.verdict import Replayed
from harness.errors import ConfigError
from harness.report.charts import Chart, Scale, Series, above_each_other, scale_for
from harness.report.pages import render, write_page

if TYPE_CHECKING:
    from harness.bridge.mapping import ArrayMap
    from harness.bridge.opening import Opened
    from harness.bridge.sides import Sides
    from harness.gluon import Learner
    from harness.train.run import Run


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
    from harness.bridge.of_torch import arrays_of
    from harness.bridge.orders import accurate_operators
    from harness.bridge.state import optimizer_of

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
        learners = [learner_in_order(run, number) for number in range(1 + orders)]
        rows = list(side_by_side(learners, updates, stream, rates, first, last))
    before = mapping.convert(sides.parameters, sides.module_shapes)
    after = [mapping.convert(one.snapshot().parameters, sides.module_shapes) for one in learners]
    tensors = arrays_of(sides.torch.module)
    found = {name: np.array(rows_of(tensors, name).detach().numpy()) for name in before}
    return Replayed(rows, _apart(before, after[0], found), max(_apart(before, after[0], one) for one in after[1:]))


def learner_in_order(run: Run, number: int) -> Learner:
    """A learner of the run that adds in an order, without dropout."""
    from harness.bridge.of_gluon import switch_off_dropout
    from harness.train.build import build_learner

    with ExitStack() as stack:

        def prepare(net: Any) -> None:
            switch_off_dropout(net)
            # not before: MXNet infers the shapes of arrays from its own operators alone
            stack.enter_context(in_order(number))

        return build_learner(run, prepare=prepare)


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
