"""Horovod under `mpirun` or `srun`: ranks find each other over mpi4py, and then talk over Gloo (or NCCL).

So Horovod need not be built for the cluster's MPI. `horovodrun` starts a server through which the ranks find each
other, and sets its address in their environment, before it starts them. Here the same happens after they were started.
The server is closed as soon as they have found each other.
"""

from __future__ import annotations

import importlib
import os
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from harness.comm.addresses import LOOPBACK, is_loopback
from harness.comm.mpi import MpiWorld
from harness.comm.rendezvous import Rendezvous, listen
from harness.errors import ConfigError


class Bootstrap:
    """What Horovod needs to start: the ranks of MPI and, until its own have found each other, a server on rank 0."""

    def __init__(self, world: MpiWorld) -> None:
        """Set the environment in which `hvd.init()` finds the ranks of `world`; a collective.

        Raises:
            ConfigError: on every rank, if Horovod is missing on any, or rank 0 cannot be reached from one.
        """
        try:
            world.agreed("horovod", _check_installed)
        except ConfigError:
            world.close()
            raise
        self._world = world
        self._rendezvous: Rendezvous | None = None
        hosts = [(str(host), int(local)) for host, local in world.allgather_object(_host_of(world), "hosts")]
        address, port, interface = self._open_rendezvous(_is_one_host(hosts))
        host, rank, local_rank, cross_rank, size, local_size, cross_size = slots(hosts)[world.rank]
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

    def close_rendezvous(self) -> None:
        """Close the server, when Horovod has connected its ranks; a collective."""
        self._world.barrier("rendezvous")
        if self._rendezvous is not None:
            self._rendezvous.stop()
            self._rendezvous = None
        self._world.barrier("rendezvous.closed")

    def close(self) -> None:
        """End MPI; Horovod has shut down on this rank."""
        self._world.barrier("rendezvous")
        self._world.close()

    def _open_rendezvous(self, is_one_host: bool) -> tuple[str, int, str]:
        """Open the server on rank 0, at the addresses by which ranks reach it; a collective.

        Returns:
            This rank's route to rank 0: the address and port there, and the interface of this rank.
        """
        world = self._world
        listeners: dict[str, socket.socket] = {}
        if world.rank == 0:
            listeners = _listen_at([LOOPBACK] if is_one_host else _addresses())
        ports = {address: listener.getsockname()[1] for address, listener in listeners.items()}
        ports = world.broadcast_object(ports, "rendezvous")
        try:
            routes = world.agreed("rendezvous", lambda: _routes_to(ports))
            everyone = world.allgather_object(routes, "rendezvous.routes")
            chosen = [choose_route(list(ports), everyone, rank) for rank in range(world.size)]
            used = {address for address, _ in chosen}
            if world.rank == 0:
                kept = [listeners.pop(address) for address in list(listeners) if address in used]
                self._rendezvous = Rendezvous(kept, {own for _, own in chosen}, world.size)
        finally:
            for listener in listeners.values():
                listener.close()
        address, own = chosen[world.rank]
        return address, ports[address], dict(_interfaces())[own]


def slots(hosts: list[tuple[str, int]]) -> list[tuple[str, int, int, int, int, int, int]]:
    """Horovod's numbers of every rank: host, rank, local rank, cross rank, and the size of each of the three worlds.

    The cross world of a rank are the ranks with its local rank, one on each host.

    Args:
        hosts: host and local rank of each rank.

    >>> slots([("a", 0), ("b", 0), ("a", 1)])[2]
    ('a', 2, 1, 0, 3, 2, 1)
    """
    found = []
    for rank, (host, local) in enumerate(hosts):
        like = [other for other, other_local in hosts if other_local == local]
        local_size = sum(other == host for other, _ in hosts)
        found.append((host, rank, local, like.index(host), len(hosts), local_size, len(like)))
    return found


def _check_installed() -> None:
    try:
        importlib.import_module("horovod.mxnet")
    except ImportError as error:
        raise ConfigError(
            f"comm: horovod, but Horovod for MXNet cannot be imported ({error}); run `make setup`, or set comm: mpi"
        ) from error


def _host_of(world: MpiWorld) -> tuple[str, int]:
    return world.hostname, world.local_rank


def _is_one_host(hosts: list[tuple[str, int]]) -> bool:
    return len({host for host, _ in hosts}) == 1


def choose_route(addresses: Sequence[str], routes: Sequence[Mapping[str, str]], rank: int) -> tuple[str, str]:
    """Which of rank 0's addresses a rank uses, and its own address on that route: the first that all can reach.

    Ranks that connect to one address exchange addresses of one network. If no address can be reached by all, each
    rank uses the first that it can reach.

    Args:
        addresses: of rank 0, in its order.
        routes: of each rank, the addresses of rank 0 that it reaches, and its own address on that route.
        rank: whose route this is.

    >>> choose_route(["172.17.0.1", "10.0.0.1"], [{"172.17.0.1": "172.17.0.1", "10.0.0.1": "10.0.0.1"},
    ...                                         {"10.0.0.1": "10.0.0.2"}], rank=1)
    ('10.0.0.1', '10.0.0.2')
    """
    common = [address for address in addresses if all(address in route for route in routes)]
    address = next(iter(common), None) or next(address for address in addresses if address in routes[rank])
    return address, routes[rank][address]


def _listen_at(addresses: Sequence[str]) -> dict[str, socket.socket]:
    listeners = {}
    for address in addresses:
        with suppress(OSError):
            listeners[address] = listen(address)
    return listeners


def _addresses() -> list[str]:
    """The addresses of this host's interfaces that others may reach, or of the one that HOROVOD_GLOO_IFACE names."""
    chosen = os.environ.get("HOROVOD_GLOO_IFACE")
    return [address for address, name in _interfaces() if (name == chosen if chosen else not is_loopback(address))]


def _interfaces() -> list[tuple[str, str]]:
    import psutil  # one of Horovod's own requirements

    return [
        (entry.address, name)
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if entry.family == socket.AF_INET
    ]


def _routes_to(ports: Mapping[str, int]) -> dict[str, str]:
    """The addresses of rank 0 that answer, and this rank's own address on the route to each."""
    known = dict(_interfaces())
    with ThreadPoolExecutor(max(1, len(ports))) as threads:
        own = threads.map(_own_address, ports, ports.values())
    routes = {address: found for address, found in zip(ports, own, strict=True) if found in known}
    if not routes:
        tried = ", ".join(f"{address}:{port}" for address, port in ports.items())
        raise ConfigError(
            f"comm: horovod: rank 0 does not answer at {tried or 'any address'}; open the ports between the hosts; "
            "HOROVOD_GLOO_IFACE, if it is set, must name the interface that joins them"
        )
    return routes


def _own_address(address: str, port: int) -> str | None:
    with suppress(OSError), socket.create_connection((address, port), timeout=5) as connection:
        return str(connection.getsockname()[0])
    return None
