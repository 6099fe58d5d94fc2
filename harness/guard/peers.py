"""What a guard knows of its own rank and of each other one."""

from __future__ import annotations

import time
from typing import NamedTuple

from harness.guard.lifeline import Link
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
