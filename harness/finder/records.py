"""Sweeps as files hold them, typed on both ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.finder.runner import SweepResult
from harness.finder.suggestion import Point
from harness.finder.sweep import Stop
from harness.folder import FactorGroup, Fields, RecordError, number, plain, seen

SMALLEST_LR, LARGEST_LR = 1e-45, 3.5e38  # of a float32
_MOST_NAMES = 10


@dataclass(frozen=True)
class SweepRecord:
    """One sweep.

    Attributes:
        stop: why it ended, in words.
        limit: what the running mean of the loss might not exceed; `None` where it was not finite.
        probes: the losses before it.
        points: learning rate and loss of each iteration; NaN for a loss that was not finite.
    """

    stop: str
    limit: float | None
    probes: Sequence[float]
    points: Sequence[Point]

    @classmethod
    def of(cls, sweep: SweepResult) -> SweepRecord:
        """A sweep that has ended."""
        return cls(str(sweep.stop), _number(sweep.limit), sweep.probes, sweep.points)

    def to_json(self) -> dict[str, Any]:
        """As the file holds it."""
        return {"stop": self.stop, "limit": self.limit, "probes": list(self.probes), "points": points_json(self.points)}

    @classmethod
    def read(cls, fields: Fields) -> SweepRecord:
        """From the file.

        Raises:
            RecordError: naming the field that is missing, of another kind or impossible.
        """
        points = read_points(fields)
        if not points:
            raise RecordError(f"{fields.place('points')} is empty")
        return cls(
            stop=fields.text("stop", 500),
            limit=fields.maybe(fields.number, "limit"),
            probes=read_probes(fields),
            points=points,
        )

    def result(self, place: str) -> SweepResult:
        """The sweep, if this version knows why it ended.

        Args:
            place: of the record, for the message.

        Raises:
            RecordError: if it does not.
        """
        if self.stop not in list(Stop):
            raise RecordError(f"{place} is {seen(self.stop, 100)!r}, which this version does not know")
        limit = math.nan if self.limit is None else self.limit
        return SweepResult(list(self.points), Stop(self.stop), limit, list(self.probes))


@dataclass(frozen=True)
class RateGroup:
    """Trainable parameters whose learning rates have the same factor.

    Attributes:
        lr: the factor.
        count: how many parameters.
        names: the first of them.
    """

    lr: float
    count: int
    names: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """As the file holds it."""
        return {"lr": self.lr, "count": self.count, "names": list(self.names)}

    @classmethod
    def read(cls, fields: Fields) -> RateGroup:
        """From the file.

        Raises:
            RecordError: naming the field that is missing, of another kind or impossible.
        """
        names = [plain(name, fields.place("names")) for name in fields.items("names")[:_MOST_NAMES]]
        return cls(fields.number("lr", 0.0, LARGEST_LR), fields.whole("count", 1), [str(name) for name in names])


def rate_groups(groups: Sequence[FactorGroup]) -> list[RateGroup]:
    """Groups by learning rate alone, in the order of the network; none where every factor is 1."""
    found: dict[float, RateGroup] = {}
    for group in groups:
        before = found.get(group.lr, RateGroup(group.lr, 0, ()))
        names = [*before.names, *group.names][:_MOST_NAMES]
        found[group.lr] = RateGroup(group.lr, before.count + group.count, names)
    return [] if set(found) <= {1.0} else list(found.values())


def points_json(points: Sequence[Point]) -> list[list[float | None]]:
    """Points as a file holds them."""
    return [[point.lr, _number(point.loss)] for point in points]


def read_points(fields: Fields) -> list[Point]:
    """The points of a sweep, their learning rates ascending.

    Raises:
        RecordError: naming what is not a point.
    """
    points: list[Point] = []
    place = fields.place("points")
    for k, pair in enumerate(fields.items("points")):
        if not isinstance(pair, list) or len(pair) != 2:
            raise RecordError(f"{place}[{k}] is not a learning rate and a loss")
        lr = number(pair[0], f"{place}[{k}][0]", points[-1].lr if points else SMALLEST_LR, LARGEST_LR)
        points.append(Point(lr, math.nan if pair[1] is None else number(pair[1], f"{place}[{k}][1]")))
    return points


def read_probes(fields: Fields) -> list[float]:
    """The losses before a sweep.

    Raises:
        RecordError: naming what is not a loss.
    """
    return [number(loss, fields.place("probes")) for loss in fields.items("probes")]


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
