"""The heartbeat: a TCP connection from every rank to rank 0, next to the collectives.

A collective that fails does not say which rank made it fail, and one that waits says nothing at all. Over the heartbeat
every rank reports once a second where it is. A connection that ends without a goodbye belongs to a process that was
killed, and rank 0 tells all others. A rank that cannot connect (a firewall) trains all the same; what it cannot do is
name the rank that it has lost.

The port is open while the ranks connect. Other clients cannot authenticate and are disconnected. A rank that reached
another program's port notices, because rank 0 has to authenticate as well.
"""

from __future__ import annotations

import hmac
import secrets
import socket
import time
from collections.abc import Sequence

from harness.comm import World
from harness.comm.addresses import LOOPBACK, addresses_towards, own_addresses
from harness.guard.link import Link
from harness.guard.listener import HeartbeatListener, proof

_CONNECT_S = 10.0  # in which a rank has to reach rank 0
_ATTEMPT_S = 5.0  # of that, for one address


def open_heartbeat(world: World) -> dict[int, Link]:
    """Connect every rank to rank 0; a collective.

    Returns:
        On rank 0 a link to every other rank that could connect, elsewhere one to rank 0.
    """
    if world.size == 1:
        return {}
    is_one_host = world.local_size == world.size
    hosts = [] if is_one_host else world.allgather_object(own_addresses(world.hostname), "heartbeat.addresses")
    listener = None
    opened: list[tuple[str, int]] = []
    secret = secrets.token_hex(16)
    if world.rank == 0:
        # on one host nobody outside needs to reach the port; on several it opens only towards the other ranks
        listener = HeartbeatListener([LOOPBACK] if is_one_host else addresses_towards(hosts), secret, world.size)
        opened = listener.addresses
    addresses, secret = world.broadcast_object((opened, secret), "heartbeat")
    link = None
    if listener is None:
        link = _connect([(host, port) for host, port in addresses], secret, world.rank)
    # rank 0 closes its port only after this collective, when every rank has connected or given up
    has_connected = world.allgather_object(link is not None, "heartbeat.connected")
    if listener is None:
        return {} if link is None else {0: link}
    links = {rank: Link(connection) for rank, connection in listener.close().items()}
    for rank in [rank for rank in links if not has_connected[rank]]:
        links.pop(rank).close()  # that rank gave up before it received the answer
    return links


def _connect(addresses: Sequence[tuple[str, int]], secret: str, rank: int) -> Link | None:
    """Reach rank 0 at one of its addresses; `None` if it cannot be reached, or another program answers there."""
    deadline_s = time.monotonic() + _CONNECT_S
    has_answer = True  # from rank 0 or from another program
    while has_answer and time.monotonic() < deadline_s:
        has_answer = False
        for address in addresses:
            left_s = deadline_s - time.monotonic()
            try:
                connection = socket.create_connection(address, timeout=max(0.01, min(_ATTEMPT_S, left_s)))
            except OSError:
                continue
            if _authenticate(connection, secret, rank, min(deadline_s, time.monotonic() + _ATTEMPT_S)):
                return Link(connection)
            connection.close()
            has_answer = True  # other clients may have crowded this rank out, so it tries again
        time.sleep(0.1)
    return None


def _authenticate(connection: socket.socket, secret: str, rank: int, deadline_s: float) -> bool:
    """Prove to rank 0 that this is a rank of the job, and verify that the other end is rank 0."""
    nonce = secrets.token_hex(16)
    expected = proof(secret, "root", rank, nonce) + b"\n"
    answer = b""
    try:
        connection.sendall(f"{rank} {nonce} ".encode() + proof(secret, "rank", rank, nonce) + b"\n")
        while len(answer) < len(expected) and time.monotonic() < deadline_s:
            connection.settimeout(max(0.01, deadline_s - time.monotonic()))
            received = connection.recv(len(expected) - len(answer))
            if not received:
                return False
            answer += received
    except OSError:
        return False
    return hmac.compare_digest(answer, expected)
