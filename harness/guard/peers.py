"""What a guard knows of its own rank and of each other one."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection
from typing import NamedTuple

from harness.comm import World
from harness.config import GuardConfig
from harness.guard.heartbeat import Link
from harness.guard.messages import Message


class Place(NamedTuple):
    """Where a rank is.

    Attributes:
        where: in words.
        since_s: when it came there, by this host's monotonic clock.
        limit_s: how long it may stay.
    """

    where: str
    since_s: float
    limit_s: float


class Peer:
    """What is known of another rank."""

    def __init__(self, link: Link) -> None:
        """It has just connected."""
        self.link = link
        self.heard_s = time.monotonic()
        self.told = Message()
        self.has_left = False
        self.has_noted = False  # the loss that it was told of


def wait_until_gone(peer: Peer, seconds: float) -> None:
    """Wait until a rank has ended, for so long at most; by the thread that otherwise listens to it."""
    deadline = time.monotonic() + seconds
    while not peer.has_left and time.monotonic() < deadline:
        peer.has_left = peer.link.receive()[1]
        time.sleep(0.05)


def wait_until_left(peers: Collection[Peer], seconds: float) -> None:
    """Wait until all ranks have said farewell or ended, for so long at most; another thread listens to them."""
    deadline = time.monotonic() + seconds
    while not all(peer.has_left for peer in peers) and time.monotonic() < deadline:
        time.sleep(0.05)


def limits_of(section: GuardConfig) -> dict[str, float]:
    """How long a rank may stay at one place, in seconds, by the kind of the place."""
    return {
        "first": section.stall_after_first_s,
        "update": section.stall_after_s,
        "evaluation": section.stall_after_evaluation_s,
    }


def position(world: World, place: str, main: int) -> Message:
    """What this rank tells of itself.

    Args:
        world: with the collective that was begun last.
        place: where the rank is, in words.
        main: the thread that trains.
    """
    frame = sys._current_frames().get(main)
    at = "?" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_name})"
    return Message(
        place=place,
        collective=world.last_collective,
        calls=world.num_collectives,
        at=at,
        process=f"pid {os.getpid()} on {world.hostname}",
    )
