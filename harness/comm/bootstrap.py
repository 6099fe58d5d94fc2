"""Horovod under `mpirun` or `srun`: ranks find each other over mpi4py, and then talk over Gloo (or NCCL).

So Horovod need not be built for the cluster's MPI. What `horovodrun` does before it starts ranks, a server at which
they find each other and an environment that says where it is, happens here after they were started. The server is
closed as soon as they have.
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
    """What Horovod needs besides itself: the ranks of MPI and, until it has found its own, a server on rank 0."""

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
        places = [(str(host), int(local)) for host, local in world.allgather_object(_place(world), "places")]
        address, port, interface = self._meet(_is_one_host(places))
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

    def found(self) -> None:
        """End the server; Horovod has found its ranks, on this one. A collective."""
        self._world.barrier("rendezvous")
        if self._rendezvous is not None:
            self._rendezvous.stop()
            self._rendezvous = None
        self._world.barrier("rendezvous.closed")

    def close(self) -> None:
        """End MPI; Horovod has shut down on this rank."""
        self._world.barrier("rendezvous")
        self._world.close()

    def _meet(self, is_one_host: bool) -> tuple[str, int, str]:
        """Serve on rank 0 at the addresses through which ranks reach it; a collective.

        Returns:
            This rank's way to rank 0: its address, the port there, and the interface of this rank.
        """
        world = self._world
        listeners: dict[str, socket.socket] = {}
        if world.rank == 0:
            listeners = _listen_at([LOOPBACK] if is_one_host else _addresses())
        ports = {address: listener.getsockname()[1] for address, listener in listeners.items()}
        ports = world.broadcast_object(ports, "rendezvous")
        try:
            ways = world.agreed("rendezvous", lambda: _ways_to(ports))
            everyone = world.allgather_object(ways, "rendezvous.ways")
            chosen = [choose_way(list(ports), everyone, rank) for rank in range(world.size)]
            used = {address for address, _ in chosen}
            if world.rank == 0:
                kept = [listeners.pop(address) for address in list(listeners) if address in used]
                self._rendezvous = Rendezvous(kept, {own for _, own in chosen}, world.size)
        finally:
            for listener in listeners.values():
                listener.close()
        address, own = chosen[world.rank]
        return address, ports[address], dict(_interfaces())[own]


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


def choose_way(addresses: Sequence[str], ways: Sequence[Mapping[str, str]], rank: int) -> tuple[str, str]:
    """Which of rank 0's addresses a rank uses, and its own address on that way: the first one that all can reach.

    Ranks that meet at one address tell each other addresses of one network. Where there is none that all can reach,
    each takes the first that it can.

    Args:
        addresses: of rank 0, in its order.
        ways: of each rank, the addresses of rank 0 that it reaches, and its own address on that way.
        rank: that wants to know.

    >>> choose_way(["172.17.0.1", "10.0.0.1"], [{"172.17.0.1": "172.17.0.1", "10.0.0.1": "10.0.0.1"},
    ...                                         {"10.0.0.1": "10.0.0.2"}], rank=1)
    ('10.0.0.1', '10.0.0.2')
    """
    common = [address for address in addresses if all(address in way for way in ways)]
    address = next(iter(common), None) or next(address for address in addresses if address in ways[rank])
    return address, ways[rank][address]


def _listen_at(addresses: Sequence[str]) -> dict[str, socket.socket]:
    listeners = {}
    for address in addresses:
        with suppress(OSError):
            listeners[address] = listen(address)
    return listeners


def _addresses() -> list[str]:
    """The addresses of this host's interfaces; of those that others may reach, or of the one that somebody chose."""
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


def _ways_to(ports: Mapping[str, int]) -> dict[str, str]:
    """Of the addresses at which rank 0 listens those that answer, and this rank's own address on the way to each."""
    known = dict(_interfaces())
    with ThreadPoolExecutor(max(1, len(ports))) as threads:
        own = threads.map(_own_address, ports, ports.values())
    ways = {address: found for address, found in zip(ports, own, strict=True) if found in known}
    if not ways:
        places = ", ".join(f"{address}:{port}" for address, port in ports.items())
        raise ConfigError(
            f"comm: horovod: rank 0 does not answer at {places or 'any address'}; open the ports between the hosts; "
            "HOROVOD_GLOO_IFACE, if it is set, must name the interface that joins them"
        )
    return ways


def _own_address(address: str, port: int) -> str | None:
    with suppress(OSError), socket.create_connection((address, port), timeout=5) as connection:
        return str(connection.getsockname()[0])
    return None
