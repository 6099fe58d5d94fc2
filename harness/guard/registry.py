"""Which ranks of a job have started, before they have any connection: each leaves an entry where the others look.

Where that is depends on the launcher. Ranks that `mpirun` or `srun` started on one host write files into a folder named
after the launcher's process on that host (`registry_files.py`); ranks that `horovodrun` started use the launcher's own
key-value server, on any host (`registry_server.py`). An entry says which process a rank is and what it is doing;
whether that process lives is asked of the kernel.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from typing_extensions import override

from harness.causes import CODES, Cause
from harness.processes import began, pid_namespace, state

MAX_BYTES = 10_000  # of an entry, or of a cause


@dataclass(frozen=True)
class Entry:
    """What a rank has left about itself.

    Attributes:
        rank: which one.
        pid: its process.
        began: when that process began, in the kernel's ticks, which tell it from a later one with the same id.
        host: where it runs, as the kernel of that host identifies itself.
        activity: what it is doing.
    """

    rank: int
    pid: int
    began: int
    host: str
    activity: str

    @classmethod
    def of_this_process(cls, rank: int, activity: str) -> Entry:
        """An entry on the calling process."""
        return cls(rank, os.getpid(), began(os.getpid()) or 0, this_host(), activity)

    def process_state(self) -> str | None:
        """The state of its process, such as `S`, `T` (stopped) or `D`; `None` if it has ended.

        The state of a process on another host is unknown: `?`.
        """
        if self.host != this_host():
            return "?"
        return state(self.pid) if began(self.pid) == self.began else None

    def encode(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, text: bytes) -> Entry | None:
        """The entry in a text from anywhere; `None` if it holds none."""
        try:
            found: Any = json.loads(text)
            entry = cls(**found)
        except (ValueError, TypeError, RecursionError):
            return None
        kinds = {"rank": int, "pid": int, "began": int}
        is_valid = all(type(value) is kinds.get(key, str) for key, value in asdict(entry).items())
        return entry if is_valid and 0 < entry.pid < 1 << 31 else None


class Registry(Protocol):
    """Where entries are left and found. Nothing here raises: a rank whose entry is lost trains all the same.

    Attributes:
        poll_s: how often it may be asked.
        sees_all_hosts: whether it holds the entries of other hosts.
    """

    poll_s: float
    sees_all_hosts: bool

    def register(self, entry: Entry) -> None:
        """Leave an entry, in place of the rank's earlier one."""

    def entries(self) -> dict[int, Entry] | None:
        """The entries of all ranks that have registered; `None` if they cannot be read."""

    def unregister(self, rank: int) -> None:
        """Remove the entry of a rank that has connected to the others, or ends."""

    def fail(self, cause: Cause) -> bool:
        """Tell all ranks why the start has failed; whether this rank was the first to do so."""

    def failure(self) -> Cause | None:
        """Why the start has failed, if a rank has said so."""

    def clear(self) -> None:
        """Remove everything of this job."""


class NoRegistry(Registry):
    """For one process alone, and for ranks that have no place in common."""

    poll_s = 1.0
    sees_all_hosts = False

    @override
    def register(self, entry: Entry) -> None:
        return

    @override
    def entries(self) -> dict[int, Entry] | None:
        return None

    @override
    def unregister(self, rank: int) -> None:
        return

    @override
    def fail(self, cause: Cause) -> bool:
        return True

    @override
    def failure(self) -> Cause | None:
        return None

    @override
    def clear(self) -> None:
        return


def this_host() -> str:
    """This host's name, and what identifies its kernel."""
    return f"{os.uname().nodename} {pid_namespace()}"


def encode_cause(cause: Cause) -> bytes:
    """A cause as JSON."""
    return json.dumps([cause.exit_code, cause.text]).encode()


def decode_cause(text: bytes) -> Cause | None:
    """The cause in a text from anywhere; `None` if it holds none."""
    with suppress(ValueError, TypeError, RecursionError):
        code, words = json.loads(text)
        if code in CODES and isinstance(words, str):
            return Cause(words, code)
    return None
