"""A run's plan in its folder: `plan.json` (sizes, phases, amendments) and `plan.csv` (the curve)."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.folder.amendments import LARGEST_LR, AmendmentRecord
from harness.folder.files import MB, is_there, read_small
from harness.folder.reading import LARGEST, Fields, number, plain, read_object
from harness.folder.unread import RecordError, seen

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Numbers = npt.NDArray[np.float64]

PLAN, CURVE = "plan.json", "plan.csv"
MOST_PHASES = 20_000  # to write
_REMARKS = 100
MOST_NAMES = 8  # of the parameters of a group, that are written
_GROUPS = 1000  # that are read


@dataclass(frozen=True)
class Phase:
    """A section of the plan with one formula.

    Attributes:
        first: its first iteration.
        last: its last.
        lr: the learning rate at both.
        momentum: the momentum at both; `None` for the optimizer's own momentum.
    """

    first: int
    last: int
    lr: tuple[float, float]
    momentum: tuple[float | None, float | None]

    def to_json(self) -> dict[str, object]:
        """As the file holds it."""
        return {"first": self.first, "last": self.last, "lr": list(self.lr), "momentum": list(self.momentum)}

    @classmethod
    def read(cls, fields: Fields, num_iterations: int) -> Phase:
        """From the file.

        Raises:
            RecordError: naming the field that is missing, of another kind or impossible.
        """
        first = fields.whole("first", 1, num_iterations)
        last = fields.whole("last", first, num_iterations)
        lr = [number(value, fields.place("lr"), 0, LARGEST_LR) for value in fields.items("lr")]
        place = fields.place("momentum")
        momentum = [None if value is None else number(value, place, 0, 1) for value in fields.items("momentum")]
        if len(lr) != 2 or len(momentum) != 2:
            raise RecordError(f"{place} and lr have {len(momentum)} and {len(lr)} values, not the first and the last")
        return cls(first, last, (lr[0], lr[1]), (momentum[0], momentum[1]))


@dataclass(frozen=True)
class FactorGroup:
    """Trainable parameters with the same factors.

    Attributes:
        lr: factor on the learning rate.
        wd: factor on weight decay.
        count: how many parameters.
        names: the first of them.
    """

    lr: float
    wd: float
    count: int
    names: Sequence[str]

    def to_json(self) -> dict[str, object]:
        """As the file holds it."""
        return {"lr": self.lr, "wd": self.wd, "count": self.count, "names": list(self.names)}

    @classmethod
    def read(cls, fields: Fields) -> FactorGroup:
        """From the file.

        Raises:
            RecordError: naming the field that is missing, of another kind or impossible.
        """
        names = fields.items("names")
        if not 0 < len(names) <= MOST_NAMES or not all(isinstance(name, str) for name in names):
            raise RecordError(f"{fields.place('names')} is not a list of 1 to {MOST_NAMES} names")
        return cls(
            lr=fields.number("lr", 0, LARGEST_LR),
            wd=fields.number("wd", 0, LARGEST_LR),
            count=fields.whole("count", len(names)),
            names=[seen(name, 200) for name in names],
        )


@dataclass(frozen=True)
class PlannedSizes:
    """The numbers that durations are measured by; see `harness.plan.sizes.Sizes`.

    Attributes:
        own_batches: global batches in an epoch, where a function of the user's own says which they are.
    """

    num_samples: int
    shards: int
    batch_size: int
    iterations_per_epoch: int
    num_iterations: int
    own_batches: int | None = None

    @classmethod
    def read(cls, fields: Fields) -> PlannedSizes:
        """From the file.

        Raises:
            RecordError: naming the field that is missing, of another kind, or contradicts the others.
        """
        names = [name for name in cls.__dataclass_fields__ if name != "own_batches" or fields.has(name)]
        sizes = cls(**{name: fields.whole(name, 1) for name in names})
        if sizes.own_batches is not None:  # of any size
            fields.whole("own_batches", sizes.iterations_per_epoch, sizes.iterations_per_epoch)
            return sizes
        full = sizes.num_samples // (sizes.shards * sizes.batch_size)
        if not max(full, 1) <= sizes.iterations_per_epoch <= full + 1:
            raise RecordError(
                f"{fields.place('iterations_per_epoch')} is {sizes.iterations_per_epoch}, but {sizes.num_samples} "
                f"samples make {full} global batches of {sizes.shards} x {sizes.batch_size}"
            )
        return sizes


@dataclass(frozen=True)
class PlanRecord:
    """`plan.json`.

    Attributes:
        described: the scaling of the learning rate, in words.
        sizes: of the run.
        phases: in order, without gaps; only the first ones if there are more than `MOST_PHASES`.
        num_phases: how many there are.
        remarks: possible mistakes, one sentence each.
        amendments: changes during the run.
        factors: of groups of parameters; none where all are alike.
    """

    described: str
    sizes: PlannedSizes
    phases: Sequence[Phase]
    num_phases: int
    remarks: Sequence[str]
    amendments: Sequence[AmendmentRecord]
    factors: Sequence[FactorGroup] = ()

    def to_json(self) -> dict[str, object]:
        """As the file holds it."""
        return {
            "described": self.described,
            "sizes": {name: number for name, number in vars(self.sizes).items() if number is not None},
            "phases": [phase.to_json() for phase in self.phases],
            "num_phases": self.num_phases,
            "remarks": list(self.remarks),
            "amendments": [amendment.to_json() for amendment in self.amendments],
            **({"factors": [group.to_json() for group in self.factors]} if self.factors else {}),
        }

    @classmethod
    def read(cls, fields: Fields) -> PlanRecord:
        """Read it from the file; `num_phases`, `remarks` and `factors` may be missing.

        Raises:
            RecordError: naming the field that is missing, of another kind, or contradicts the others.
        """
        sizes = PlannedSizes.read(fields.inner("sizes"))
        total = sizes.num_iterations
        phases = [Phase.read(one, total) for one in fields.inners("phases")]
        num_phases = fields.maybe(fields.whole, "num_phases", len(phases)) or len(phases)
        for k, (one, other) in enumerate(pairwise(phases)):
            if other.first != one.last + 1:
                raise RecordError(f"phases[{k + 1}].first is {other.first}, but the previous phase ends at {one.last}")
        complete = len(phases) == num_phases
        if not phases or phases[0].first != 1 or (complete and phases[-1].last != total):
            raise RecordError(f"phases do not cover iterations 1 to {total}, the run's last")
        amendments = [AmendmentRecord.read(one) for one in fields.inners("amendments")]
        for k, amendment in enumerate(amendments):
            if amendment.iteration > total:
                raise RecordError(f"amendments[{k}].iteration is {amendment.iteration}; the run has {total}")
        remarks = fields.items("remarks") if fields.has("remarks") else []
        if len(remarks) > _REMARKS:
            raise RecordError(f"there are {len(remarks):,} remarks; at most {_REMARKS} are read")
        factors = list(fields.inners("factors")) if fields.has("factors") else []
        if len(factors) > _GROUPS:
            raise RecordError(f"there are {len(factors):,} groups of factors; at most {_GROUPS} are read")
        return cls(
            described=fields.text("described", 2000),
            sizes=sizes,
            phases=phases,
            num_phases=num_phases,
            remarks=[seen(str(plain(remark, "remarks")), 2000) for remark in remarks],
            amendments=amendments,
            factors=[FactorGroup.read(one) for one in factors],
        )


def read_plan(folder: Path) -> PlanRecord | None:
    """The content of a folder's `plan.json`; `None` if there is none.

    Raises:
        RecordError: if it cannot be read.
    """
    path = folder / PLAN
    return PlanRecord.read(read_object(path, 64 * MB)) if is_there(path) else None


def read_curve(folder: Path, plan: PlanRecord | None) -> tuple[Numbers, Numbers]:
    """Iterations and learning rates of `plan.csv`, each `(n,)`; empty if there is none.

    Args:
        folder: of the run.
        plan: of the same folder, to check the curve against.

    Raises:
        RecordError: naming the first line that is incomplete, out of order, or contradicts the plan.
    """
    import numpy as np  # late: it takes as long as all else that a supervisor imports, which reads no curve

    path = folder / CURVE
    if not is_there(path):
        return np.zeros(0), np.zeros(0)
    try:
        text = read_small(path, 16 * MB).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordError(f"is not UTF-8 text at byte {error.start}") from None
    total = LARGEST if plan is None else plan.sizes.num_iterations
    known = (
        {}
        if plan is None
        else {t: lr for one in plan.phases for t, lr in ((one.first, one.lr[0]), (one.last, one.lr[1]))}
    )
    per_epoch = None if plan is None else plan.sizes.iterations_per_epoch
    points: list[tuple[int, float]] = []
    reader = csv.DictReader(io.StringIO(text))
    try:
        for row in reader:
            points.append(_point(row, points[-1][0] if points else 0, total, known))
            if per_epoch is not None and _numeral(row, "epoch") != (points[-1][0] - 1) // per_epoch + 1:
                raise RecordError(f"epoch is {seen(row['epoch'], 40)} at iteration {points[-1][0]}")
    except (csv.Error, RecordError) as error:
        line = reader.line_num + isinstance(error, csv.Error)  # raised before the line is counted
        raise RecordError(f"line {line}: {seen(str(error), 200)}") from None
    if points and plan is not None and (points[0][0], points[-1][0]) != (1, total):
        raise RecordError(
            f"line {reader.line_num}: the last iteration is {points[-1][0]}, but the plan ends at {total}"
        )
    table = np.array(points, np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _point(row: Mapping[str, Any], last: int, total: int, known: Mapping[int, float]) -> tuple[int, float]:
    """One row's iteration and learning rate."""
    t, lr = _numeral(row, "iteration"), _numeral(row, "lr")
    if not (t.is_integer() and last < t <= total):
        raise RecordError(f"iteration is {t:g}; it must be whole, above {last} and at most {total}")
    number(lr, "lr", 0, LARGEST_LR)
    if known.get(int(t), lr) != lr:
        raise RecordError(f"lr is {lr!r} at iteration {t:g}, but plan.json has {known[int(t)]!r}")
    return int(t), lr


def _numeral(row: Mapping[str, Any], name: str) -> float:
    text = row.get(name)
    try:
        if not isinstance(text, str) or len(text) > 40 or "_" in text:
            raise ValueError
        return float(text)
    except ValueError:
        found = "missing" if text is None else repr(seen(str(text), 40))
        raise RecordError(f"{name} is {found}, not a number") from None
