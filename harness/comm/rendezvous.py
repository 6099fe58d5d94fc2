"""The server through which Horovod's ranks find each other: a few small values by name, over HTTP, until they have.

Horovod's C++ sends PUT, GET and DELETE of `/scope/key`, with nothing that would tell a rank from another client. So the
server limits what any client can do: it listens only at the addresses that ranks use, accepts connections only from the
hosts of ranks, holds small values under the names that Horovod uses, never replaces one, and disconnects slow clients.
Knows neither Horovod nor MPI.
"""

from __future__ import annotations

import http.client
import re
import socket
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from typing import Any

from harness.parsing import whole_number

_MAX_VALUE = 4096  # bytes, and more for every rank: what one sends to each of the others is 136
_MORE_PER_RANK = 512
_MAX_VALUES_PER_RANK = 32
_CONNECTIONS_PER_RANK = 4
_MORE_CONNECTIONS = 32
_MAX_S = 3.0  # for a connection: Horovod opens one for every request
_POLL_S = 0.05
_SCOPE = re.compile(r"(global|local_[\w.:-]{1,255}|cross_[0-9]{1,9})(_process_set_hash_[0-9a-f]{1,32})?")
_KEY = re.compile(r"[\w.:-]{1,100}")


class Rendezvous:
    """Values by scope and key, served at some addresses of this host until it is stopped."""

    def __init__(self, listeners: Sequence[socket.socket], peers: Collection[str], size: int) -> None:
        """Start to serve, with a thread for each listener.

        Args:
            listeners: bound and listening; they are closed by `stop`.
            peers: the addresses that connections may come from.
            size: number of ranks.
        """
        self._store = _Store(_MAX_VALUES_PER_RANK * size, _MAX_VALUE + _MORE_PER_RANK * size)
        at_once = _CONNECTIONS_PER_RANK * size + _MORE_CONNECTIONS
        self._servers = [_Server(listener, self._store, frozenset(peers), at_once) for listener in listeners]
        self._threads = [
            threading.Thread(target=server.serve_forever, args=(_POLL_S,), name="rendezvous", daemon=True)
            for server in self._servers
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Close all listeners and connections, and join their threads."""
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.shutdown()
            thread.join()
            server.disconnect(0.0)
            server.server_close()


class _Store:
    """The values; a name is set once, so that nobody can replace what a rank has stored."""

    def __init__(self, most: int, longest: int) -> None:
        self._most, self.longest = most, longest
        self._values: dict[tuple[str, str], bytes] = {}
        self._lock = threading.Lock()

    def put(self, name: tuple[str, str], value: bytes) -> int:
        with self._lock:
            if name in self._values:
                return http.client.OK if self._values[name] == value else http.client.CONFLICT
            if len(self._values) >= self._most:
                return http.client.INSUFFICIENT_STORAGE
            self._values[name] = value
        return http.client.OK

    def get(self, name: tuple[str, str]) -> bytes | None:
        with self._lock:
            return self._values.get(name)


class _Server(ThreadingMixIn, HTTPServer):
    """One listener, with a thread for each connection, whose time is limited."""

    daemon_threads = False  # so that closing the server joins them
    block_on_close = True

    def __init__(self, listener: socket.socket, store: _Store, peers: frozenset[str], at_once: int) -> None:
        super().__init__(listener.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.store, self._peers, self._at_once = store, peers, at_once
        self._begun: dict[socket.socket, float] = {}
        self._lock = threading.Lock()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return client_address[0] in self._peers and len(self._begun) < self._at_once

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._begun[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._begun.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        super().service_actions()
        self.disconnect(_MAX_S)

    def disconnect(self, after_s: float) -> None:
        """Shut down connections that have taken longer; their threads get an error, and end."""
        now = time.monotonic()
        with self._lock:
            for request, begun in self._begun.items():
                if now - begun >= after_s:
                    with suppress(OSError):
                        request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore connections that ended early."""


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: _Server
    timeout = _MAX_S

    def do_PUT(self) -> None:
        name, length = self._name(), whole_number(self.headers.get("Content-Length", ""))
        if name is None or length is None:
            self._answer(http.client.BAD_REQUEST)
        elif length > self.server.store.longest:
            self._answer(http.client.REQUEST_ENTITY_TOO_LARGE)
        else:
            value = self.rfile.read(length)
            self._answer(self.server.store.put(name, value) if len(value) == length else http.client.BAD_REQUEST)

    def do_GET(self) -> None:
        name = self._name()
        value = None if name is None else self.server.store.get(name)
        self._answer(http.client.NOT_FOUND if value is None else http.client.OK, value or b"")

    def do_DELETE(self) -> None:
        """A rank has found the others; values are kept until all have."""
        self._answer(http.client.OK)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""

    def _name(self) -> tuple[str, str] | None:
        _, _, rest = self.path.partition("/")
        scope, _, key = rest.partition("/")
        return (scope, key) if _SCOPE.fullmatch(scope) and _KEY.fullmatch(key) else None

    def _answer(self, code: int, body: bytes = b"") -> None:
        self.send_response_only(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
