"""While ranks become a world, each holds a connection to the first of them; one that breaks ends the attempt for all.

Horovod connects ranks in several steps, each of which waits for every rank, and a rank that is killed in between would
be waited for until a time limit. The kernel closes a dead process's connections at once. A rank that is through waits
for the others here: they may still be about to connect to it.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

_ARRIVE_S = 10.0  # in which all have to connect
_CONNECT_S = 3.0
_LOOK_S = 0.25
_GO, _OK, _DONE = b"go\n", b"ok\n", b"done\n"
_MAX_LINE = 256


class LifelineServer:
    """The first rank's: says `go` when all are here and `done` when all are `ok`; one that is lost before ends it."""

    def __init__(self, listeners: Sequence[socket.socket], uids: Sequence[str]) -> None:
        """Begin to serve, in a thread.

        Args:
            listeners: bound and listening; closed at the end.
            uids: of all ranks.
        """
        self._listeners, self._awaited = listeners, set(uids)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="lifeline", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until all are connected, or one is lost."""
        self._thread.join(2 * _ARRIVE_S)

    def close(self) -> None:
        """Disconnect all that are still connecting."""
        self._stop.set()
        self._thread.join()

    def _serve(self) -> None:
        ranks: dict[socket.socket, str] = {}
        texts: dict[socket.socket, bytes] = {}
        done: set[str] = set()
        has_gone = False
        deadline_s = time.monotonic() + _ARRIVE_S
        with selectors.DefaultSelector() as selector:
            for listener in self._listeners:
                listener.setblocking(False)
                selector.register(listener, selectors.EVENT_READ)
            is_lost = False
            while not self._stop.is_set() and not is_lost and done != self._awaited:
                for key, _ in selector.select(0.1):
                    one = key.fileobj
                    assert isinstance(one, socket.socket)
                    if one in self._listeners:
                        with suppress(OSError):
                            client, _ = one.accept()
                            client.setblocking(False)
                            texts[client] = b""
                            selector.register(client, selectors.EVENT_READ)
                        continue
                    try:
                        received = one.recv(_MAX_LINE)
                    except (BlockingIOError, InterruptedError):
                        continue
                    except OSError:
                        received = b""
                    texts[one] += received
                    *lines, texts[one] = texts[one].split(b"\n")
                    for line in lines:
                        if one in ranks and line + b"\n" == _OK:
                            done.add(ranks[one])
                        elif one not in ranks and line.decode("latin-1") in self._awaited:
                            ranks[one] = line.decode("latin-1")
                    if not received or len(texts[one]) > _MAX_LINE:
                        is_lost = is_lost or (one in ranks and done != self._awaited)
                        selector.unregister(one)
                        one.close()
                        texts.pop(one)
                if not has_gone and set(ranks.values()) == self._awaited:
                    has_gone = True
                    _tell(ranks, _GO)
                is_lost = is_lost or (not has_gone and time.monotonic() > deadline_s)
        if done == self._awaited:
            _tell(ranks, _DONE)
        for open_one in (*self._listeners, *texts):
            open_one.close()


class Lifeline:
    """A rank's connection to the first one.

    Attributes:
        address: of the first rank, at which it was reached.
    """

    def __init__(self, ports: Mapping[str, int], uid: str) -> None:
        """Connect.

        Raises:
            OSError: if none of the addresses answers.
        """
        self._connection, self.address = _connect(ports)
        self._connection.sendall(uid.encode() + b"\n")

    def wait_for_all(self, may_go_on: Callable[[], bool] = lambda: True) -> bool:
        """Wait until all have connected; whether they have.

        Args:
            may_go_on: is asked again and again; once it says no, the attempt is given up.
        """
        is_told = self._is_told(_GO, may_go_on)
        self._connection.setblocking(False)
        return is_told

    def confirm(self, may_go_on: Callable[[], bool] = lambda: True) -> bool:
        """This rank is connected with the others: wait until all are; whether they are.

        Args:
            may_go_on: see `wait_for_all`.
        """
        try:
            self._connection.sendall(_OK)
        except OSError:
            return False
        return self._is_told(_DONE, may_go_on)

    def holds(self) -> bool:
        """Whether nobody is known to be lost."""
        try:
            return bool(self._connection.recv(1))
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False

    def close(self) -> None:
        """End it."""
        self._connection.close()

    def _is_told(self, expected: bytes, may_go_on: Callable[[], bool]) -> bool:
        """Whether the first rank says this, and does so in time."""
        self._connection.settimeout(_LOOK_S)
        received, deadline_s = b"", time.monotonic() + 2 * _ARRIVE_S
        while len(received) < len(expected):
            try:
                piece = self._connection.recv(len(expected) - len(received))
            except TimeoutError:
                if time.monotonic() > deadline_s or not may_go_on():
                    return False
                continue
            except OSError:
                return False
            if not piece:
                return False
            received += piece
        return received == expected


def _tell(connections: Iterable[socket.socket], text: bytes) -> None:
    """Send this to all that are still there."""
    for connection in connections:
        with suppress(OSError):
            connection.sendall(text)


def _connect(ports: Mapping[str, int]) -> tuple[socket.socket, str]:
    error = OSError("no address to connect to")
    for address, port in ports.items():
        try:
            return socket.create_connection((address, port), timeout=_CONNECT_S), address
        except OSError as refused:
            error = refused
    raise error
