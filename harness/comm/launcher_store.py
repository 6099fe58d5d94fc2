"""horovodrun's key-value server, through which its ranks can tell each other a few things before they are connected.

It is the one by which Horovod's own ranks find each other, and ends with the job. It asks nobody who he is, so what is
read there has to be checked. Standard library alone.
"""

from __future__ import annotations

import http.client
import select
import socket
import time
from collections.abc import Callable, Mapping

from harness.errors import LostRankError
from harness.parsing import whole_number

_ANSWER_S = 2.0  # in which the server has to answer
_HURRIED_S = 0.1  # the same for a process that has little time left
_POLL_S = (0.005, 0.1)  # between questions, the first and the longest
_SILENT_S = 30.0
_UNSEEN_S = 5.0  # by which a question that is not answered counts at most: this process may have been frozen


class LauncherStore:
    """Values by name, in a scope of their own; several threads may use it.

    Attributes:
        unanswered_s: for how long questions were asked and the server has answered none.
        hurries: whether this process has little time left, for instance because it was told to stop; asked often.
    """

    def __init__(self, address: str, port: int, scope: str) -> None:
        """Nothing is sent yet.

        Args:
            address: of the server.
            port: of the server.
            scope: of the names.
        """
        self._address, self._port, self._scope = address, port, scope
        self.unanswered_s = 0.0
        self.hurries: Callable[[], bool] = lambda: False
        self._asked_s = time.monotonic()

    def put(self, key: str, value: bytes) -> bool:
        """Store a value; whether the server has answered."""
        return self._request("PUT", key, value) is not None

    def get(self, key: str, most: int) -> bytes | None:
        """At most so many bytes of a value, empty if there is none; `None` if the server does not answer."""
        return self._request("GET", key, most=most)

    def delete(self, key: str) -> None:
        """Remove a value."""
        self._request("DELETE", key)

    def wait(self, key: str, most: int) -> bytes:
        """At most so many bytes of a value, as soon as another rank has stored it.

        Raises:
            LostRankError: if the server has not answered for 30 s.
        """
        pause_s, longest_s = _POLL_S
        while True:
            value = self.get(key, most)
            if value:
                return value
            if self.unanswered_s > _SILENT_S:
                raise LostRankError(f"horovodrun's server at {self._address}:{self._port} does not answer")
            time.sleep(pause_s)
            pause_s = min(longest_s, 1.5 * pause_s)

    def _request(self, method: str, key: str, body: bytes | None = None, most: int = 0) -> bytes | None:
        """The body of the answer, empty if the server has no such key; `None` if it does not answer."""
        limit_s = _HURRIED_S if self.hurries() else _ANSWER_S
        connection = http.client.HTTPConnection(self._address, self._port, timeout=limit_s)
        try:
            connection.request(method, f"/{self._scope}/{key}", body)
            self._wait_for_answer(connection.sock)
            answer = connection.getresponse()
            found = answer.read(most) if answer.status == 200 else b""
        except (OSError, http.client.HTTPException, ValueError):
            found = None
        finally:
            connection.close()
        now_s = time.monotonic()
        passed_s, self._asked_s = min(now_s - self._asked_s, _UNSEEN_S), now_s
        self.unanswered_s = self.unanswered_s + passed_s if found is None else 0.0
        return found

    def _wait_for_answer(self, connection: socket.socket) -> None:
        """Wait until something has come; a process that is told to stop meanwhile does not wait any longer."""
        readable, until_s = select.poll(), time.monotonic() + _ANSWER_S
        readable.register(connection, select.POLLIN)
        while not readable.poll(1e3 * _HURRIED_S):
            if self.hurries() or time.monotonic() > until_s:
                raise TimeoutError


def open_launcher_store(environ: Mapping[str, str], scope: str) -> LauncherStore | None:
    """The store of the server that horovodrun names in a rank's environment; `None` if it names none."""
    address = environ.get("HOROVOD_GLOO_RENDEZVOUS_ADDR")
    port = whole_number(environ.get("HOROVOD_GLOO_RENDEZVOUS_PORT", ""), low=1, high=65535)
    return LauncherStore(address, port, scope) if address and port is not None else None
