"""Where ranks come to rank 0: the port is open to everybody, and only who knows the job's secret gets in.

The secret went to the ranks by a collective and never crosses this connection: each side proves that it knows it, by a
keyed hash of what the other one cannot have heard before. Strangers are served beside the ranks, a bounded number of
them for a bounded time, so that one who is silent, slow or rude costs nobody but himself.
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

_HELLO_S = 5.0  # in which a caller has to introduce himself
_LONGEST_HELLO = 256
_MOST_CALLERS = 64  # who have not introduced themselves; one more, and the oldest is hung up on


class _Caller(NamedTuple):
    connection: socket.socket
    until: float
    said: bytearray


class Door:
    """Takes the connections of ranks, in a thread, until all have come or it is closed.

    Attributes:
        places: address and port of each interface at which ranks may come.
    """

    def __init__(
        self, addresses: Sequence[str], token: str, size: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Open it; an address that is not to be had is left out.

        Args:
            addresses: of the interfaces in use.
            token: the job's secret.
            size: of the world; rank 0 needs no connection.
            clock: seconds; for tests.
        """
        self._token, self._size, self._clock = token, size, clock
        self._listeners: list[socket.socket] = []
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with suppress(OSError):
                self._listeners.append(socket.create_server((address, 0), family=family, backlog=max(128, size)))
        self.places = [(str(one.getsockname()[0]), int(one.getsockname()[1])) for one in self._listeners]
        self._callers: dict[int, _Caller] = {}  # by file descriptor, the oldest first
        self._ranks: dict[int, socket.socket] = {}
        self._bell, self._listening = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="door", daemon=True)
        self._thread.start()

    def close(self) -> dict[int, socket.socket]:
        """Let nobody else in.

        Returns:
            The connection of each rank that has come.
        """
        self._bell.close()
        self._thread.join()
        return self._ranks

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listening, selectors.EVENT_READ)
            for listener in self._listeners:
                listener.setblocking(False)
                selector.register(listener, selectors.EVENT_READ)
            while len(self._ranks) < self._size - 1:
                ready = [key.fileobj for key, _ in selector.select(0.5)]
                if self._listening in ready:
                    break
                for one in ready:
                    if one in self._listeners:
                        self._take_callers(one, selector)
                    else:
                        self._listen_to(one, selector)
                for caller in [caller for caller in self._callers.values() if self._clock() > caller.until]:
                    self._hang_up(caller, selector)
            for caller in list(self._callers.values()):
                self._hang_up(caller, selector)
        for one in (*self._listeners, self._listening):
            one.close()

    def _take_callers(self, listener: object, selector: selectors.BaseSelector) -> None:
        assert isinstance(listener, socket.socket)
        for _ in range(_MOST_CALLERS):
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # of a caller who has gone, or too many open files
                time.sleep(0.01)
                return
            connection.setblocking(False)
            if len(self._callers) >= _MOST_CALLERS:
                self._hang_up(next(iter(self._callers.values())), selector)
            self._callers[connection.fileno()] = _Caller(connection, self._clock() + _HELLO_S, bytearray())
            selector.register(connection, selectors.EVENT_READ)

    def _listen_to(self, connection: object, selector: selectors.BaseSelector) -> None:
        assert isinstance(connection, socket.socket)
        caller = self._callers.get(connection.fileno())
        if caller is None:  # hung up on a moment ago
            return
        try:
            received = connection.recv(_LONGEST_HELLO)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            received = b""
        caller.said.extend(received)
        line, ended, _ = bytes(caller.said).partition(b"\n")
        if not received or (ended and not self._let_in(connection, line, selector)) or len(line) > _LONGEST_HELLO:
            self._hang_up(caller, selector)

    def _let_in(self, connection: socket.socket, line: bytes, selector: selectors.BaseSelector) -> bool:
        """Whether the caller has proven to be a rank; then it is told that this is rank 0."""
        words = line.split(b" ")
        if len(words) != 3 or not words[0].isdigit() or len(words[0]) > 9 or not words[1].isalnum():
            return False
        rank, nonce = int(words[0]), words[1].decode("ascii")
        known = hmac.compare_digest(words[2], proof(self._token, "rank", rank, nonce))
        if not known or not 0 < rank < self._size:
            return False
        try:
            connection.send(proof(self._token, "root", rank, nonce) + b"\n")
        except OSError:
            return False
        selector.unregister(connection)
        del self._callers[connection.fileno()]
        if rank in self._ranks:
            self._ranks[rank].close()  # it gave up on that one, and came again
        self._ranks[rank] = connection
        return True

    def _hang_up(self, caller: _Caller, selector: selectors.BaseSelector) -> None:
        selector.unregister(caller.connection)
        del self._callers[caller.connection.fileno()]
        caller.connection.close()


def proof(token: str, who: str, rank: int, nonce: str) -> bytes:
    """What only a rank of this job can say.

    Args:
        token: the job's secret.
        who: `rank` or `root`, whose words are not the other's.
        rank: that connects.
        nonce: drawn by it for this one time.
    """
    return hmac.new(token.encode(), f"{who} {rank} {nonce}".encode(), "sha256").hexdigest().encode()
