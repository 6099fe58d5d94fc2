"""The registry of ranks that `horovodrun` started: keys at the launcher's HTTP server, which ends with the job."""

from __future__ import annotations

import http.client
from collections.abc import Mapping

from harness.causes import Cause
from harness.guard.registry import MAX_BYTES, Entry, decode_cause, encode_cause
from harness.parsing import whole_number

_ANSWER_S = 2.0  # in which the server has to answer
_SCOPE = "harness"
_RANKS_PER_S = 64  # that the one server can serve, each of which reads the entries of all


class ServerRegistry:
    """Entries as keys `rank-N`, and the cause of a failed start as `failure`."""

    sees_all_hosts = True

    def __init__(self, address: str, port: int, size: int) -> None:
        """Nothing is sent yet.

        Args:
            address: of the server.
            port: of the server.
            size: number of ranks.
        """
        self._address, self._port, self._size = address, port, size
        self.poll_s = max(1.0, size / _RANKS_PER_S)

    def register(self, entry: Entry) -> None:
        """See `Registry`."""
        self._request("PUT", f"rank-{entry.rank}", entry.encode())

    def entries(self) -> dict[int, Entry] | None:
        """See `Registry`."""
        found = {}
        for rank in range(self._size):
            answer = self._request("GET", f"rank-{rank}")
            if answer is None:
                return None
            entry = Entry.decode(answer)
            if entry is not None:
                found[entry.rank] = entry
        return found

    def unregister(self, rank: int) -> None:
        """See `Registry`."""
        self._request("DELETE", f"rank-{rank}")

    def fail(self, cause: Cause) -> bool:
        """See `Registry`; two ranks that fail at the same moment may both be told that they were the first."""
        if self.failure() is not None:
            return False
        self._request("PUT", "failure", encode_cause(cause))
        return True

    def failure(self) -> Cause | None:
        """See `Registry`."""
        return decode_cause(self._request("GET", "failure") or b"")

    def clear(self) -> None:
        """See `Registry`; the server is about to end."""

    def _request(self, method: str, key: str, body: bytes | None = None) -> bytes | None:
        """The body of the answer, empty if the server has no such key; `None` if it does not answer."""
        connection = http.client.HTTPConnection(self._address, self._port, timeout=_ANSWER_S)
        try:
            connection.request(method, f"/{_SCOPE}/{key}", body)
            answer = connection.getresponse()
            return answer.read(MAX_BYTES) if answer.status == 200 else b""
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()


def open_server_registry(size: int, environ: Mapping[str, str]) -> ServerRegistry | None:
    """The registry at the server that horovodrun names in a rank's environment; `None` if it names none."""
    address = environ.get("HOROVOD_GLOO_RENDEZVOUS_ADDR")
    port = whole_number(environ.get("HOROVOD_GLOO_RENDEZVOUS_PORT", ""), low=1, high=65535)
    return ServerRegistry(address, port, size) if address and port is not None else None
