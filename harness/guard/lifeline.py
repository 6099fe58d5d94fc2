"""A TCP connection from every rank to rank 0, apart from the collectives: who is there, where, and who left why.

A collective that fails does not say which rank failed it, and one that waits says nothing at all. Over the lifeline
each rank tells where it is; a connection that ends without a farewell is a process that was killed; rank 0 tells all.
Messages are JSON, a line each. A rank that cannot connect (a firewall) trains all the same and is only less well told.
"""

from __future__ import annotations

import json
import secrets
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from harness.comm import World

_CONNECT_S = 5.0
_LONGEST = 1 << 20


class Link:
    """One end of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        """Take a connected socket."""
        connection.setblocking(False)
        self.socket = connection
        self._waiting = b""
        self._unsent = b""
        self._sending = threading.Lock()  # the main thread speaks too, when it ends

    def send(self, message: Mapping[str, Any]) -> None:
        """Send without ever waiting; to a peer that does not read, messages pile up to a megabyte and are lost then."""
        with self._sending, suppress(OSError):
            if len(self._unsent) < _LONGEST:
                self._unsent += json.dumps(message).encode() + b"\n"
            while self._unsent:
                self._unsent = self._unsent[self.socket.send(self._unsent) :]

    def receive(self) -> tuple[list[dict[str, Any]], bool]:
        """The messages that have come, and whether the other end has gone."""
        gone = False
        try:
            while len(self._waiting) < _LONGEST:
                received = self.socket.recv(65536)
                if not received:
                    gone = True
                    break
                self._waiting += received
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            gone = True
        *lines, self._waiting = self._waiting.split(b"\n")
        return [message for line in lines for message in _parse(line)], gone

    def close(self) -> None:
        """Hang up."""
        self.socket.close()


def open_lifeline(world: World) -> dict[int, Link]:
    """Connect; a collective.

    Returns:
        On rank 0 a link to every other rank that could connect, elsewhere one to rank 0.
    """
    if world.size == 1:
        return {}
    listener = None
    said: list[Any] = []
    if world.rank == 0:
        listener = socket.create_server(("", 0), backlog=world.size)
        said = [_addresses(world.hostname), listener.getsockname()[1], secrets.token_hex(16)]
    addresses, port, token = world.broadcast_object(said, "lifeline")
    if listener is None:
        connection = _connect(addresses, port, token, world)
        links = {} if connection is None else {0: connection}
    else:
        links = {}
    connected = world.allgather_object(bool(links), "lifeline.connected")
    if listener is not None:
        links = dict(_accept(listener, token, sum(connected)))
        listener.close()
    return links


def _connect(addresses: list[str], port: int, token: str, world: World) -> Link | None:
    here = addresses[0] == world.hostname
    for address in ["127.0.0.1", *addresses] if here else addresses:
        try:
            connection = socket.create_connection((address, port), timeout=_CONNECT_S)
            connection.sendall(f"{token} {world.rank}\n".encode())
        except OSError:
            continue
        return Link(connection)
    return None


def _accept(listener: socket.socket, token: str, count: int) -> Iterator[tuple[int, Link]]:
    """The links of ranks; strangers, who do not know the token, are hung up on."""
    listener.settimeout(_CONNECT_S)
    found = 0
    while found < count:
        try:
            connection, _ = listener.accept()
            connection.settimeout(_CONNECT_S)
            words = _read_line(connection).split()
        except OSError:
            return
        if len(words) == 2 and secrets.compare_digest(words[0], token) and words[1].isdigit():
            found += 1
            yield int(words[1]), Link(connection)
        else:
            connection.close()


def _read_line(connection: socket.socket) -> str:
    line = b""
    while not line.endswith(b"\n") and len(line) < 100:
        byte = connection.recv(1)
        if not byte:
            break
        line += byte
    return line.decode("ascii", "replace")


def _addresses(hostname: str) -> list[str]:
    """Where this host may be reached: by its name, by the addresses of its interfaces, from itself."""
    found = [hostname]
    with suppress(OSError):
        found += [str(info[4][0]) for info in socket.getaddrinfo(hostname, None, type=socket.SOCK_STREAM)]
    for target in ("10.255.255.255", "192.168.255.255", "8.8.8.8"):  # nothing is sent: it only picks an interface
        with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))
            found.append(probe.getsockname()[0])
    return list(dict.fromkeys([*found, "127.0.0.1"]))


def _parse(line: bytes) -> Iterator[dict[str, Any]]:
    try:
        message = json.loads(line)
    except ValueError:
        return
    if isinstance(message, dict):
        yield message
