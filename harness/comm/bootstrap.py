"""Horovod under `mpirun` or `srun`: ranks find each other over mpi4py, and then talk over Gloo (or NCCL).

So Horovod need not be built for the cluster's MPI. `horovodrun` starts a server through which the ranks find each
other, and sets its address in their environment, before it starts them. Here the same happens after they were started.
The server is closed as soon as they have found each other.
"""

from __future__ import annotations

import importlib
import os
import socket
from collections.abc import Mapping

from harness.comm.addresses import LOOPBACK
from harness.comm.mpi import MpiWorld
from harness.comm.rendezvous import Rendezvous
from harness.comm.routes import choose_route, interfaces, listen_at, reachable_addresses, routes_to
from harness.errors import ConfigError
from harness.shipped import install_command


class Bootstrap:
    """What Horovod needs to start: the ranks of MPI and, until its own have found each other, a server on rank 0."""

    def __init__(self, world: MpiWorld) -> None:
        """Set the environment in which `hvd.init()` finds the ranks of `world`; a collective.

        Raises:
            ConfigError: on every rank, if Horovod or the address of its host is missing on any, or rank 0 cannot be
                reached from one.
        """
        try:
            world.agreed("horovod", _check_can_start)
        except ConfigError:
            world.close()
            raise
        self._world = world
        self._rendezvous: Rendezvous | None = None
        hosts = [(str(host), int(local)) for host, local in world.allgather_object(_host_of(world), "hosts")]
        address, port, interface = self._open_rendezvous(_is_one_host(hosts))
        set_slot(hosts, world.rank, address, port)
        os.environ.update(
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
            listeners = listen_at([LOOPBACK] if is_one_host else reachable_addresses())
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
        return address, ports[address], dict(interfaces())[own]


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


def set_slot(hosts: list[tuple[str, int]], rank: int, address: str, port: int) -> None:
    """Set the environment in which `hvd.init()` finds a rank's numbers, and where the ranks find each other.

    Args:
        hosts: host and local rank of each rank.
        rank: the one that this process is.
        address: of the rendezvous.
        port: its port.
    """
    host, rank, local_rank, cross_rank, size, local_size, cross_size = slots(hosts)[rank]
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
    )


def not_installed(error: ImportError) -> ConfigError:
    """The error of a job that needs Horovod where it cannot be imported."""
    return ConfigError(
        f"Horovod for MXNet cannot be imported ({error}), and `comm: horovod`, `sum: engine` and GPUs under a launcher "
        f"need it: build it with `{install_command('horovod')}`, or leave `comm: auto` and start ranks on CPUs with "
        "mpirun"
    )


def check_host_name() -> None:
    """Gloo looks up the name of this host, and aborts with a segmentation fault if it has no address.

    Raises:
        ConfigError: if it has none.
    """
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, None)
    except OSError as error:
        raise ConfigError(
            f"the host name {name} does not resolve ({error.strerror}), and Horovod's collectives need it: add "
            f"'127.0.1.1 {name}' to /etc/hosts, or leave `comm: auto`, by which MPI sums on CPUs"
        ) from error


def _check_can_start() -> None:
    try:
        importlib.import_module("horovod.mxnet")
    except ImportError as error:
        raise not_installed(error) from error
    check_host_name()


def _host_of(world: MpiWorld) -> tuple[str, int]:
    return world.hostname, world.local_rank


def _is_one_host(hosts: list[tuple[str, int]]) -> bool:
    return len({host for host, _ in hosts}) == 1


def _routes_to(ports: Mapping[str, int]) -> dict[str, str]:
    routes = routes_to(ports)
    if not routes:
        tried = ", ".join(f"{address}:{port}" for address, port in ports.items())
        raise ConfigError(
            f"comm: horovod: rank 0 does not answer at {tried or 'any address'}; open the ports between the hosts; "
            "HOROVOD_GLOO_IFACE, if it is set, must name the interface that joins them"
        )
    return routes
