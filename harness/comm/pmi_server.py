"""Serves PMI-1 to the ranks of one job: a program of its own, which ends with the job.

`python -I -S pmi_server.py ORDERS LISTENER...`: open files that it inherits. It is no thread of rank 0, because that
one waits in `MPI_Init` for the answers. It outlives rank 0, if only until the other ranks have ended: MPICH says
goodbye when a process exits, and crashes if nobody answers.

Anybody can connect until all ranks have. So it serves a bounded number of clients for a bounded time, from the hosts of
ranks alone, and disconnects those that do not know the number of a rank. When all ranks have connected it stops to
listen. Where MPICH's own manager would end the job for a lost rank, this one does nothing: the launcher and the guard
do.

It imports nothing of the harness but `pmi.py`, by its path: importing the package takes longer than the ranks wait.
"""

from __future__ import annotations

import importlib.util
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

SHARED_MEMORY = Path("/dev/shm")
_POLL_S = 0.5
HELLO_S = 5.0  # in which a client has to identify itself
LINGER_S = 30.0  # after rank 0; launchers and guards end the other ranks sooner
_MAX_PENDING = 64  # clients that have not; with one more, the oldest is disconnected


class PmiServer:
    """The sockets of the ranks, and of clients that may be ranks."""

    def __init__(self, manager: Any, listeners: Sequence[socket.socket], peers: Collection[str], longest: int) -> None:
        """Nothing is accepted yet.

        Args:
            manager: a `PmiManager`.
            listeners: bound and listening.
            peers: the addresses that connections may come from.
            longest: bytes of a line.
        """
        self._manager, self._listeners = manager, list(listeners)
        self._peers, self._longest = frozenset(peers), longest
        self._selector = selectors.DefaultSelector()
        self._now = time.monotonic
        self._received: dict[socket.socket, bytes] = {}
        self._pending: dict[socket.socket, float] = {}  # when they connected, the oldest first
        for listener in listeners:
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ)

    def serve(self, orders: int, parent: int) -> None:
        """Serve until all ranks have finished, or rank 0 has ended and the others have as well.

        Args:
            orders: the pipe that rank 0 holds open as long as it lives.
            parent: rank 0's process; a process that it has forked may hold the pipe open for longer.
        """
        self._selector.register(orders, selectors.EVENT_READ)
        deadline_s: float | None = None  # once rank 0 has ended
        while not self._manager.is_finalized and (deadline_s is None or (self._received and self._now() < deadline_s)):
            ready = [key.fileobj for key, _ in self._selector.select(_POLL_S)]
            for one in ready:
                if one in self._listeners:
                    self._accept(one)
                elif one in self._received:  # not disconnected a moment ago
                    self._receive(one)
            for client in [one for one, began in self._pending.items() if self._now() - began > HELLO_S]:
                self._disconnect(client)
            if deadline_s is None and (orders in ready or os.getppid() != parent):
                deadline_s = self._now() + LINGER_S
                self._selector.unregister(orders)
            if self._listeners and (self._manager.is_complete or deadline_s is not None):
                self.stop_listening()

    def stop_listening(self) -> None:
        """Close the listeners, and connections of clients that are no ranks."""
        for client in list(self._pending):
            self._disconnect(client)
        while self._listeners:
            listener = self._listeners.pop()
            self._selector.unregister(listener)
            listener.close()

    def close(self) -> None:
        """Close everything."""
        self.stop_listening()
        for client in list(self._received):
            self._disconnect(client)
        self._selector.close()

    def _accept(self, listener: Any) -> None:
        try:
            connection, address = listener.accept()
        except BlockingIOError:
            return
        except OSError:  # the client has gone already, or too many files are open
            time.sleep(0.01)
            return
        if address[0] not in self._peers:
            connection.close()
            return
        if len(self._pending) >= _MAX_PENDING:
            self._disconnect(next(iter(self._pending)))
        connection.setblocking(False)
        self._received[connection], self._pending[connection] = b"", time.monotonic()
        self._selector.register(connection, selectors.EVENT_READ)

    def _receive(self, client: Any) -> None:
        try:
            received = client.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        *lines, rest = (self._received[client] + received).split(b"\n")
        self._received[client] = rest
        try:
            if not received or max(map(len, [*lines, rest])) > self._longest:
                raise ValueError("closed, or not a line")
            for line in lines:
                self._answer(client, line.decode("ascii"))
        except ValueError:
            self._disconnect(client)

    def _answer(self, client: socket.socket, line: str) -> None:
        for one, answer in self._manager.answer(client, line):
            with suppress(OSError):  # a rank that is gone; its connection ends by itself
                # never waits: answers are short, and a rank reads one before it sends more
                one.sendall(answer.encode("ascii") + b"\n")
        if self._manager.is_rank(client):
            self._pending.pop(client, None)

    def _disconnect(self, client: socket.socket) -> None:
        self._selector.unregister(client)
        del self._received[client]
        self._pending.pop(client, None)
        client.close()


def main() -> int:
    """Read the order of rank 0, serve, and remove the shared memory that killed ranks could not remove."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # ranks that were asked to stop have yet to finish
    os.chdir("/")
    orders, *listeners = map(int, sys.argv[1:])
    line = _read_line(orders)
    if not line:
        return 0  # rank 0 has ended, or needs no server
    order = json.loads(line)
    pmi = _load_protocol()
    job = pmi.PmiJob(order["name"], tuple(order["ids"]), order["mapping"])
    sockets = [socket.socket(fileno=number) for number in listeners]
    server = PmiServer(pmi.PmiManager(job), sockets, order["peers"], pmi.MAX_LINE_BYTES)
    try:
        server.serve(orders, order["parent"])
    finally:
        server.close()
        for path in SHARED_MEMORY.glob(pmi.shared_memory_pattern(job.name)):
            path.unlink(missing_ok=True)
    return 0


def _load_protocol() -> Any:
    spec = importlib.util.spec_from_file_location("pmi", Path(__file__).with_name("pmi.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["pmi"] = importlib.util.module_from_spec(spec)  # dataclasses look it up there
    spec.loader.exec_module(module)
    return module


def _read_line(file: int) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(file, 65536)
        if not piece:
            return b""
        line += piece
    return line


if __name__ == "__main__":
    sys.exit(main())
