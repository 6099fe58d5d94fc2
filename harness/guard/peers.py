"""The other ranks, as this one knows them from the heartbeat: on rank 0 all of them, elsewhere rank 0 alone."""

from __future__ import annotations

import time
from collections.abc import Iterator

from harness.comm import World
from harness.guard.heartbeat import open_heartbeat
from harness.guard.link import Link
from harness.guard.messages import Message
from harness.guard.stall import explain_silence
from harness.guard.timing import SILENT_AFTER_S

_POLL_S = 0.05


class Peer:
    """What is known of another rank.

    Attributes:
        link: to it.
        status: that it reported last.
        heard_s: when it was last heard from, by the monotonic clock.
        has_left: whether it has said goodbye, has said why it leaves, or was lost.
        has_acknowledged: whether it has written down the cause that it was told.
    """

    def __init__(self, link: Link) -> None:
        """It has just connected."""
        self.link = link
        self.status = Message()
        self.heard_s = time.monotonic()
        self.has_left = False
        self.has_acknowledged = False


class Peers:
    """All peers of this rank; none before `connect`, and none that could not be reached."""

    def __init__(self, world: World) -> None:
        """Nothing is connected yet."""
        self._world = world
        self._peers: dict[int, Peer] = {}

    def connect(self) -> None:
        """Open the heartbeat; a collective."""
        self._peers = {rank: Peer(link) for rank, link in open_heartbeat(self._world).items()}

    def __getitem__(self, rank: int) -> Peer:
        """One of them."""
        return self._peers[rank]

    def __iter__(self) -> Iterator[int]:
        """Their ranks."""
        return iter(self._peers)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._peers)

    def send(self, message: Message) -> None:
        """Send to every peer, without blocking."""
        for peer in self._peers.values():
            peer.link.send(message)

    def statuses(self) -> dict[int, Message]:
        """The last status of each."""
        return {rank: peer.status for rank, peer in self._peers.items()}

    def silent(self, now_s: float) -> dict[int, str]:
        """The ranks that should report and do not, with a sentence on each."""
        return {
            rank: explain_silence(rank, peer.status, now_s - peer.heard_s)
            for rank, peer in self._peers.items()
            if not peer.has_left and now_s - peer.heard_s > SILENT_AFTER_S
        }

    def have_acknowledged(self, but: int | None = None) -> bool:
        """Whether every peer knows the cause, or has left; `but` is not asked."""
        return all(peer.has_acknowledged or peer.has_left for rank, peer in self._peers.items() if rank != but)

    def wait_until_all_left(self, limit_s: float) -> None:
        """Wait until every peer has left, for so long at most; the guard's thread receives meanwhile."""
        deadline_s = time.monotonic() + limit_s
        while not all(peer.has_left for peer in self._peers.values()) and time.monotonic() < deadline_s:
            time.sleep(_POLL_S)

    def wait_until_root_closes(self, limit_s: float) -> None:
        """Wait until rank 0's process has ended, if it was running; called by the guard's thread, which receives."""
        root = self._peers.get(0)
        if root is None or time.monotonic() - root.heard_s > SILENT_AFTER_S:
            return
        deadline_s = time.monotonic() + limit_s
        while not root.has_left and time.monotonic() < deadline_s:
            root.has_left = root.link.receive()[1]
            time.sleep(_POLL_S)

    def close(self) -> None:
        """Close every link."""
        for peer in self._peers.values():
            peer.link.close()
