"""How the ranks agree on why the job ends: one cause, known to every rank before the first process is gone.

A launcher may kill all ranks as soon as one has ended, so a rank that leaves waits until the others have written down
why. In order:

1. The rank sends `left` to rank 0. (Of a rank that was killed, rank 0 notices the closed connection.)
2. Rank 0 writes the cause into its files and sends `lost` to all.
3. Each rank writes it into its files and answers `acknowledged`.
4. When all others have answered, rank 0 acknowledges to the rank that leaves, which may end now.

Where several ranks fail at once, the weightiest cause counts (`harness/causes.py`), whoever hears of which first.
"""

from __future__ import annotations

import threading

from harness.causes import Cause, KnownCause
from harness.comm import World
from harness.folder.outcome import OutcomeFiles
from harness.guard.messages import Message
from harness.guard.peers import Peers
from harness.guard.this_rank import ThisRank


class Departures:
    """Why the job ends, as far as this rank knows, and whether the others know it too.

    Attributes:
        known: the cause that counts so far.
        is_known: set when this rank has heard of a cause that another rank reported.
        is_acknowledged: set when every other rank has written down the cause, or has left.
    """

    def __init__(self, world: World, this_rank: ThisRank, peers: Peers, files: OutcomeFiles) -> None:
        """Nobody has left."""
        self.known = KnownCause()
        self.is_known = threading.Event()
        self.is_acknowledged = threading.Event()
        self._world, self._this_rank, self._peers, self._files = world, this_rank, peers, files
        self._leaving_rank: int | None = None  # on rank 0: it waits for our acknowledgement

    def announce(self, cause: Cause) -> None:
        """Step 1: tell the others that this rank leaves, and why."""
        message = Message.leaving(cause, self._this_rank.activity.description)
        if self._world.rank == 0:  # is its own relay
            message = Message(
                lost=message.reason_of("rank 0"), exit_code=cause.exit_code, first=cause.first, goodbye=True
            )
        self._peers.send(message)

    def hear_of(self, cause: Cause, source: int) -> None:
        """Steps 2 and 3: write down why a rank has left, then pass it on (rank 0) or acknowledge it.

        Args:
            cause: why it left.
            source: the rank that this one heard it from.
        """
        is_new = self.known.learn(cause)
        if is_new and cause.first and not self.is_survived(cause):
            place, collective = self._this_rank.activity.description, self._world.last_collective
            self._files.write(cause.exit_code, cause.text, place=place, collective=collective)
        if is_new and self._world.rank == 0:
            self._leaving_rank = source
            self._peers.send(Message.losing(cause))
        else:
            self._peers[source].link.send(Message(acknowledged=True))
        if cause.first:
            self.is_known.set()

    def go_on_without(self, cause: Cause) -> None:
        """Tell the others that ranks which can be done without do not go on, and remember it."""
        self.known.learn(cause)
        self._peers.send(Message.losing(cause))
        self.is_known.set()

    def is_survived(self, cause: Cause) -> bool:
        """Whether the others go on without the rank that this befell, so that nothing has to be written."""
        return self._world.membership is not None and cause.spares_others

    def confirm(self) -> None:
        """Step 4, as soon as all have answered; also before anybody has left, where it changes nothing."""
        if not self._peers.have_acknowledged(but=self._leaving_rank):
            return
        self.is_acknowledged.set()
        if self._leaving_rank is not None and self._leaving_rank in self._peers:
            self._peers[self._leaving_rank].link.send(Message(acknowledged=True))
        self._leaving_rank = None
