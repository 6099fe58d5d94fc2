"""A TCP connection from every rank to rank 0, apart from the collectives: who is there, where, and who left why.

A collective that fails does not say which rank failed it, and one that waits says nothing at all. Over the lifeline
each rank tells where it is; a connection that ends without a farewell is a process that was killed; rank 0 tells all.
A rank that cannot connect (a firewall) trains all the same and is only less well told.

The port is open for as long as ranks connect. Whoever else comes there proves nothing and is hung up on; a rank that
reached somebody else's port notices, because rank 0 has to prove itself as well.
"""

from __future__ import annotations

import hmac
import secrets
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from harness.comm import World
from harness.guard.door import Door, proof
from harness.guard.messages import LONGEST, Message

_REACH_S = 10.0  # in which a rank has to reach rank 0
_TRY_S = 5.0  # of that, for one address
_MOST_BYTES = 1 << 22  # taken at a time, so that a peer who never stops does not keep the thread


class Link:
    """One end of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        """Take a connected socket."""
        connection.setblocking(False)
        self.socket = connection
        self._waiting = b""
        self._unsent = b""
        self._sending = threading.Lock()  # the main thread speaks too, when it ends

    def send(self, message: Message) -> None:
        """Send without ever waiting; to a peer that does not read, messages pile up to a megabyte and are lost then."""
        with self._sending, suppress(OSError):
            if len(self._unsent) < LONGEST:
                self._unsent += message.encode()
            while self._unsent:
                self._unsent = self._unsent[self.socket.send(self._unsent) :]

    def receive(self) -> tuple[list[Message], bool]:
        """The messages that have come, and whether the other end has gone."""
        gone = False
        taken = 0
        try:
            while taken < _MOST_BYTES:
                received = self.socket.recv(65536)
                if not received:
                    gone = True
                    break
                taken += len(received)
                self._waiting += received
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            gone = True
        *lines, self._waiting = self._waiting.split(b"\n")
        if len(self._waiting) > LONGEST:
            self._waiting = b""  # no message is so long
        found = [Message.decode(line) for line in lines if len(line) <= LONGEST]
        return [message for message in found if message is not None], gone

    def close(self) -> None:
        """Hang up."""
        self.socket.close()


def open_heartbeat(world: World) -> dict[int, Link]:
    """Connect; a collective.

    Returns:
        On rank 0 a link to every other rank that could connect, elsewhere one to rank 0.
    """
    if world.size == 1:
        return {}
    one_host = world.local_size == world.size
    everyone = [] if one_host else world.allgather_object(_addresses(world.hostname), "lifeline.addresses")
    door = None
    said: list[tuple[str, int]] = []
    token = secrets.token_hex(16)
    if world.rank == 0:
        door = Door(["127.0.0.1"] if one_host else _facing(everyone), token, world.size)
        said = door.places
    places, token = world.broadcast_object((said, token), "lifeline")
    link = None if door is not None else _connect([(address, port) for address, port in places], token, world)
    connected = world.allgather_object(link is not None, "lifeline.connected")
    if door is None:
        return {} if link is None else {0: link}
    links = {rank: Link(connection) for rank, connection in door.close().items()}
    for rank in [rank for rank in links if not connected[rank]]:
        links.pop(rank).close()  # it gave up before it heard the answer
    return links


def _connect(places: Sequence[tuple[str, int]], token: str, world: World) -> Link | None:
    """Reach rank 0 at one of its addresses; `None` if it cannot be reached, or somebody else answers there."""
    deadline = time.monotonic() + _REACH_S
    answered = True  # by anybody
    while answered and time.monotonic() < deadline:
        answered = False
        for place in places:
            left_s = deadline - time.monotonic()
            try:
                connection = socket.create_connection(place, timeout=max(0.01, min(_TRY_S, left_s)))
            except OSError:
                continue
            if _introduce(connection, token, world.rank, min(deadline, time.monotonic() + _TRY_S)):
                return Link(connection)
            connection.close()
            answered = True  # so many rebound_gradients may be there that rank 0 has hung up on this one
        time.sleep(0.1)
    return None


def _introduce(connection: socket.socket, token: str, rank: int, deadline: float) -> bool:
    """Prove to rank 0 who this is, and make sure that it is rank 0."""
    nonce = secrets.token_hex(16)
    wanted = proof(token, "root", rank, nonce) + b"\n"
    answer = b""
    try:
        connection.sendall(f"{rank} {nonce} ".encode() + proof(token, "rank", rank, nonce) + b"\n")
        while len(answer) < len(wanted) and time.monotonic() < deadline:
            connection.settimeout(max(0.01, deadline - time.monotonic()))
            received = connection.recv(len(wanted) - len(answer))
            if not received:
                return False
            answer += received
    except OSError:
        return False
    return hmac.compare_digest(answer, wanted)


def _addresses(hostname: str) -> list[str]:
    """Where this host may be reached, other than from itself: by the addresses of its interfaces."""
    found = []
    with suppress(OSError):
        found += [str(info[4][0]) for info in socket.getaddrinfo(hostname, None, type=socket.SOCK_STREAM)]
    found += [_source(target) for target in ("10.255.255.255", "192.168.255.255", "8.8.8.8")]
    return [address for address in dict.fromkeys(found) if address and not _is_own(address)]


def _facing(everyone: Sequence[Sequence[str]]) -> list[str]:
    """The addresses of this host on the way to the others, who told theirs; rank 0's own where there is no way."""
    others = dict.fromkeys(address for addresses in everyone[1:] for address in addresses)
    sources = [_source(address) for address in others]
    found = [address for address in dict.fromkeys(sources) if address and not _is_own(address)]
    return found or list(everyone[0]) or ["127.0.0.1"]


def _source(target: str) -> str:
    """The own address that packets to another one would carry; nothing is sent."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((target, 9))
        return str(probe.getsockname()[0])
    return ""


def _is_own(address: str) -> bool:
    return address.startswith("127.") or address == "::1"
