"""Horovod under `mpirun` or `srun`: ranks find each other over mpi4py, and then talk over Gloo (or NCCL).

So Horovod need not be built for the cluster's MPI. What `horovodrun` does before it starts ranks, a server at which
they find each other and an environment that says where it is, happens here after they were started.
"""

from __future__ import annotations

import importlib
import os
import socket
from contextlib import suppress
from typing import Any

from harness.comm.mpi import MpiWorld
from harness.errors import ConfigError


class Bootstrap:
    """What lives as long as Horovod does: the ranks of MPI, and on rank 0 the server."""

    def __init__(self, world: MpiWorld) -> None:
        """Set the environment in which `hvd.init()` finds the ranks of `world`; a collective.

        Raises:
            ConfigError: on every rank, if Horovod is missing on any, or rank 0 cannot be reached from one.
        """
        world.agreed("horovod", _check_installed)
        self._world = world
        self._server: Any = None
        places = [(str(host), int(local)) for host, local in world.allgather_object(_place(world), "places")]
        said: list[Any] = []
        if world.rank == 0:
            self._server, port = _serve(places)
            said = [_addresses(), port]
        addresses, port = world.broadcast_object(said, "rendezvous")
        here = places[0][0] == places[world.rank][0]
        address, interface = world.agreed(
            "rendezvous", lambda: _reach(addresses, port, is_same_host=here and _is_one_host(places))
        )
        host, rank, local_rank, cross_rank, size, local_size, cross_size = slots(places)[world.rank]
        os.environ.update(
            HOROVOD_RANK=str(rank),
            HOROVOD_SIZE=str(size),
            HOROVOD_LOCAL_RANK=str(local_rank),
            HOROVOD_LOCAL_SIZE=str(local_size),
            HOROVOD_CROSS_RANK=str(cross_rank),
            HOROVOD_CROSS_SIZE=str(cross_size),
            HOROVOD_HOSTNAME=host,
            HOROVOD_GLOO_RENDEZVOUS_ADDR=address,
            HOROVOD_GLOO_RENDEZVOUS_PORT=str(port),
            HOROVOD_GLOO_IFACE=interface,
            HOROVOD_CONTROLLER="gloo",
            HOROVOD_CPU_OPERATIONS="gloo",
        )

    def close(self) -> None:
        """End the server and MPI; Horovod has shut down on this rank."""
        self._world.barrier("rendezvous")
        if self._server is not None:
            self._server.stop()
        self._world.close()


def slots(places: list[tuple[str, int]]) -> list[tuple[str, int, int, int, int, int, int]]:
    """Horovod's numbers of every rank: host, rank, local rank, cross rank, and the size of each of the three worlds.

    The cross world of a rank are the ranks with its local rank, one on each host.

    Args:
        places: host and local rank of each rank.

    >>> slots([("a", 0), ("b", 0), ("a", 1)])[2]
    ('a', 2, 1, 0, 3, 2, 1)
    """
    found = []
    for rank, (host, local) in enumerate(places):
        like = [other for other, other_local in places if other_local == local]
        local_size = sum(other == host for other, _ in places)
        found.append((host, rank, local, like.index(host), len(places), local_size, len(like)))
    return found


def _check_installed() -> None:
    try:
        importlib.import_module("horovod.mxnet")
    except ImportError as error:
        raise ConfigError(
            f"comm: horovod, but Horovod for MXNet cannot be imported ({error}); run `make setup`, or set comm: mpi"
        ) from error


def _place(world: MpiWorld) -> tuple[str, int]:
    return world.hostname, world.local_rank


def _is_one_host(places: list[tuple[str, int]]) -> bool:
    return len({host for host, _ in places}) == 1


def _serve(places: list[tuple[str, int]]) -> tuple[Any, int]:
    """The server at which Horovod's ranks find each other, and its port."""
    from horovod.runner.common.util.hosts import SlotInfo
    from horovod.runner.http.http_server import RendezvousServer

    server = RendezvousServer()
    port = server.start()
    server.init([SlotInfo(*slot) for slot in slots(places)])
    return server, port


def _addresses() -> list[str]:
    """The addresses of this host's interfaces, other than the one that leads to itself."""
    return [address for address, _ in _interfaces() if not address.startswith("127.")]


def _interfaces() -> list[tuple[str, str]]:
    import psutil  # one of Horovod's own requirements

    return [
        (entry.address, name)
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if entry.family == socket.AF_INET
    ]


def _reach(addresses: list[str], port: int, *, is_same_host: bool) -> tuple[str, str]:
    """An address at which rank 0 answers, and the interface through which it is reached."""
    for address in ["127.0.0.1"] if is_same_host else addresses:
        with suppress(OSError), socket.create_connection((address, port), timeout=5) as connection:
            own = connection.getsockname()[0]
            interface = next((name for known, name in _interfaces() if known == own), None)
            if interface is not None:
                return address, interface
    raise ConfigError(
        f"comm: horovod: rank 0 does not answer at port {port} of {', '.join(addresses) or 'any address'}; open the "
        "ports between the hosts"
    )
