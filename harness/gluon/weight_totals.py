"""The sums of weights that a loss is told before the forward pass, where one update has several denominators."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from harness.comm import World
from harness.data.leaves import Data
from harness.errors import ConfigError
from harness.model.calls import Calls
from harness.model.inputs import copies_on_device

Table = np.ndarray[Any, np.dtype[np.float64]]


class WeightTotals:
    """Sums what `loss.weights(label)` gives over a global batch, or over a data set, exactly and in no order.

    Each part (a shard, a batch of an evaluation) has a row of its own in a table that is added up over ranks, and the
    columns are summed without rounding, so the number of ranks does not show.

    Attributes:
        world: the ranks.
    """

    def __init__(self, calls: Calls, world: World, ctx: Any, names: Sequence[str]) -> None:
        """Bind the loss.

        Args:
            calls: whose loss has `weights`.
            world: the ranks.
            ctx: a device, for labels.
            names: of the sums, in their order.
        """
        self._calls, self.world, self._ctx, self._names = calls, world, ctx, tuple(names)

    def __call__(self, labels: Mapping[int, Data], count: int, what: Callable[[int], str]) -> dict[str, float]:
        """The totals; a collective.

        Args:
            labels: of this rank's parts, by their number.
            count: of the parts of all ranks.
            what: what messages call a part.

        Raises:
            ConfigError: on every rank, for weights that are below 0 or not finite.
        """
        table = np.zeros((count, len(self._names)))
        for number, label in labels.items():
            table[number] = self.row(label)
        if self.world.size > 1:
            table = self.world.allreduce(table, "weights")
        return self.add_up(table, what)

    def row(self, label: Data) -> list[float]:
        """The sums of one part, by name; NaN where a weight is below 0 or not finite."""
        weights = self._calls.weights_of(copies_on_device(self._calls.labels(label, "label"), self._ctx))
        if tuple(weights) != self._names:
            raise ConfigError(
                f"network.loss: weights(label) gave {', '.join(weights)}, and {', '.join(self._names)} for the first "
                "samples; give the same names every time"
            )
        return [sum_of_weights(one) for one in weights.values()]

    def add_up(self, table: Table, what: Callable[[int], str]) -> dict[str, float]:
        """The totals of all rows.

        Raises:
            ConfigError: on every rank, naming the first part with weights that cannot be used.
        """
        bad = np.argwhere(~np.isfinite(table))
        if len(bad):
            number, column = bad[0].tolist()
            raise ConfigError(
                f"{what(number)}: network.loss: weights(label) gave {self._names[column]!r} below 0 or not finite; "
                "weights are finite and at least 0, 0 for what does not count"
            ).on_all_ranks()
        return {name: math.fsum(column.tolist()) for name, column in zip(self._names, table.T, strict=True)}


def sum_of_weights(weights: Any) -> float:
    """The sum in float64; NaN if one is below 0 or not finite."""
    values = weights.asnumpy().astype(np.float64)
    return math.fsum(values.reshape(-1).tolist()) if np.isfinite(values).all() and (values >= 0).all() else math.nan
