"""Rank 0's listening socket: anybody may connect, and only a rank that knows the job's secret is accepted.

The ranks receive the secret in a collective, and it never crosses this connection. Each side proves that it knows the
secret with a keyed hash (HMAC) of a number that the connecting rank has just drawn, so that nothing overheard can be
replayed. Other clients are served next to the ranks, a bounded number of them for a bounded time, so that a silent,
slow or hostile one costs nobody but itself.
"""

from __future__ import annotations

import hmac
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from harness.comm.addresses import family_of
from harness.parsing import whole_number

_HELLO_S = 5.0  # in which a client has to identify itself
_MAX_HELLO_BYTES = 256
_MAX_PENDING = 64  # clients that have not identified themselves; with one more, the oldest is disconnected


class _Client(NamedTuple):
    """A connection that has not proven yet that it is a rank."""

    connection: socket.socket
    deadline_s: float
    received: bytearray


class HeartbeatListener:
    """Accepts the connections of the ranks, in a thread, until all have connected or `close` is called.

    Attributes:
        addresses: host and port of each socket that ranks may connect to.
    """

    def __init__(
        self, hosts: Sequence[str], secret: str, size: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start to listen; an address that cannot be bound is left out.

        Args:
            hosts: addresses of the interfaces in use.
            secret: the job's secret.
            size: of the world; rank 0 needs no connection to itself.
            clock: seconds; for tests.
        """
        self._secret, self._size, self._clock = secret, size, clock
        self._listeners: list[socket.socket] = []
        for host in hosts:
            with suppress(OSError):
                self._listeners.append(socket.create_server((host, 0), family=family_of(host), backlog=max(128, size)))
        self.addresses = [(str(one.getsockname()[0]), int(one.getsockname()[1])) for one in self._listeners]
        self._clients: dict[int, _Client] = {}  # by file descriptor, the oldest first
        self._ranks: dict[int, socket.socket] = {}
        self._wakeup, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="heartbeat listener", daemon=True)
        self._thread.start()

    def close(self) -> dict[int, socket.socket]:
        """Stop listening.

        Returns:
            The connection of each rank that has connected.
        """
        self._wakeup.close()
        self._thread.join()
        return self._ranks

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            for listener in self._listeners:
                listener.setblocking(False)
                selector.register(listener, selectors.EVENT_READ)
            while len(self._ranks) < self._size - 1:
                ready = [key.fileobj for key, _ in selector.select(0.5)]
                if self._woken in ready:
                    break
                for one in ready:
                    if one in self._listeners:
                        self._accept(one, selector)
                    else:
                        self._receive(one, selector)
                for client in [client for client in self._clients.values() if self._clock() > client.deadline_s]:
                    self._disconnect(client, selector)
            for client in list(self._clients.values()):
                self._disconnect(client, selector)
        for one in (*self._listeners, self._woken):
            one.close()

    def _accept(self, listener: object, selector: selectors.BaseSelector) -> None:
        assert isinstance(listener, socket.socket)
        for _ in range(_MAX_PENDING):
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # the client has gone already, or too many files are open
                time.sleep(0.01)
                return
            connection.setblocking(False)
            if len(self._clients) >= _MAX_PENDING:
                self._disconnect(next(iter(self._clients.values())), selector)
            self._clients[connection.fileno()] = _Client(connection, self._clock() + _HELLO_S, bytearray())
            selector.register(connection, selectors.EVENT_READ)

    def _receive(self, connection: object, selector: selectors.BaseSelector) -> None:
        assert isinstance(connection, socket.socket)
        client = self._clients.get(connection.fileno())
        if client is None:  # disconnected a moment ago
            return
        try:
            received = connection.recv(_MAX_HELLO_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            received = b""
        client.received.extend(received)
        line, is_complete, _ = bytes(client.received).partition(b"\n")
        is_refused = is_complete and not self._authenticate(connection, line, selector)
        if not received or is_refused or len(line) > _MAX_HELLO_BYTES:
            self._disconnect(client, selector)

    def _authenticate(self, connection: socket.socket, line: bytes, selector: selectors.BaseSelector) -> bool:
        """Whether the client has proven that it is a rank; if so, prove to it that this is rank 0."""
        words = line.split(b" ")
        rank = whole_number(words[0].decode("latin-1"))
        if len(words) != 3 or rank is None or not words[1].isalnum():
            return False
        nonce = words[1].decode("ascii")
        is_known = hmac.compare_digest(words[2], proof(self._secret, "rank", rank, nonce))
        if not is_known or not 0 < rank < self._size:
            return False
        try:
            connection.send(proof(self._secret, "root", rank, nonce) + b"\n")
        except OSError:
            return False
        selector.unregister(connection)
        del self._clients[connection.fileno()]
        if rank in self._ranks:
            self._ranks[rank].close()  # the rank gave up on that connection, and has connected again
        self._ranks[rank] = connection
        return True

    def _disconnect(self, client: _Client, selector: selectors.BaseSelector) -> None:
        selector.unregister(client.connection)
        del self._clients[client.connection.fileno()]
        client.connection.close()


def proof(secret: str, sender: str, rank: int, nonce: str) -> bytes:
    """The HMAC that only a rank of this job can compute.

    Args:
        secret: the job's secret.
        sender: `rank` or `root`, so that the proof of one is not valid for the other.
        rank: that connects.
        nonce: drawn by it for this one connection.
    """
    return hmac.new(secret.encode(), f"{sender} {rank} {nonce}".encode(), "sha256").hexdigest().encode()
