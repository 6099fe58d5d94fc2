"""The addresses of this host, and which of them lead to another one. Standard library alone, no ranks."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress

LOOPBACK = "127.0.0.1"


def family_of(address: str) -> socket.AddressFamily:
    """IPv6 for an address with colons, else IPv4."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def is_loopback(address: str) -> bool:
    """Whether an address leads back to the host that uses it."""
    return address.startswith("127.") or address == "::1"


def source_address(target: str) -> str:
    """This host's address in packets to another one, empty if there is no route; nothing is sent."""
    with suppress(OSError), socket.socket(family_of(target), socket.SOCK_DGRAM) as probe:
        probe.connect((target, 9))
        return str(probe.getsockname()[0])
    return ""


def own_addresses(hostname: str) -> list[str]:
    """Addresses at which other hosts may reach this one: those of its name, and of its interfaces with a route."""
    found = []
    with suppress(OSError):
        found += [str(info[4][0]) for info in socket.getaddrinfo(hostname, None, type=socket.SOCK_STREAM)]
    found += [source_address(target) for target in ("10.255.255.255", "192.168.255.255", "8.8.8.8")]
    return [address for address in dict.fromkeys(found) if address and not is_loopback(address)]


def addresses_towards(everyone: Sequence[Sequence[str]]) -> list[str]:
    """Rank 0's addresses on the way to the other ranks; its own addresses where there is no route.

    Args:
        everyone: the addresses of each rank's host, rank 0's first.
    """
    others = dict.fromkeys(address for addresses in everyone[1:] for address in addresses)
    sources = [source_address(address) for address in others]
    found = [address for address in dict.fromkeys(sources) if address and not is_loopback(address)]
    return found or list(everyone[0]) or [LOOPBACK]
