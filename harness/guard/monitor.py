"""The guard's thread: it always runs, whatever the main thread waits for, and takes every decision that cannot wait.

It sleeps in a selector until a signal or a message arrives, or a quarter of a second has passed. Then it decides, in
this order: does a signal end the process; what do the other ranks report; is it time to report, to leave, to end for a
known loss, or to declare a stall. All times are in `timing.py`.
"""

from __future__ import annotations

import os
import selectors
import signal
import threading
import time
import traceback
from typing import NoReturn

from harness.causes import Cause
from harness.comm import World
from harness.errors import StoppedOnRequestError
from harness.folder.outcome import OutcomeFiles
from harness.guard.departures import Departures
from harness.guard.ending import end_process, print_raw
from harness.guard.messages import Message
from harness.guard.peers import Peers
from harness.guard.signals import StopSignals
from harness.guard.stall import explain_end, explain_stall, ranks_behind
from harness.guard.this_rank import Activity, ThisRank
from harness.guard.timing import (
    ACKNOWLEDGE_S,
    GRACE_S,
    GRACE_WITHOUT_ERROR_S,
    PERIOD_S,
    SILENT_AFTER_S,
    STATUS_EVERY_S,
)
from harness.interrupts import stopped_before_start

_MAX_TRACEBACKS = 3


class Monitor:
    """Runs beside the training from `start` to `stop`; it may end the process."""

    def __init__(
        self,
        world: World,
        this_rank: ThisRank,
        peers: Peers,
        departures: Departures,
        signals: StopSignals,
        files: OutcomeFiles,
    ) -> None:
        """Nothing runs yet; everything is shared with the `Guard` of the same rank."""
        self._world, self._this_rank, self._peers, self._departures = world, this_rank, peers, departures
        self._signals, self._files = signals, files
        self._reported_s = 0.0
        self._stalled_s: float | None = None  # since when this rank knows that it makes no progress
        self._is_ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="guard", daemon=True)

    def start(self) -> None:
        """Begin to monitor."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and wait for that."""
        self._is_ending.set()
        self._signals.wake()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            if self._signals.socket.fileno() >= 0:
                selector.register(self._signals.socket, selectors.EVENT_READ, None)
            for rank in self._peers:
                selector.register(self._peers[rank].link.socket, selectors.EVENT_READ, rank)
            failures, wait_s = 0, 0.0  # at once, so a rank that is lost at once is known by its process and host
            while not self._is_ending.is_set():
                try:
                    for key, _ in selector.select(wait_s):
                        if key.data is None:
                            self._handle_signal()
                        elif self._receive(key.data):
                            selector.unregister(key.fileobj)
                    self._check_time(time.monotonic())
                except Exception:  # a bug in here must not leave the training without a guard
                    failures += 1
                    if failures <= _MAX_TRACEBACKS:
                        rank = self._world.rank
                        print_raw(f"error: rank {rank}: the guard itself failed:\n{traceback.format_exc()}")
                    time.sleep(PERIOD_S)
                wait_s = PERIOD_S

    # --- signals ---

    def _handle_signal(self) -> None:
        """A stop request: at once while there is nothing to lose, else the next update carries it to all ranks."""
        self._signals.receive()
        if self._signals.received is not None and self._this_rank.stop_at_once_if_allowed():
            self._stop_at_once(self._signals.received)
        elif self._signals.repeated is not None:
            cause = Cause(f"{self._signals.repeated} a second time: stopped at once, nothing was saved")
            self._departures.announce(cause)
            print_raw(f"error: rank {self._world.rank}: {cause.text}\n")
            time.sleep(PERIOD_S)
            os._exit(128 + signal.Signals[self._signals.repeated])

    def _stop_at_once(self, signal_name: str) -> None:
        """End before the first update: as soon as the others know why (`_check_time`)."""
        if self._this_rank.exit_deadline_s is not None:
            return
        self._this_rank.exit_deadline_s = time.monotonic() + ACKNOWLEDGE_S
        text = stopped_before_start(signal_name, self._world.rank if self._world.size > 1 else None)
        cause = Cause(text, StoppedOnRequestError.exit_code)
        self._departures.known.learn(cause)
        self._files.write(cause.exit_code, text)
        self._departures.announce(cause)
        print_raw(f"{text}\n")

    # --- messages ---

    def _receive(self, rank: int) -> bool:
        """Act on what another rank has sent; whether its connection is closed."""
        peer = self._peers[rank]
        messages, is_closed = peer.link.receive()
        if messages:
            peer.heard_s = time.monotonic()
        for message in messages:
            if message.activity is not None:
                peer.status = message
            if message.goodbye or message.left is not None:
                peer.has_left = True
            if message.acknowledged:
                peer.has_acknowledged = True
            if message.lost is not None:
                self._departures.hear_of(message.cause(message.lost), rank)
            if message.left is not None:
                self._departures.hear_of(message.cause(message.reason_of(f"rank {rank}")), rank)
            if message.end is not None:
                self._end(message.cause(message.end))
            if message.stalled and self._world.rank == 0:  # rank 0 alone hears from all, so it names the culprit
                self._declare_stall()
        if is_closed and not peer.has_left:  # without a goodbye: the process was killed, or its host went down
            peer.has_left = True
            self._departures.hear_of(Cause(explain_end(rank, peer.status)), rank)
        return is_closed

    # --- time ---

    def _check_time(self, now_s: float) -> None:
        """Decide whatever does not begin with a message."""
        if now_s - self._reported_s > STATUS_EVERY_S:
            self._report(now_s)
        self._departures.confirm()
        known = self._departures.known
        # This rank leaves by itself. Its main thread should end the process; this is in case it hangs.
        deadline_s = self._this_rank.exit_deadline_s
        if deadline_s is not None:
            is_time = now_s > deadline_s or (self._this_rank.is_stopping and self._departures.is_acknowledged.is_set())
            if known.cause is not None and is_time:
                os._exit(known.cause.exit_code)
            return
        # Another rank is lost. Where collectives fail for that, the main thread hears of it and leaves in good order;
        # where they wait for ever, there is no point in waiting with them.
        if known.cause is not None:
            if self._departures.is_survived(known.cause):
                self._world.cut()  # the main thread hears of it at its next collective, and finds another world
                return
            if now_s - known.since_s > (GRACE_S if self._world.fails_when_lost else GRACE_WITHOUT_ERROR_S):
                self._end(known.cause)
            return
        # Nobody is lost, but this rank makes no progress. Rank 0 decides; if it does not, or is silent, this rank does.
        activity = self._this_rank.activity
        if now_s - activity.since_s <= activity.limit_s:
            self._stalled_s = None
        elif self._stalled_s is None:
            self._stalled_s = now_s
            self._peers.send(Message(stalled=True))
        if self._stalled_s is None:
            return
        is_alone = now_s - self._stalled_s > SILENT_AFTER_S or 0 in self._peers.silent(now_s)
        if self._world.rank == 0 or is_alone:
            self._declare_stall()

    def _report(self, now_s: float) -> None:
        self._reported_s = now_s
        self._peers.send(self._this_rank.status())

    def _declare_stall(self) -> None:
        """Find out who holds the others up, tell all ranks, and end; or go on without those, where that is possible."""
        if self._departures.known.cause is not None:
            return
        activity = self._this_rank.activity
        statuses = {**self._peers.statuses(), self._world.rank: self._this_rank.status()}
        silent = self._peers.silent(time.monotonic())
        reasons = explain_stall(statuses, silent, self._world.rank)
        cause = Cause(f"stalled, {activity.limit_s:g} s without progress in {activity.description}: {reasons}")
        behind = [] if silent or self._world.rank else ranks_behind(statuses, silent)
        if self._world.membership is not None and not (silent or behind) and self._may_yet_hear(activity):
            return
        if self._world.membership is None or not (silent or behind):
            self._end(cause, Message(end=cause.text))
        if self._world.rank in behind:
            self._end(cause)
        self._world.membership.suspect(silent)
        for rank in behind:
            self._peers[rank].link.send(Message(end=cause.text))
        self._departures.go_on_without(cause)

    def _may_yet_hear(self, activity: Activity) -> bool:
        """Whether it is too early to end a job that could go on without the culprit: it may only just have frozen.

        Rank 0 waits until it would be silent; the others twice as long, because rank 0 may yet say who it is.
        """
        stalled_s = time.monotonic() - activity.since_s - activity.limit_s
        return stalled_s < SILENT_AFTER_S * (1 if self._world.rank == 0 else 2)

    def _end(self, cause: Cause, last_message: Message | None = None) -> NoReturn:
        end_process(
            cause,
            world=self._world,
            this_rank=self._this_rank,
            peers=self._peers,
            files=self._files,
            last_message=last_message,
        )
