"""One end of a heartbeat connection: sends and receives messages, and never waits for the other end."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from harness.guard.messages import MAX_BYTES, Message

_MAX_RECEIVED_BYTES = 1 << 22  # taken at a time, so that a peer that never stops sending cannot keep the thread


class Link:
    """A connected socket that carries messages.

    Attributes:
        socket: to wait for in a selector.
    """

    def __init__(self, connection: socket.socket) -> None:
        """Take a connected socket."""
        connection.setblocking(False)
        self.socket = connection
        self._incomplete = b""  # what was received after the last newline
        self._unsent = b""
        self._sending = threading.Lock()  # the guard's thread sends, and the main thread when the rank leaves

    def send(self, message: Message) -> None:
        """Send without blocking; for a peer that does not read, up to a megabyte is buffered and the rest is lost."""
        with self._sending, suppress(OSError):
            if len(self._unsent) < MAX_BYTES:
                self._unsent += message.encode()
            while self._unsent:
                self._unsent = self._unsent[self.socket.send(self._unsent) :]

    def receive(self) -> tuple[list[Message], bool]:
        """The messages that have arrived, and whether the other end has closed the connection."""
        is_closed = False
        taken = 0
        try:
            while taken < _MAX_RECEIVED_BYTES:
                received = self.socket.recv(65536)
                if not received:
                    is_closed = True
                    break
                taken += len(received)
                self._incomplete += received
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            is_closed = True
        *lines, self._incomplete = self._incomplete.split(b"\n")
        if len(self._incomplete) > MAX_BYTES:
            self._incomplete = b""  # no message is this long
        found = [Message.decode(line) for line in lines if len(line) <= MAX_BYTES]
        return [message for message in found if message is not None], is_closed

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()
