"""Changes of a run's plan on the way, as `plan.json` records them for display.

`harness.plan.amendments` defines what each means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.folder.reading import Fields
from harness.folder.unread import RecordError, seen

LARGEST_LR = 3.5e38  # a float32
_CUTS = ("rewind", "plateau")  # of the learning rate
_DECIDED = ("plateau", "early_stop")  # by evaluations
_CHOICES = ("config", "checkpoint", *_CUTS, "early_stop")


@dataclass(frozen=True)
class AmendmentRecord:
    """A change of the plan during the run.

    Attributes:
        iteration: after which it applies.
        choice: `config` or `checkpoint`, whichever of two different configurations was chosen; `rewind`, `plateau` or
            `early_stop`.
        changes: by setting, the saved and the wanted value; for the first two.
        lr_factor: factor on the learning rates; for a rewind and a plateau.
        min_lr: what no rate falls below by it; for a plateau.
        diverged_at: the iteration that was not finite; for a rewind.
        monitor: split and name of what was evaluated; for a plateau and an early stop, as are the following.
        evaluations: how many in a row were no improvement.
        best_at: the iteration of the best value; 0 if there was none.
        best: that value, if there was one.
        earlier: the sections `lr` and `train` that applied until then, if they differ.
    """

    iteration: int
    choice: str
    changes: Mapping[str, tuple[Any, Any]]
    lr_factor: float | None
    min_lr: float | None
    diverged_at: int | None
    monitor: str
    evaluations: int | None
    best_at: int | None
    best: float | None
    earlier: Mapping[str, Any]

    def to_json(self) -> dict[str, object]:
        """The content in the plan and in checkpoints."""
        content: dict[str, object] = {"iteration": self.iteration, "choice": self.choice}
        if self.choice in _DECIDED:
            content |= {"monitor": self.monitor, "evaluations": self.evaluations}
            content |= {"best_at": self.best_at, "best": self.best}
        if self.choice in _CUTS:
            content["lr_factor"] = self.lr_factor
        if self.choice == "plateau":
            content["min_lr"] = self.min_lr
        elif self.choice == "rewind":
            content["diverged_at"] = self.diverged_at
        elif self.choice != "early_stop":
            content["changes"] = {key: list(values) for key, values in self.changes.items()}
        return {**content, **self.earlier}

    @classmethod
    def read(cls, fields: Fields) -> AmendmentRecord:
        """Read it from a plan or a checkpoint.

        Raises:
            RecordError: naming the field that is missing, of another kind or impossible.
        """
        choice = fields.text("choice", 100)
        if choice not in _CHOICES:
            raise RecordError(f"{fields.place('choice')} is {choice!r}; known: {', '.join(_CHOICES)}")
        is_decided = choice in _DECIDED
        changes = {} if is_decided or choice == "rewind" else fields.plain("changes")
        for key, values in changes.items():
            if not isinstance(values, list) or len(values) != 2:
                raise RecordError(f"{fields.place('changes')}.{seen(key, 40)} is not a pair of old and new value")
        return cls(
            iteration=fields.whole("iteration"),
            choice=choice,
            changes={key: (old, new) for key, (old, new) in changes.items()},
            lr_factor=fields.number("lr_factor", 0, LARGEST_LR) if choice in _CUTS else None,
            min_lr=fields.number("min_lr", 0, LARGEST_LR) if choice == "plateau" else None,
            diverged_at=fields.whole("diverged_at", 1) if choice == "rewind" else None,
            monitor=fields.text("monitor", 300) if is_decided else "",
            evaluations=fields.whole("evaluations", 1) if is_decided else None,
            best_at=fields.whole("best_at") if is_decided else None,
            best=fields.maybe(fields.number, "best") if is_decided else None,
            earlier={name: fields.plain(name) for name in ("lr", "train") if fields.has(name)},
        )
