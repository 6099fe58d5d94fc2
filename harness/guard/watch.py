"""A thread beside the training that always answers: it takes signals, notices stalls, hears of ranks that left, ends.

Horovod's own stall check never fires with Gloo, a collective that fails names nobody, and a main thread that waits in
one runs no Python at all. So every rank tells the thread where it is (`tick`), and the threads talk over the lifeline.
"""

from __future__ import annotations

import os
import selectors
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.causes import Cause, KnownCause, joined
from harness.comm import World
from harness.config import RunConfig
from harness.errors import LostRankError, StoppedOnRequestError
from harness.folder import AttemptBegun
from harness.folder.outcome import OutcomeFiles
from harness.guard.heartbeat import open_heartbeat
from harness.guard.messages import Message
from harness.guard.peers import Peer, Place, limits_of, position, wait_until_gone, wait_until_left
from harness.guard.signals import StopSignals
from harness.guard.stall import explain_end, explain_stall, say, stacks, who_is_silent
from harness.guard.startup import Startup
from harness.interrupts import leave_job

_PERIOD_S = 0.25
_TELL_EVERY_S = 1.0
_SILENT_S = 5.0  # a rank that tells nothing for so long is not running
_GRACE_S = 8.0  # from the loss of a rank to the end of those that are left, whatever their main threads do
_GRACE_IN_VAIN_S = 1.0  # the same where main threads would never hear of it
_NOTED_S = 4.0  # in which the others write down why a rank leaves


class Guard:
    """Watches over one rank; `open` and `close` are collectives' business, so every rank does them.

    Attributes:
        files: in which it is told how the attempt ended.
    """

    def __init__(self, world: World, config: RunConfig, files: OutcomeFiles, startup: Startup | None = None) -> None:
        """Nothing runs yet.

        Args:
            world: the ranks.
            config: its section `guard` has the limits.
            files: see `OutcomeFiles`.
            startup: watches until this guard does, and has taken the signals.
        """
        section = config.guard
        self.files = files
        self._world = world
        self._limits = limits_of(section)
        self._startup = startup
        self._signals = startup.signals if startup else StopSignals()
        self._may_stop_at_once = True  # until something is changed that must be left in order
        self._place = Place("start", time.monotonic(), section.stall_after_first_s)
        self._peers: dict[int, Peer] = {}
        self._known = KnownCause()
        self._parting: Cause | None = None  # why all ranks end
        self._grace_s = _GRACE_S if world.fails_when_lost else _GRACE_IN_VAIN_S
        self._heard_of_loss = threading.Event()
        self._all_noted = threading.Event()
        self._leaver: int | None = None  # on rank 0: the rank that waits until all others know why it leaves
        self._told_s = 0.0
        self._stalled_s: float | None = None
        self._exit_s: float | None = None  # when this rank, which leaves, has to be gone
        self._deciding = threading.Lock()
        self._is_stopping = False
        self._ending = threading.Event()
        self._main = threading.main_thread().ident or 0
        self._thread = threading.Thread(target=self._watch, name="guard", daemon=True)

    def open(self) -> None:
        """Take signals, connect to the other ranks, and begin to watch; a collective."""
        self._signals.open()
        self.files.announce()
        self._peers = {rank: Peer(link) for rank, link in open_heartbeat(self._world).items()}
        if self._startup is not None:
            self._startup.close()
        self._place = self._place._replace(since_s=time.monotonic())
        self._thread.start()

    def settle(self, folder: Path, begun: AttemptBegun, page: Callable[[], object] | None = None) -> None:
        """The run's folder is this attempt's now; how it begins is kept there, and `page` shows how it ends."""
        self.files.settle(folder, begun, page)

    def tick(self, where: str, kind: str = "update") -> bool:
        """Say where this rank is. From the first time on, the wish to stop is no longer followed at once.

        Args:
            where: in words, such as `iteration 50`.
            kind: whose limit holds from now on: `first`, `update` or `evaluation`.

        Returns:
            Whether this rank was told to stop.
        """
        with self._deciding:
            self._may_stop_at_once = False
        if self._is_stopping:
            time.sleep(_GRACE_S)  # the guard's thread ends the process
        self._place = Place(where, time.monotonic(), self._limits[kind])
        return self._signals.received is not None

    def stopped(self, where: str) -> StoppedOnRequestError:
        """The error with which every rank ends when it was asked to."""
        who = f" ({self._signals.received} to rank {self._world.rank})" if self._signals.received else ""
        return StoppedOnRequestError(f"stopped on request{who}: {where}").on_all_ranks()

    def known_loss(self) -> Cause | None:
        """Why another rank has left, if this one has heard of it."""
        return self._known.cause

    def cause_of_loss(self) -> Cause | None:
        """Which rank was lost and why, as soon as it is known, or which is silent; waits a second at most."""
        self._heard_of_loss.wait(1.0)
        silent = "; ".join(self._silent(time.monotonic()).values())
        return self._known.cause or (Cause(silent) if silent else None)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn the error of a collective that another rank's end has broken into the error which that one left with.

        Raises:
            HarnessError: of the cause's class, in its words.
        """
        try:
            yield
        except LostRankError as error:
            cause = self.cause_of_loss()
            if cause is None or cause.exit_code == LostRankError.exit_code:
                raise
            raise cause.error() from error

    def place(self) -> str:
        """Where this rank is, in words."""
        return self._place.where

    def leave(self, cause: Cause) -> int:
        """Tell the others that this rank leaves them, and see to it that it does even if something hangs.

        Returns when the others have written down why, for their launcher may end them as soon as this one has ended.

        Args:
            cause: why; a consequence if another one left.

        Returns:
            What the process has to end with: another rank may have left at the same time for a weightier reason.
        """
        self._exit_s = time.monotonic() + _GRACE_S
        self._known.take(cause)
        self._tell(Message(left=cause.text, code=cause.exit_code, first=cause.first, place=self._place.where))
        if cause.first and self._peers:
            self._all_noted.wait(_NOTED_S)
        time.sleep(_PERIOD_S)  # the words must be out before the process is
        # a launcher of MPI ends all at once, and the others have still to say why they end
        if cause.first and not self._world.fails_when_lost:
            wait_until_left(self._peers.values(), _GRACE_S)
        return (self._known.cause or cause).exit_code

    def part(self, cause: Cause | None = None) -> None:
        """All ranks end, for this cause or with their work done: from now on this one only waits for the others."""
        with self._deciding:
            self._may_stop_at_once = False
        self._parting = cause
        self._place = Place("the end", time.monotonic(), self._limits["update"])

    def close(self) -> None:
        """Say farewell and stop watching, once all ranks have come to their end; the job ends in good order."""
        self._tell(Message(bye=True))
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()
        self._signals.close()
        for peer in self._peers.values():
            peer.link.close()

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            if self._signals.socket.fileno() >= 0:
                selector.register(self._signals.socket, selectors.EVENT_READ, None)
            for rank, peer in self._peers.items():
                selector.register(peer.link.socket, selectors.EVENT_READ, rank)
            failures = 0
            while not self._ending.is_set():
                try:
                    self._turn(selector)
                except Exception:
                    failures += 1
                    if failures <= 3:
                        say(f"error: rank {self._world.rank}: the guard itself failed:\n{traceback.format_exc()}")
                    time.sleep(_PERIOD_S)

    def _turn(self, selector: selectors.BaseSelector) -> None:
        for key, _ in selector.select(_PERIOD_S):
            if key.data is None:
                self._take_signal()
            elif self._hear(key.data):
                selector.unregister(key.fileobj)
        self._look(time.monotonic())

    def _take_signal(self) -> None:
        name = self._signals.read()
        with self._deciding:
            self._is_stopping |= self._may_stop_at_once and self._signals.received is not None
        if self._is_stopping:
            self._stop_at_once()
        elif name is not None:
            cause = f"{name} a second time: stopped at once, nothing was saved"
            self._tell(Message(left=cause, first=True, place=self._place.where))
            say(f"error: rank {self._world.rank}: {cause}\n")
            time.sleep(_PERIOD_S)
            os._exit(128 + signal.Signals[name])

    def _stop_at_once(self) -> None:
        """Nothing is written yet: end, as soon as the others know why."""
        if self._exit_s is not None:
            return
        self._exit_s = time.monotonic() + _NOTED_S
        who = f" to rank {self._world.rank}" if self._world.size > 1 else ""
        text = f"stopped on request ({self._signals.received}{who}) before the first update; nothing was changed"
        cause = Cause(text, StoppedOnRequestError.exit_code)
        self._known.take(cause)
        self.files.write(cause.exit_code, text)
        self._tell(Message(left=text, code=cause.exit_code, first=True, place=self._place.where))
        say(f"{text}\n")

    def _hear(self, rank: int) -> bool:
        """Whether a rank has gone, of which what it tells is taken."""
        peer = self._peers[rank]
        messages, gone = peer.link.receive()
        if messages:
            peer.heard_s = time.monotonic()
        for message in messages:
            if message.place is not None:
                peer.told = message
            if message.bye or message.left is not None:
                peer.has_left = True
            if message.heard:
                peer.has_noted = True
            if message.lost is not None:
                self._lose(message.cause(message.lost), rank)
            if message.left is not None:
                self._lose(message.cause(message.of(f"rank {rank}")), rank)
            if message.end is not None:
                self._end(message.cause(message.end))
            if message.stalled and self._world.rank == 0:
                self._conclude()
        if gone and not peer.has_left:
            peer.has_left = True
            self._lose(Cause(explain_end(rank, peer.told)), rank)
        return gone

    def _lose(self, cause: Cause, source: int) -> None:
        """A rank is lost, as another one tells: write down why, at once, and answer that it is written."""
        is_news = self._known.take(cause)
        if is_news and cause.first:
            self.files.write(
                cause.exit_code, cause.text, place=self._place.where, collective=self._world.last_collective
            )
        if is_news and self._world.rank == 0:
            self._leaver = source  # is answered once the others have answered
            self._tell(Message(lost=cause.text, code=cause.exit_code, first=cause.first))
        else:
            self._peers[source].link.send(Message(heard=True))
        if cause.first:
            self._heard_of_loss.set()

    def _look(self, now: float) -> None:
        """Whatever does not begin with a message."""
        if now - self._told_s > _TELL_EVERY_S:
            self._told_s = now
            self._tell(position(self._world, self._place.where, self._main))
        if all(peer.has_noted or peer.has_left for rank, peer in self._peers.items() if rank != self._leaver):
            self._all_noted.set()
            if self._leaver is not None and self._leaver in self._peers:
                self._peers[self._leaver].link.send(Message(heard=True))
            self._leaver = None
        if self._exit_s is not None:
            is_time = now > self._exit_s or (self._is_stopping and self._all_noted.is_set())
            if self._known.cause is not None and is_time:
                os._exit(self._known.cause.exit_code)
            return
        if self._known.cause is not None:
            if now - self._known.since_s > self._grace_s:
                self._end(self._known.cause)
            return
        if now - self._place.since_s > self._place.limit_s and self._stalled_s is None:
            self._stalled_s = now
            self._tell(Message(stalled=True))
        if self._stalled_s is not None and (self._world.rank == 0 or now - self._stalled_s > _SILENT_S):
            self._conclude()

    def _conclude(self) -> None:
        """There is a stall: find out who it is, tell all, end."""
        if self._known.cause is not None:
            return
        told = {rank: peer.told for rank, peer in self._peers.items()}
        told[self._world.rank] = position(self._world, self._place.where, self._main)
        reasons = explain_stall(told, self._silent(time.monotonic()), self._world.rank)
        cause = f"stalled, {self._place.limit_s:g} s without progress in {self._place.where}: {reasons}"
        self._end(Cause(cause), Message(end=cause))

    def _silent(self, now: float) -> dict[int, str]:
        silent_s = {rank: now - peer.heard_s for rank, peer in self._peers.items() if not peer.has_left}
        return who_is_silent({rank: peer.told for rank, peer in self._peers.items()}, silent_s, _SILENT_S)

    def _end(self, cause: Cause, farewell: Message | None = None) -> None:
        """End this process: files, a line on the terminal, stacks of a loss, and no clean-up that could hang.

        The page comes before the farewell: once another rank has ended, a launcher gives this one no time.
        """
        world, cause = self._world, joined(self._parting, cause)
        found, called = stacks(), world.last_collective
        self.files.write(cause.exit_code, cause.text, place=self._place.where, collective=called, stacks=found)
        self.files.draw()
        if farewell is not None:
            self._tell(farewell)
        shown = found if cause.exit_code == LostRankError.exit_code else ""
        place = f"the collective {called!r} in {self._place.where}"
        say(f"error: rank {world.rank}, waiting in {place}: {cause.text}\n{shown}")
        time.sleep(2 * _PERIOD_S)  # what was told must arrive before the connection ends
        root = self._peers.get(0)
        if root is not None and not world.fails_when_lost and time.monotonic() - root.heard_s < _SILENT_S:
            wait_until_gone(root, _GRACE_S)  # it may have a page to write, and MPI's launchers end all at once
        # of two ranks, MPICH's launcher takes the code of the first; of more it mixes in what it killed
        (leave_job if world.size > 2 else os._exit)(cause.exit_code)

    def _tell(self, message: Message) -> None:
        if self._world.rank == 0 and message.left is not None:
            message = Message(lost=message.of("rank 0"), code=message.code, first=message.first, bye=True)
        for peer in self._peers.values():
            peer.link.send(message)
