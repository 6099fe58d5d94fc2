"""What ranks send each other over the heartbeat: JSON, one object a line. Damaged or unknown parts are dropped."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from harness.causes import CODES, Cause
from harness.errors import StoppedOnRequestError

MAX_BYTES = 1 << 20  # of a message, and of what is buffered for a peer that does not read
_MAX_TEXT = 20_000


@dataclass(frozen=True)
class Message:
    """One message; fields that are `None` or false are not sent.

    The first five fields are the status that each rank reports every second. The others report an event.

    Attributes:
        activity: what the rank is doing, such as `iteration 50`.
        collective: the one that it started last.
        num_collectives: how many it has started.
        line: the line of code that its main thread is executing.
        process: its process id and host.
        lost: why the job ends, as rank 0 informs all others.
        left: why the sender leaves the job.
        end: why every rank has to end now: there is a stall.
        exit_code: of the cause in one of these three.
        first: whether it is the cause, and not a consequence of another rank's end.
        acknowledged: the answer to `lost` and `left`: the cause is on disk.
        goodbye: the sender is done and closes the connection.
        stalled: the sender makes no progress.
    """

    activity: str | None = None
    collective: str | None = None
    num_collectives: int | None = None
    line: str | None = None
    process: str | None = None
    lost: str | None = None
    left: str | None = None
    end: str | None = None
    exit_code: int | None = None
    first: bool = False
    acknowledged: bool = False
    goodbye: bool = False
    stalled: bool = False

    @classmethod
    def leaving(cls, cause: Cause, activity: str) -> Message:
        """The message with which a rank leaves the job."""
        return cls(left=cause.text, exit_code=cause.exit_code, first=cause.first, activity=activity)

    @classmethod
    def losing(cls, cause: Cause) -> Message:
        """The message with which rank 0 informs the others of a loss."""
        return cls(lost=cause.text, exit_code=cause.exit_code, first=cause.first)

    def cause(self, text: str) -> Cause:
        """The cause that this message reports, with a text; a code that no rank ends with counts as a loss."""
        return Cause(text, self.exit_code, self.first) if self.exit_code in CODES else Cause(text, first=self.first)

    def reason_of(self, rank: str) -> str:
        """Why a rank leaves, for the others: with its name and activity, unless it was only asked to stop."""
        is_failure = self.first and self.exit_code != StoppedOnRequestError.exit_code
        return f"{rank} left in {self.activity or 'start'}: {self.left}" if is_failure else str(self.left)

    def encode(self) -> bytes:
        """As it is sent; long texts are cut."""
        sent = {key: _cut(value) for key, value in asdict(self).items() if value not in (None, False)}
        return json.dumps(sent).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Message | None:
        """The message in a line; `None` if it holds none.

        >>> Message.decode(b'{"lost": 5, "left": "a bug", "exit_code": 1}') == Message(left="a bug", exit_code=1)
        True
        """
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, dict):
            return None
        return cls(**{key: _cut(found[key]) for key in _FIELDS if type(found.get(key)) is _KINDS.get(key, str)})


_KINDS = {
    "num_collectives": int,
    "exit_code": int,
    "first": bool,
    "acknowledged": bool,
    "goodbye": bool,
    "stalled": bool,
}
_FIELDS = tuple(Message.__dataclass_fields__)


def _cut(value: Any) -> Any:
    return value[:_MAX_TEXT] if isinstance(value, str) else value
