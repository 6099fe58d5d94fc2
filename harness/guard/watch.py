"""A thread beside the training that always answers: it takes signals, notices stalls, hears of ranks that left, ends.

Horovod's own stall check never fires with Gloo, a collective that fails names nobody, and a main thread that waits in
one runs no Python at all. So every rank tells the thread where it is (`tick`), and the threads talk over the lifeline.
"""

from __future__ import annotations

import faulthandler
import os
import selectors
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

from harness.comm import World
from harness.comm.compare import name_ranks
from harness.config import RunConfig
from harness.errors import StoppedOnRequestError
from harness.folder import AttemptBegun
from harness.guard.lifeline import Link, open_lifeline
from harness.guard.outcome import OutcomeFiles
from harness.guard.signals import StopSignals

_PERIOD_S = 0.25
_TELL_EVERY_S = 1.0
_SILENT_S = 5.0  # a rank that tells nothing for so long is not running
_GRACE_S = 8.0  # from the loss of a rank to the end of those that are left, whatever their main threads do
_GRACE_IN_VAIN_S = 1.0  # the same where main threads would never hear of it


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
        self.told: dict[str, Any] = {}
        self.has_left = False


class Guard:
    """Watches over one rank; `open` and `close` are collectives' business, so every rank does them.

    Attributes:
        files: in which it is told how the attempt ended.
    """

    def __init__(self, world: World, config: RunConfig, files: OutcomeFiles) -> None:
        """Nothing runs yet.

        Args:
            world: the ranks.
            config: its section `guard` has the limits.
            files: see `OutcomeFiles`.
        """
        section = config.guard
        self.files = files
        self._world = world
        self._limits = {
            "first": section.stall_after_first_s,
            "update": section.stall_after_s,
            "evaluation": section.stall_after_evaluation_s,
        }
        self._signals = StopSignals()
        self._place = Place("start", time.monotonic(), section.stall_after_first_s)
        self._peers: dict[int, Peer] = {}
        self._lost: str | None = None
        self._lost_s = 0.0
        self._grace_s = _GRACE_S if world.fails_when_lost else _GRACE_IN_VAIN_S
        self._heard_of_loss = threading.Event()
        self._told_s = 0.0
        self._stalled_s: float | None = None
        self._exit: tuple[float, int] | None = None
        self._ending = threading.Event()
        self._main = threading.main_thread().ident
        self._thread = threading.Thread(target=self._watch, name="guard", daemon=True)

    def open(self) -> None:
        """Take signals, connect to the other ranks, and begin to watch; a collective."""
        self._signals.open()
        self.files.announce()
        self._peers = {rank: Peer(link) for rank, link in open_lifeline(self._world).items()}
        self._thread.start()

    def settle(self, folder: Path, begun: AttemptBegun) -> None:
        """The run's folder is this attempt's now; how it begins is kept there."""
        self.files.settle(folder, begun)

    def tick(self, where: str, kind: str = "update") -> bool:
        """Say where this rank is.

        Args:
            where: in words, such as `iteration 50`.
            kind: whose limit holds from now on: `first`, `update` or `evaluation`.

        Returns:
            Whether this rank was told to stop.
        """
        self._place = Place(where, time.monotonic(), self._limits[kind])
        return self._signals.received is not None

    def stopped(self, where: str) -> StoppedOnRequestError:
        """The error with which every rank ends when it was asked to."""
        who = f" ({self._signals.received} to rank {self._world.rank})" if self._signals.received else ""
        return StoppedOnRequestError(f"stopped on request{who}: {where}").on_all_ranks()

    def cause_of_loss(self) -> str | None:
        """Which rank was lost and why, as soon as it is known, or which is silent; waits a second at most."""
        self._heard_of_loss.wait(1.0)
        return self._lost or "; ".join(self._silent(time.monotonic()).values()) or None

    def place(self) -> str:
        """Where this rank is, in words."""
        return self._place.where

    def leave(self, exit_code: int, cause: str, *, first: bool) -> None:
        """Tell the others that this rank leaves them, and see to it that it does even if something hangs.

        Args:
            exit_code: what the process will end with.
            cause: in words.
            first: whether it leaves by itself, and not because another one left.
        """
        self._exit = (time.monotonic() + _GRACE_S, exit_code)
        self._tell({"left": cause, "first": first, "place": self._place.where})
        time.sleep(_PERIOD_S)  # the words must be out before the process is

    def close(self) -> None:
        """Say farewell and stop watching; the job ends in good order."""
        self._tell({"bye": True})
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
            while not self._ending.is_set():
                for key, _ in selector.select(_PERIOD_S):
                    if key.data is None:
                        self._take_signal()
                    elif self._hear(key.data):
                        selector.unregister(key.fileobj)
                self._look(time.monotonic())

    def _take_signal(self) -> None:
        name = self._signals.read()
        if name is not None:
            cause = f"{name} a second time: stopped at once, nothing was saved"
            self._tell({"left": cause, "first": True, "place": self._place.where})
            _print(f"error: rank {self._world.rank}: {cause}\n")
            time.sleep(_PERIOD_S)
            os._exit(128 + signal.Signals[name])

    def _hear(self, rank: int) -> bool:
        """Take what a rank tells; whether it has gone."""
        peer = self._peers[rank]
        messages, gone = peer.link.receive()
        if messages:
            peer.heard_s = time.monotonic()
        for message in messages:
            if "place" in message:
                peer.told |= message
            if "bye" in message:
                peer.has_left = True
            if "lost" in message:
                self._lose(message["lost"], message["first"])
            if "left" in message:
                peer.has_left = True
                text = f"rank {rank} left in {_place_of(peer)}: {message['left']}"
                self._lose(text if message["first"] else message["left"], message["first"])
            if "end" in message:
                self._end(message["end"])
            if "stalled" in message and self._world.rank == 0:
                self._conclude()
        if gone and not peer.has_left:
            peer.has_left = True
            last = f"it was last heard of in {_place_of(peer)}"
            self._lose(f"rank {rank}{_process_of(peer)} was killed or lost its host; {last}", True)
        return gone

    def _lose(self, text: str, first: bool) -> None:
        """A rank is lost. The first to leave is the cause; that others left because of it explains nothing."""
        if self._lost is None:
            self._lost_s = time.monotonic()
        if self._lost is None or (first and not self._heard_of_loss.is_set()):
            self._lost = text
            if self._world.rank == 0:
                self._tell({"lost": text, "first": first})
        if first:
            self._heard_of_loss.set()

    def _look(self, now: float) -> None:
        """Whatever does not begin with a message."""
        if now - self._told_s > _TELL_EVERY_S:
            self._told_s = now
            self._tell({"place": self._place.where, **self._position(), "for_s": round(now - self._place.since_s, 1)})
        if self._exit is not None:
            if now > self._exit[0]:
                os._exit(self._exit[1])
            return
        if self._lost is not None:
            if now - self._lost_s > self._grace_s:
                self._end(self._lost)
            return
        if now - self._place.since_s > self._place.limit_s and self._stalled_s is None:
            self._stalled_s = now
            self._tell({"stalled": True})
        if self._stalled_s is not None and (self._world.rank == 0 or now - self._stalled_s > _SILENT_S):
            self._conclude()

    def _conclude(self) -> None:
        """There is a stall: find out who it is, tell all, end."""
        if self._lost is not None:
            return
        now = time.monotonic()
        own = {"place": self._place.where, **self._position()}
        told = {self._world.rank: own, **{rank: peer.told for rank, peer in self._peers.items()}}
        silent = self._silent(now)
        furthest = max(one.get("calls", 0) for one in told.values())
        behind = [rank for rank, one in told.items() if rank not in silent and one.get("calls", furthest) < furthest]
        waited = next((one["collective"] for one in told.values() if one.get("calls", 0) == furthest), "start")
        reasons = list(silent.values())
        reasons += [
            f"rank {rank} has not come to the collective {waited!r}; it is at {told[rank]['at']}, in "
            f"{told[rank]['place']}"
            for rank in behind
        ]
        if not reasons:
            reasons = [f"{name_ranks(sorted(told))} all wait; rank {self._world.rank} is at {own['at']}"]
        limit = f"{self._place.limit_s:g} s without progress in {self._place.where}"
        cause = f"stalled, {limit}: " + "; ".join(reasons)
        self._tell({"end": cause})
        self._end(cause)

    def _silent(self, now: float) -> dict[int, str]:
        """The ranks that do not run, or are out of reach, with what is known of each."""
        return {
            rank: f"rank {rank}{_process_of(peer)} has been silent for {now - peer.heard_s:.0f} s, last in "
            f"{_place_of(peer)}: it was stopped (SIGSTOP, a debugger), or its host cannot be reached"
            for rank, peer in self._peers.items()
            if now - peer.heard_s > _SILENT_S
        }

    def _position(self) -> dict[str, Any]:
        frame = sys._current_frames().get(self._main or 0)
        at = "?" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_name})"
        world = self._world
        return {
            "collective": world.last_collective,
            "calls": world.num_collectives,
            "at": at,
            "process": f"pid {os.getpid()} on {world.hostname}",
        }

    def _end(self, cause: str) -> None:
        """End this process with 7: stacks, files, a line on the terminal, and no clean-up that could hang."""
        world = self._world
        stacks = _stacks()
        text = f"rank {world.rank}, waiting in the collective {world.last_collective!r} in {self._place.where}: {cause}"
        self.files.write(7, cause, place=self._place.where, collective=world.last_collective, stacks=stacks)
        _print(f"error: {text}\n{stacks}")
        time.sleep(2 * _PERIOD_S)  # what was told must arrive before the connection ends
        os._exit(7)

    def _tell(self, message: dict[str, Any]) -> None:
        if self._world.rank == 0 and "left" in message:
            message = {"lost": f"rank 0 left in {self._place.where}: {message['left']}", "first": message["first"]}
        for peer in self._peers.values():
            peer.link.send(message)


class Unguarded:
    """What a library user has who brings no guard: nobody stops the run, nobody watches."""

    def settle(self, folder: Path, begun: AttemptBegun) -> None:
        """Nothing is written."""

    def tick(self, where: str, kind: str = "update") -> bool:
        """Nobody was told to stop."""
        return False

    def stopped(self, where: str) -> StoppedOnRequestError:
        """See `Guard`."""
        return StoppedOnRequestError(f"stopped on request: {where}").on_all_ranks()


def _place_of(peer: Peer) -> str:
    return str(peer.told.get("place", "start"))


def _process_of(peer: Peer) -> str:
    return f" ({peer.told['process']})" if "process" in peer.told else ""


def _stacks() -> str:
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read()


def _print(text: str) -> None:
    """Write past Python's buffers, whose locks the main thread may hold."""
    os.write(2, text.encode())
