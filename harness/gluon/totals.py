"""What the batches of all ranks add up to, in the order of the batches: one table, and rows that are collected."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from harness.comm import World
from harness.errors import ConfigError
from harness.model.metric_kinds import Array, Mean, Metric, Rows, Sums
from harness.model.metric_values import naming_metric, reported_of, rows_of, structured, sums_of

TABLE_BYTES = 1 << 22  # of sums that wait to be added up over ranks
MESSAGE_BYTES = 1 << 24  # of rows


class Seen(NamedTuple):
    """A batch that this rank has looked at.

    Attributes:
        number: of the batch, among those of all ranks.
        prediction: as the network returns it.
        label: as the data have it.
        loss: the sum of its losses, and what the sum over all batches is divided by for a mean: the number of
            samples, or the sum of weights.
    """

    number: int
    prediction: Any
    label: Any
    loss: tuple[float, float]


class Totals:
    """The loss and the metrics of a data set, while its batches are looked at, rank r at r, r + np, ..., if they exist.

    Each batch's sums have a row of their own in a table that is summed over ranks, and the rows are added up in the
    order of the batches, so the number of ranks does not show. What only counts is added up on each rank first.
    """

    def __init__(self, world: World, metrics: Mapping[str, Metric], num_batches: int) -> None:
        """Nothing has been looked at.

        Args:
            world: the ranks.
            metrics: by name.
            num_batches: of all ranks.
        """
        self._world, self._metrics, self._num_batches = world, metrics, num_batches
        self._means = {name: one for name, one in metrics.items() if isinstance(one, Mean)}
        self._sums = {name: one for name, one in metrics.items() if isinstance(one, Sums)}
        self._rows = {name: one for name, one in metrics.items() if isinstance(one, Rows)}
        self._collected = [_Collected(name, f"evaluation.rows.{number}") for number, name in enumerate(self._rows)]
        self._round = 0
        self._allocate({})

    def _allocate(self, widths: Mapping[str, int]) -> None:
        """Make the table of the next rounds, and the memory for what only counts.

        Args:
            widths: how many numbers each metric sums up, by its name.
        """
        columns, counts = 2 + len(self._means), 0
        self._places: dict[str, slice] = {}
        for name, width in widths.items():
            first = counts if self._sums[name].are_counts else columns
            self._places[name] = slice(first, first + width)
            if self._sums[name].are_counts:
                counts += width
            else:
                columns += width
        self._rounds = max(1, TABLE_BYTES // (8 * columns * self._world.size))  # until the table is full
        self._table = np.zeros((min(self._num_batches, self._rounds * self._world.size), columns))
        self._total, self._counts = np.zeros((1, columns)), np.zeros(counts)

    def add(self, batch: Seen | None) -> None:
        """Take what a round gave this rank; a collective now and then, where there are sums.

        Args:
            batch: that this rank has looked at; `None` if it has none left.

        Raises:
            ConfigError: naming a metric that gives something else than before, or than on another rank.
        """
        sums = {}
        if batch is not None:
            sums = {name: sums_of(one, name, batch.prediction, batch.label) for name, one in self._sums.items()}
        if self._sums and self._round == 0:
            self._allocate(self._agreed_widths({name: len(one) for name, one in sums.items()}))
        if batch is not None:
            row = self._table[batch.number % len(self._table)]
            row[:2] = batch.loss
            for column, mean in enumerate(self._means.values(), start=2):
                values = np.asarray(mean.sample_values(batch.prediction, batch.label))
                row[column] = values.astype(np.float64).sum()
            for name, found in sums.items():
                self._keep(name, found, row)
            for collected, metric in zip(self._collected, self._rows.values(), strict=True):
                collected.add(batch.number, *rows_of(metric, collected.name, batch.prediction, batch.label))
        self._round += 1
        if self._round % self._rounds == 0 and self._round * self._world.size < self._num_batches:
            self._fold(self._world.allreduce(self._table, "evaluation"))
            self._table[:] = 0

    def _agreed_widths(self, own: Mapping[str, int]) -> Mapping[str, int]:
        """How many numbers each metric sums up, also on ranks that have no batch; rank 0 has the first."""
        everyone = self._world.allgather_object(own, "evaluation.sums")
        for name, width in everyone[0].items():
            other = {rank: one[name] for rank, one in enumerate(everyone) if one and one[name] != width}
            if other:
                said = ", ".join(f"{number} on rank {rank}" for rank, number in other.items())
                raise ConfigError(
                    f"metric {name!r}: sums gave {width} numbers on rank 0, but {said}; give equally many everywhere"
                ).on_all_ranks()
        agreed: Mapping[str, int] = everyone[0]
        return agreed

    def _keep(self, name: str, found: Array, row: Array) -> None:
        place = self._places[name]
        if len(found) != place.stop - place.start:
            raise ConfigError(
                f"metric {name!r}: sums gave {len(found)} numbers, and {place.stop - place.start} before; give equally "
                "many for every batch"
            )
        if self._sums[name].are_counts:
            self._counts[place] += found
        else:
            row[place] = found

    def _fold(self, table: Array) -> None:
        """Add the rows of a full table, one after the other."""
        self._total = np.add.accumulate(np.concatenate([self._total, table]))[-1:]

    def results(self, num_samples: int) -> dict[str, float]:
        """`loss` and what every metric reports, by name; a collective.

        Args:
            num_samples: of the data set.

        Raises:
            ConfigError: on every rank, naming a metric that does not report a number.
            DataError: on every rank, naming a metric for which the labels do not do.
        """
        sent = self._table
        if self._counts.size:
            sent = np.concatenate([self._table.reshape(-1), self._counts])
        summed = self._world.allreduce(sent, "evaluation")
        counts = summed.reshape(-1)[self._table.size :]
        self._fold(summed.reshape(-1)[: self._table.size].reshape(self._table.shape))
        total = self._total[0]
        loss, weight, *means = total[: 2 + len(self._means)].tolist()
        reported = {
            name: {name: one.from_mean(mean / num_samples)}
            for (name, one), mean in zip(self._means.items(), means, strict=True)
        }
        found: dict[str, Any] = {
            name: (counts if self._sums[name].are_counts else total)[place] for name, place in self._places.items()
        }
        for collected in self._collected:
            found[collected.name] = collected.gathered(self._world, self._num_batches)
        if found:  # once, so that a user's code cannot decide otherwise on another rank
            reported |= self._world.on_root("evaluation.finish", lambda: self._finished(found))
        return {
            "loss": loss / weight if weight else math.nan,
            **{key: value for name in self._metrics for key, value in reported[name].items()},
        }

    def _finished(self, found: Mapping[str, Any]) -> dict[str, dict[str, float]]:
        reported = {}
        for name, value in found.items():
            metric = self._sums.get(name) or self._rows[name]
            with naming_metric(name):
                reported[name] = reported_of(name, metric.finish(value))
        return reported


class _Collected:
    """The rows that a metric has collected on this rank."""

    def __init__(self, name: str, collective: str) -> None:
        self.name, self._collective = name, collective
        self._form: list[Any] | None = None  # the structure, then type and shape of each array's rows
        self._batches: list[tuple[int, list[Array]]] = []

    def add(self, number: int, kind: Any, arrays: list[Array]) -> None:
        form = [kind, *([one.dtype.str, list(one.shape[1:])] for one in arrays)]
        if self._form is not None and form != self._form:
            raise self._differ(f"{form} in a batch, and {self._form} before")
        self._form = form
        self._batches.append((number, arrays))

    def _differ(self, said: str) -> ConfigError:
        return ConfigError(
            f"metric {self.name!r}: rows gave structure, types and shapes {said}; only the number of rows may "
            "change, so pad all to one shape, or lay them end to end and give their lengths as well"
        )

    def gathered(self, world: World, num_batches: int) -> Any:
        """The rows of all ranks in the order of the batches, in their structure; a collective."""
        lengths = [[number, [len(one) for one in arrays]] for number, arrays in self._batches]
        everyone = world.allgather_object([self._form, lengths], self._collective)
        form = everyone[0][0]
        other = next((rank for rank, (one, _) in enumerate(everyone) if one not in (None, form)), None)
        if other is not None:
            raise self._differ(f"{form} on rank 0, and {everyone[other][0]} on rank {other}").on_all_ranks()
        arrays, found = [], {number: lengths for _, own in everyone for number, lengths in own}
        for leaf, (dtype, shape) in enumerate(form[1:]):
            counts = [found[number][leaf] if number in found else 0 for number in range(num_batches)]
            ends = np.cumsum(counts).tolist()
            joined = np.zeros((ends[-1], *shape), dtype)
            for batch, own in self._batches:
                joined[ends[batch] - counts[batch] : ends[batch]] = own[leaf]
            # the other ranks' bytes are 0 here, so the sum of the bytes is what each of them holds
            held = joined.reshape(-1).view(np.uint8)
            for first in range(0, held.size, MESSAGE_BYTES):
                part = slice(first, first + MESSAGE_BYTES)
                held[part] = world.allreduce(held[part], self._collective)
            arrays.append(joined)
        return structured(form[0], arrays)
