"""Which of several causes counts when a job ends, and what the other ranks are told.

Two ranks may fail at once, and a rank that fails takes the others down. What counts most is an error with a class of
its own (data, configuration, ...), which would happen again; then a failure that another attempt may not meet (a rank
that was killed); then a stop request. Among equals the first counts.
"""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from harness.errors import HarnessError, LostRankError, StoppedOnRequestError

_LOST, _STOPPED = LostRankError.exit_code, StoppedOnRequestError.exit_code
_BUG = HarnessError.exit_code  # an error that has no class of its own
_CLASSES = {kind.exit_code: kind for kind in HarnessError.__subclasses__()}
CODES = frozenset({_BUG, *_CLASSES})  # that a rank can leave with


class Cause(NamedTuple):
    """Why a job ends.

    Attributes:
        text: in words.
        exit_code: of every rank.
        first: whether it explains the end, and is not itself a consequence of another rank's end.
    """

    text: str
    exit_code: int = _LOST
    first: bool = True

    @property
    def may_end_otherwise(self) -> bool:
        """Whether another attempt may not meet it: a rank was lost, or the job was asked to stop."""
        return self.exit_code in (_LOST, _STOPPED)

    @property
    def spares_others(self) -> bool:
        """Whether the other ranks could do without the one that it befell: it was lost, or failed by a bug."""
        return self.exit_code in (_LOST, _BUG)

    def error(self) -> HarnessError:
        """The cause as the error that it began as."""
        return _CLASSES.get(self.exit_code, HarnessError)(self.text)


class KnownCause:
    """Why the job ends, as far as one rank knows; several threads may learn of it.

    Attributes:
        cause: `None` before anything is known.
        since_s: when the first one became known, by the monotonic clock.
    """

    def __init__(self) -> None:
        """Nothing is known."""
        self.cause: Cause | None = None
        self.since_s = 0.0
        self._lock = threading.Lock()

    def learn(self, cause: Cause) -> bool:
        """Learn of a cause; whether it counts more than the one that was known."""
        with self._lock:
            if not outranks(cause, self.cause):
                return False
            self.cause = cause
            self.since_s = self.since_s or time.monotonic()
            return True


def outranks(new: Cause, old: Cause | None) -> bool:
    """Whether a cause that became known counts more than the one that was known.

    >>> outranks(Cause("data", 3), Cause("killed", 7)), outranks(Cause("killed", 7), Cause("data", 3))
    (True, False)
    """
    return old is None or _weight(new) > _weight(old)


def joined(own: Cause | None, met: Cause) -> Cause:
    """The cause of a rank that is ending for one of its own, and meets another one meanwhile.

    >>> joined(Cause("diverged", 6), Cause("rank 1 is silent", 7))
    Cause(text='diverged; at the end: rank 1 is silent', exit_code=6, first=True)
    """
    if own is None or not outranks(own, met):
        return met
    return own._replace(text=f"{own.text}; at the end: {met.text}")


def _weight(cause: Cause) -> int:
    if not cause.first:
        return 0
    return 1 if cause.exit_code == _STOPPED else 2 if cause.exit_code in (_LOST, _BUG) else 3
