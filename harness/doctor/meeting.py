"""Times how ranks find and connect each other before there is a world, over TCP. Every rank calls this."""

from __future__ import annotations

import math
import socket
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack

from harness.comm import World
from harness.comm.addresses import LOOPBACK
from harness.comm.launcher_store import LauncherStore
from harness.comm.rendezvous import Rendezvous
from harness.comm.routes import listen, listen_at, reachable_addresses, routes_to

_QUESTIONS = 200  # of each rank
_MESHES = 20
_PATIENCE_S = 10.0


def measure_meeting(world: World) -> tuple[float, float] | None:
    """Seconds for each question at one server that all ranks ask at once, and for each connection of a mesh.

    The server is that by which Horovod's ranks find each other under MPI. `None` if a rank cannot reach rank 0 or
    another rank over TCP.
    """
    is_one_host = world.local_size == world.size
    at = listen_at([LOOPBACK] if is_one_host else reachable_addresses()) if world.rank == 0 else {}
    ports = world.broadcast_object({address: one.getsockname()[1] for address, one in at.items()}, "doctor.ports")
    routes = routes_to(ports)
    everyone = world.allgather_object(routes, "doctor.routes")
    peers = {own for one in everyone for own in one.values()}
    server = Rendezvous(list(at.values()), peers, world.size) if world.rank == 0 else None
    try:
        if not all(everyone):
            return None
        address, own = next(iter(routes.items()))
        ask_s = _ask(world, LauncherStore(address, ports[address], "global"))
    finally:
        if server is not None:
            server.stop()
    times = [_connect(world, own) for _ in range(_MESHES)]
    own_s = statistics.median(times)
    slowest_s = float(max(world.allgather_object(own_s, "doctor.mesh")))
    return (ask_s, slowest_s / (world.size - 1)) if math.isfinite(slowest_s) else None


def _ask(world: World, store: LauncherStore) -> float:
    """Seconds for each question, those of all ranks counted."""
    key = str(world.rank)
    store.put(key, b"here")
    world.barrier("doctor.ask")
    began = time.perf_counter()
    for _ in range(_QUESTIONS):
        store.get(key, 100)
    taken = world.allgather_object(time.perf_counter() - began, "doctor.asked")
    return float(max(taken)) / (_QUESTIONS * world.size)


def _connect(world: World, own: str) -> float:
    """Seconds for this rank to be connected with all others; infinity if it is not."""
    with listen(own) as listener:
        listener.settimeout(_PATIENCE_S)
        everyone = world.allgather_object(listener.getsockname()[:2], "doctor.listeners")
        began = time.perf_counter()
        try:
            _mesh(world.rank, listener, everyone)
        except OSError:
            return math.inf
        finally:
            world.barrier("doctor.connected")
        return time.perf_counter() - began


def _mesh(rank: int, listener: socket.socket, everyone: Sequence[tuple[str, int]]) -> None:
    """Connect with every lower rank, accept every higher one, and exchange a byte with each."""
    with ExitStack() as stack:
        lower = [stack.enter_context(socket.create_connection(at, _PATIENCE_S)) for at in everyone[:rank]]
        for one in lower:
            one.sendall(b"1")
        for _ in everyone[rank + 1 :]:
            one = stack.enter_context(listener.accept()[0])
            one.settimeout(_PATIENCE_S)
            one.recv(1)
            one.sendall(b"1")
        for one in lower:
            one.recv(1)
