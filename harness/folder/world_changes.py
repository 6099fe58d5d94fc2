"""How the workers of an attempt have changed: lines of `attempts.jsonl`, written and read."""

from __future__ import annotations

from dataclasses import dataclass

from harness.folder.reading import LATEST_S, Fields
from harness.folder.unread import seen

_NAME = 1000


@dataclass(frozen=True)
class WorldChange:
    """How the workers of an attempt changed.

    Attributes:
        attempt: which one.
        changed_at: seconds since 1970, when training went on.
        after: the iteration that it went on after.
        ranks: how many there are since.
        reason: in words.
        took_s: seconds without training.
    """

    attempt: str
    changed_at: float
    after: int
    ranks: int
    reason: str
    took_s: float

    def to_json(self) -> dict[str, object]:
        """The content of a line of the file."""
        return {**vars(self), "reason": seen(self.reason)}

    @classmethod
    def read(cls, fields: Fields) -> WorldChange:
        """Read it from a line of the file.

        Raises:
            RecordError: naming the field that is missing, of another kind or impossible.
        """
        return cls(
            attempt=fields.text("attempt", _NAME),
            changed_at=fields.number("changed_at", 0, LATEST_S),
            after=fields.whole("after"),
            ranks=fields.whole("ranks", 1, 10_000_000),
            reason=fields.text("reason"),
            took_s=fields.number("took_s", 0, LATEST_S),
        )
