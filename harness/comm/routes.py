"""By which addresses ranks reach rank 0, and by which of its own each rank does. Opens sockets; knows no ranks."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from harness.comm.addresses import is_loopback

_CONNECT_S = 5.0


def listen(address: str) -> socket.socket:
    """A listener at a free port of one address of this host.

    Raises:
        OSError: if the address is not this host's.
    """
    return socket.create_server((address, 0), backlog=128)


def listen_at(addresses: Sequence[str]) -> dict[str, socket.socket]:
    """Listeners by their addresses; an address that cannot be bound is left out."""
    listeners = {}
    for address in addresses:
        with suppress(OSError):
            listeners[address] = listen(address)
    return listeners


def reachable_addresses() -> list[str]:
    """The addresses of this host's interfaces that others may reach, or of the one that HOROVOD_GLOO_IFACE names."""
    chosen = os.environ.get("HOROVOD_GLOO_IFACE")
    return [address for address, name in interfaces() if (name == chosen if chosen else not is_loopback(address))]


def interfaces() -> list[tuple[str, str]]:
    """The IPv4 addresses of this host, and the interface of each."""
    import psutil  # one of Horovod's own requirements

    return [
        (entry.address, name)
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if entry.family == socket.AF_INET
    ]


def routes_to(ports: Mapping[str, int]) -> dict[str, str]:
    """The addresses of rank 0 that answer, and this rank's own address on the route to each.

    Args:
        ports: at which rank 0 listens, by address.
    """
    known = dict(interfaces())
    with ThreadPoolExecutor(max(1, len(ports))) as threads:
        own = threads.map(_own_address, ports, ports.values())
    return {address: found for address, found in zip(ports, own, strict=True) if found in known}


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


def _own_address(address: str, port: int) -> str | None:
    with suppress(OSError), socket.create_connection((address, port), timeout=_CONNECT_S) as connection:
        return str(connection.getsockname()[0])
    return None
