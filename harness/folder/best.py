"""`checkpoints/best.json`: which checkpoint is the best so far, and by which metric."""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.folder.reading import Fields
from harness.folder.unread import RecordError

_NAME = re.compile(r"iteration-([0-9]{9,19})")


@dataclass(frozen=True)
class BestCheckpoint:
    """The best checkpoint.

    Attributes:
        name: of its folder (`set` in the file).
        metric: by which it is the best, such as `test.accuracy`; `None` if not recorded.
        value: of that metric; `None` if not recorded.
    """

    name: str
    metric: str | None
    value: float | None

    @classmethod
    def read(cls, fields: Fields) -> BestCheckpoint:
        """Read it from the file; all fields except the name may be missing.

        Raises:
            RecordError: naming the field that is missing, has the wrong type or contradicts the name.
        """
        name = fields.text("set", 100)
        match = _NAME.fullmatch(name)
        if match is None:
            raise RecordError(f"set is {name!r}, not the name of a checkpoint such as iteration-000000100")
        iteration = fields.maybe(fields.whole, "iteration")
        if iteration is not None and iteration != int(match[1]):
            raise RecordError(f"iteration is {iteration}, but set is {name!r}")
        return cls(name, fields.maybe(fields.text, "metric", 1000), fields.maybe(fields.number, "value"))
