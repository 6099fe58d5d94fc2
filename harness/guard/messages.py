"""What ranks tell each other over the lifeline: JSON, a line each. What is damaged or unknown is left out."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from harness.causes import CODES, Cause
from harness.errors import StoppedOnRequestError

LONGEST = 1 << 20  # bytes of a message, and of those that wait for a peer that does not read
_LONGEST_TEXT = 20_000


@dataclass(frozen=True)
class Message:
    """One message; whatever is `None` or false is not said.

    Attributes:
        place: where the rank is, in words.
        collective: the one that it began last.
        calls: how many it has begun.
        at: the line of code that its main thread is at.
        process: its process and host.
        lost: why the job ends, as rank 0 tells all.
        left: why the sender leaves.
        end: why everybody has to end now: there is a stall.
        code: the exit code that goes with one of these.
        first: whether that is the cause, and not a consequence.
        heard: the answer to `lost` and `left`: it is written down.
        bye: a farewell in good order.
        stalled: the sender makes no progress.
    """

    place: str | None = None
    collective: str | None = None
    calls: int | None = None
    at: str | None = None
    process: str | None = None
    lost: str | None = None
    left: str | None = None
    end: str | None = None
    code: int | None = None
    first: bool = False
    heard: bool = False
    bye: bool = False
    stalled: bool = False

    def cause(self, text: str) -> Cause:
        """The cause that this message tells of, in such words; a code that no rank ends with counts as a loss."""
        return Cause(text, self.code, self.first) if self.code in CODES else Cause(text, first=self.first)

    def of(self, rank: str) -> str:
        """Why a rank leaves, for the others: with its name and place, where that is the cause and not a wish."""
        is_cause = self.first and self.code != StoppedOnRequestError.exit_code
        return f"{rank} left in {self.place or 'start'}: {self.left}" if is_cause else str(self.left)

    def encode(self) -> bytes:
        """As it goes over the wire; long texts are cut."""
        said = {key: _cut(value) for key, value in asdict(self).items() if value not in (None, False)}
        return json.dumps(said).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Message | None:
        """What a line says; `None` if it is no message.

        >>> Message.decode(b'{"lost": 5, "left": "a bug", "code": 1}') == Message(left="a bug", code=1)
        True
        """
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, dict):
            return None
        return cls(**{key: _cut(found[key]) for key in _FIELDS if type(found.get(key)) is _KINDS.get(key, str)})


_KINDS = {"calls": int, "code": int, "first": bool, "heard": bool, "bye": bool, "stalled": bool}
_FIELDS = tuple(Message.__dataclass_fields__)


def _cut(value: Any) -> Any:
    return value[:_LONGEST_TEXT] if isinstance(value, str) else value
