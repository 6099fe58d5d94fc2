"""The registry of ranks that `horovodrun` started: keys at the launcher's HTTP server, which ends with the job."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from typing_extensions import override

from harness.causes import Cause
from harness.comm.launcher_store import LauncherStore, open_launcher_store
from harness.guard.registry import MAX_BYTES, Entry, Registry, decode_cause, encode_cause

_SCOPE = "harness"
_SETTLE_S = 0.5  # longer than a question and its answer take
_RANKS_PER_S = 64  # that the one server can serve, each of which reads the entries of all


class ServerRegistry(Registry):
    """Entries as keys `rank-N`, and the cause of a failed start as `failure`."""

    sees_all_hosts = True

    def __init__(self, store: LauncherStore, size: int) -> None:
        """Nothing is sent yet.

        Args:
            store: at the launcher's server.
            size: number of ranks.
        """
        self._store, self._size = store, size
        self.poll_s = max(1.0, size / _RANKS_PER_S)

    @override
    def register(self, entry: Entry) -> None:
        self._store.put(f"rank-{entry.rank}", entry.encode())

    @override
    def entries(self) -> dict[int, Entry] | None:
        found = {}
        for rank in range(self._size):
            answer = self._store.get(f"rank-{rank}", MAX_BYTES)
            if answer is None:
                return None
            entry = Entry.decode(answer)
            if entry is not None:
                found[entry.rank] = entry
        return found

    @override
    def unregister(self, rank: int) -> None:
        self._store.delete(f"rank-{rank}")

    @override
    def fail(self, cause: Cause) -> bool:
        """The server cannot compare and set, so of ranks that fail together the last one to claim the word has it.

        A rank that claims it later finds the cause when it looks again. If the one that has the word ends before it
        has told the cause, the others tell theirs.
        """
        if self.failure() is not None:
            return False
        claim = os.urandom(16).hex().encode()
        self._store.put("claim", claim)
        time.sleep(_SETTLE_S)
        if self._store.get("claim", MAX_BYTES) not in (claim, b"", None):
            time.sleep(2 * _SETTLE_S)  # by then the other one has looked, and told its cause
        if self.failure() is not None:
            return False
        self._store.put("failure", encode_cause(cause))
        return True

    @override
    def failure(self) -> Cause | None:
        return decode_cause(self._store.get("failure", MAX_BYTES) or b"")

    @override
    def clear(self) -> None:
        """The server is about to end."""


def open_server_registry(size: int, environ: Mapping[str, str]) -> ServerRegistry | None:
    """The registry at the server that horovodrun names in a rank's environment; `None` if it names none."""
    store = open_launcher_store(environ, _SCOPE)
    return None if store is None else ServerRegistry(store, size)
