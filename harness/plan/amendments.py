"""Changes of a run's plan on the way: each is a recorded decision, which checkpoints keep and a resumed run replays.

An amendment says what it means for the learning rates that come after its iteration, and for those before. It is read
from and written to the JSON that manifests and `plan.json` hold; `harness.plan.amended` makes the plan. A further kind
is one more class here, its name in `AMENDMENTS`, and what it does to the plan in `amended_plan`, which refuses others.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from typing_extensions import override

from harness.folder import Fields, RecordError, described
from harness.schedules.bounds import LARGEST

_LEAST_FACTOR = 1.1754943508222875e-38  # the smallest normal float32


@dataclass(frozen=True)
class Amendment(ABC):
    """A change of the plan.

    Attributes:
        choice: the name of its kind in JSON.
        iteration: the last update that was made, or is kept, before the change.
    """

    choice: ClassVar[str]
    iteration: int

    @classmethod
    @abstractmethod
    def read(cls, fields: Fields, iteration: int) -> Amendment:
        """From JSON; `iteration` has been checked.

        Raises:
            RecordError: naming the field that is missing, of another kind or impossible.
        """

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """As manifests and `plan.json` hold it."""

    def _head(self) -> dict[str, Any]:
        return {"iteration": self.iteration, "choice": self.choice}


@dataclass(frozen=True)
class Rewind(Amendment):
    """The run diverged, and trained again from `iteration` on with smaller learning rates.

    Every learning rate after `iteration` is `lr_factor` times what the plan gave before; those up to it stay. Several
    rewinds multiply.

    Attributes:
        lr_factor: above 0 and below 1.
        diverged_at: the iteration whose loss or gradient was not finite.
    """

    choice = "rewind"
    lr_factor: float
    diverged_at: int

    @classmethod
    @override
    def read(cls, fields: Fields, iteration: int) -> Rewind:
        return cls(iteration, _factor(fields), fields.whole("diverged_at", iteration + 1))

    @override
    def to_json(self) -> dict[str, Any]:
        return {**self._head(), "lr_factor": self.lr_factor, "diverged_at": self.diverged_at}


@dataclass(frozen=True)
class Judgement(Amendment):
    """What evaluations decided: they did not improve for so long.

    Attributes:
        monitor: split and name of the value, such as `test.loss`.
        evaluations: how many in a row were no improvement, the one after `iteration` included.
        best_at: the iteration of the best value; 0 if there was none.
        best: that value; `None` if there was none, or it was infinite.
    """

    monitor: str
    evaluations: int
    best_at: int
    best: float | None

    @classmethod
    @override
    def read(cls, fields: Fields, iteration: int) -> Self:
        return cls(
            iteration,
            fields.text("monitor"),
            fields.whole("evaluations", 1),
            fields.whole("best_at", 0, iteration),
            fields.maybe(fields.number, "best"),
        )

    @override
    def to_json(self) -> dict[str, Any]:
        found = {key: getattr(self, key) for key in ("monitor", "evaluations", "best_at", "best")}
        return {**self._head(), **found}


@dataclass(frozen=True)
class PlateauCut(Judgement):
    """The run came to a plateau, and trained on with smaller learning rates.

    Every learning rate after `iteration` is `lr_factor` times what the plan gave before, but not below `min_lr` unless
    it was there already. Several cuts follow one another.

    Attributes:
        lr_factor: above 0 and below 1.
        min_lr: at least 0.
    """

    choice = "plateau"
    lr_factor: float
    min_lr: float

    @classmethod
    @override
    def read(cls, fields: Fields, iteration: int) -> PlateauCut:
        found = EarlyStop.read(fields, iteration)
        return cls(**vars(found), lr_factor=_factor(fields), min_lr=fields.number("min_lr", 0.0, LARGEST))

    @override
    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "lr_factor": self.lr_factor, "min_lr": self.min_lr}


@dataclass(frozen=True)
class EarlyStop(Judgement):
    """The run ended after `iteration`, before the end of its plan. No learning rate changes."""

    choice = "early_stop"


@dataclass(frozen=True)
class Extend(Amendment):
    """The run resumed by the plan of its checkpoint although the configuration asked for another.

    The saved plan extends past `iteration`: no learning rate changes. The amendment records what was asked for.

    Attributes:
        changes: by setting, the saved value, which holds, and the one that was asked for.
    """

    choice = "checkpoint"
    changes: Mapping[str, tuple[Any, Any]]

    @classmethod
    @override
    def read(cls, fields: Fields, iteration: int) -> Extend:
        return cls(iteration, _changes(fields))

    @override
    def to_json(self) -> dict[str, Any]:
        return {**self._head(), "changes": _listed(self.changes)}


@dataclass(frozen=True)
class Replace(Amendment):
    """The run resumed by the plan of its new configuration.

    Up to `iteration` the learning rates stay those of `lr` and `train`, with the rewinds until then; after it they are
    those of the configuration that comes with the checkpoint.

    Attributes:
        changes: by setting, the saved value and the new one, which holds.
        lr: the section `lr` of the configuration that held until then.
        train: the section `train` of it.
    """

    choice = "config"
    changes: Mapping[str, tuple[Any, Any]]
    lr: Mapping[str, Any]
    train: Mapping[str, Any]

    @classmethod
    @override
    def read(cls, fields: Fields, iteration: int) -> Replace:
        return cls(iteration, _changes(fields), _section(fields, "lr"), _section(fields, "train"))

    @override
    def to_json(self) -> dict[str, Any]:
        return {**self._head(), "changes": _listed(self.changes), "lr": dict(self.lr), "train": dict(self.train)}


AMENDMENTS: dict[str, type[Amendment]] = {
    kind.choice: kind for kind in (Replace, Extend, Rewind, PlateauCut, EarlyStop)
}


def read_amendments(listed: Sequence[Fields], last: int) -> tuple[Amendment, ...]:
    """Amendments from JSON.

    Args:
        listed: one object each, in the order of their iterations.
        last: the latest iteration that any may have: that of the checkpoint.

    Raises:
        RecordError: naming the field that is missing, of another kind, impossible or out of order.
    """
    found: list[Amendment] = []
    before = 0
    for fields in listed:
        fields.whole("iteration", 0, last)
        before = fields.whole("iteration", before, last)
        choice = fields.text("choice")
        if choice not in AMENDMENTS:
            *others, final = AMENDMENTS
            place = fields.place("choice")
            raise RecordError(f"{place} is {described(choice)}; allowed: {', '.join(others)} or {final}")
        found.append(AMENDMENTS[choice].read(fields, before))
    return tuple(found)


def with_amendment(amendments: Sequence[Amendment], new: Amendment) -> tuple[Amendment, ...]:
    """The amendments and a new one, in the order of their iterations; the new one after those of the same."""
    return tuple(sorted([*amendments, new], key=lambda one: one.iteration))


def _factor(fields: Fields) -> float:
    return fields.number("lr_factor", _LEAST_FACTOR, math.nextafter(1.0, 0.0))


def _changes(fields: Fields) -> dict[str, tuple[Any, Any]]:
    changes = _section(fields, "changes")
    for key, values in changes.items():
        if not isinstance(values, list) or len(values) != 2:
            raise RecordError(f"{fields.place('changes')}.{key} is {described(values)}; allowed: a list of old and new")
    return {key: (old, new) for key, (old, new) in changes.items()}


def _section(fields: Fields, key: str) -> dict[str, Any]:
    """An object as it was written, once it is known to be finite and not deep."""
    fields.plain(key)
    section: dict[str, Any] = fields.value(key)
    return section


def _listed(changes: Mapping[str, tuple[Any, Any]]) -> dict[str, list[Any]]:
    return {key: list(values) for key, values in changes.items()}
