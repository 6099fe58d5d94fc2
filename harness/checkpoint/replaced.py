"""How many damaged samples a run has replaced by others, as checkpoints hold it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.folder import Fields, RecordError, described, seen

MOST_TOLD = 10  # samples of an epoch, a line each
_LINE = 500  # characters


@dataclass(frozen=True)
class Replaced:
    """Damaged samples that others have replaced in training, where a sample counts in each epoch anew.

    >>> Replaced().more(12, ["sample 3 by sample 4: ..."]).after_epoch()
    Replaced(count=12, in_epoch=0, first=())

    Attributes:
        count: in the run.
        in_epoch: of them in the epoch that has not ended.
        first: what there is to say of the first of these, at most `MOST_TOLD` lines.
    """

    count: int = 0
    in_epoch: int = 0
    first: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether there are any."""
        return self.count > 0

    def more(self, count: int, lines: Sequence[str]) -> Replaced:
        """With those of some more updates.

        Args:
            count: how many.
            lines: of the first of them.
        """
        left = MOST_TOLD - len(self.first)
        first = (*self.first, *(seen(line, _LINE) for line in lines[:left]))
        return Replaced(self.count + count, self.in_epoch + count, first)

    def after_epoch(self) -> Replaced:
        """As the next epoch begins."""
        return replace(self, in_epoch=0, first=())

    def to_json(self) -> dict[str, Any]:
        """As manifests hold it."""
        return {"count": self.count, "in_epoch": self.in_epoch, "first": list(self.first)}

    @classmethod
    def read(cls, fields: Fields) -> Replaced:
        """From a manifest.

        Raises:
            RecordError: naming the field that is missing, of another kind or impossible.
        """
        count = fields.whole("count", 1)
        in_epoch, first = fields.whole("in_epoch", 0, count), fields.items("first")
        if len(first) != min(in_epoch, MOST_TOLD):
            raise RecordError(
                f"{fields.place('first')} has {len(first)} lines; allowed: {min(in_epoch, MOST_TOLD)}, of {in_epoch} "
                "samples"
            )
        for index, line in enumerate(first):
            if not isinstance(line, str):
                raise RecordError(f"{fields.place('first')}[{index}] is {described(line)}, not text")
        return cls(count, in_epoch, tuple(seen(line, _LINE) for line in first))


NONE_REPLACED = Replaced()
