"""The guard of one rank, as the training sees it: it reports progress, learns of departures, and leaves in good order.

Horovod's own stall check never fires with Gloo, a collective that fails names nobody, and a main thread that waits in
one executes no Python. So each rank has a second thread (`monitor.py`), and the second threads talk to each other over
connections of their own (`heartbeat.py`). This file is the main thread's side, from top to bottom in the order in which
a job calls it: `open`; `defer_stops` and `use_folder` before anything is changed; `enter` and `stop_requested` before
every update; then `begin_shutdown` and `close` if all ranks end together, or `leave` if this rank fails alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.causes import Cause
from harness.comm import World
from harness.config import GuardConfig
from harness.errors import LostRankError, StoppedOnRequestError
from harness.folder import AttemptStart, WorldChange
from harness.folder.outcome import OutcomeFiles
from harness.guard.departures import Departures
from harness.guard.messages import Message
from harness.guard.monitor import Monitor
from harness.guard.peers import Peers
from harness.guard.signals import StopSignals, explain_requests
from harness.guard.startup import Startup
from harness.guard.this_rank import ThisRank, stall_limits
from harness.guard.timing import ACKNOWLEDGE_S, GRACE_S, PERIOD_S

_WAIT_FOR_CAUSE_S = 1.0


class Guard:
    """Watches over one rank; every rank has one.

    Attributes:
        files: that say how the attempt ended.
    """

    def __init__(
        self,
        world: World,
        limits: GuardConfig,
        files: OutcomeFiles,
        startup: Startup | None = None,
        signals: StopSignals | None = None,
    ) -> None:
        """Nothing runs yet.

        Args:
            world: the ranks.
            limits: how long an activity may take.
            files: see `OutcomeFiles`.
            startup: watches until this guard does, and has the signal handlers.
            signals: those to take where there is no `startup`; by default those that a run takes.
        """
        self.files = files
        self._world = world
        self._limits = stall_limits(limits)
        self._startup = startup
        self._signals = startup.signals if startup else signals or StopSignals()
        self._this_rank = ThisRank(world, self._limits["first"])
        self._peers = Peers(world)
        self._departures = Departures(world, self._this_rank, self._peers, files)
        self._monitor = Monitor(world, self._this_rank, self._peers, self._departures, self._signals, files)

    def open(self) -> None:
        """Install signal handlers, connect to the other ranks, and start to monitor; a collective."""
        self._signals.open()
        self.files.announce()
        self._peers.connect()
        if self._startup is not None:
            self._startup.close()  # only now: until here it was the one to notice that a rank does not come
        self._this_rank.restart_clock()
        self._monitor.start()

    def use_folder(self, folder: Path, start: AttemptStart, page: Callable[[], object] | None = None) -> AttemptStart:
        """This attempt owns the run's folder now: it records there how it began, and `page` shows how it ends.

        Returns:
            The start as it is recorded.
        """
        return self.files.use_folder(folder, start, page)

    def continue_in(self, folder: Path, change: WorldChange, page: Callable[[], object] | None = None) -> None:
        """The run's folder is this attempt's already: record how its workers have changed."""
        self.files.continue_in(folder, change, page)

    def defer_stops(self) -> None:
        """The run is about to change something: from now on a signal only sets `stop_requested`.

        Until then it ends the process at once, because there is nothing to save.
        """
        if self._this_rank.forbid_immediate_stop():
            time.sleep(GRACE_S)  # too late: the monitor is about to end the process

    def enter(self, activity: str, kind: str = "update") -> None:
        """Report progress: what this rank does from now on, until the next call.

        Args:
            activity: such as `iteration 50`.
            kind: which limit it has: `first`, `update` or `evaluation`.
        """
        self._this_rank.begin(activity, self._limits[kind])

    @property
    def stop_requested(self) -> bool:
        """Whether this rank has received a signal that asks the job to stop."""
        return self._signals.received is not None

    @property
    def stop_signal(self) -> str | None:
        """The name of that signal."""
        return self._signals.received

    @property
    def stop_requested_for_s(self) -> float:
        """How long ago that was; 0 if it has received none."""
        return self._signals.received_for_s

    def stopped(self, state: str, by: str = "") -> StoppedOnRequestError:
        """The error with which every rank ends when the run was asked to stop; a collective.

        A signal reaches one rank, or some. Every rank's message names which, for rank 0 prints for all.

        Args:
            state: says what is saved.
            by: who has asked this rank besides a signal.
        """
        everyone = self._world.allgather_object([self._signals.received, by], "stop")
        requests = explain_requests([received for received, _ in everyone], [other for _, other in everyone])
        return StoppedOnRequestError(f"stopped on request{requests}: {state}").on_all_ranks()

    @contextmanager
    def outside(self, activity: str) -> Iterator[None]:
        """Code that is not the harness's runs in the block: named if it hangs, and signals are taken again afterwards.

        Args:
            activity: what it is; the limit is that of what this rank did until then, whose clock begins anew.
        """
        before = self._this_rank.activity
        self._this_rank.begin(activity, before.limit_s)
        try:
            yield
        finally:
            self._signals.reinstall()
            self._this_rank.begin(before.description, before.limit_s)

    def activity(self) -> str:
        """What this rank is doing."""
        return self._this_rank.activity.description

    def known_departure(self) -> Cause | None:
        """Why another rank has left, if this one has heard of it."""
        return self._departures.known.cause

    def cause_of_departure(self) -> Cause | None:
        """Which rank was lost and why, or which one is silent; waits up to a second for the heartbeat to tell."""
        self._departures.is_known.wait(_WAIT_FOR_CAUSE_S)
        silent = "; ".join(self._peers.silent(time.monotonic()).values())
        return self._departures.known.cause or (Cause(silent) if silent else None)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Replace the error of a collective that failed because another rank left by the error of that rank.

        Raises:
            HarnessError: of the cause's class, with its text.
        """
        try:
            yield
        except LostRankError as error:
            cause = self.cause_of_departure()
            if cause is None or cause.exit_code == LostRankError.exit_code:
                raise
            raise cause.error() from error

    def leave(self, cause: Cause) -> int:
        """This rank leaves the job alone: tell the others, and make sure that the process ends even if it hangs.

        Returns when the others have written down why, for a launcher may kill them as soon as this process has ended.

        Args:
            cause: why; a consequence if another rank left first.

        Returns:
            What the process has to end with: another rank may have left at the same time for a weightier reason.
        """
        self._this_rank.exit_deadline_s = time.monotonic() + GRACE_S
        self._departures.known.learn(cause)
        self._departures.announce(cause)
        if cause.first and len(self._peers):
            self._departures.is_acknowledged.wait(ACKNOWLEDGE_S)
        time.sleep(PERIOD_S)  # the message must be out before the process is
        # launchers of MPI kill all ranks when one ends, and the others have yet to say why they end
        if cause.first and not self._world.fails_when_lost:
            self._peers.wait_until_all_left(GRACE_S)
        self._world.abandon()
        return (self._departures.known.cause or cause).exit_code

    def begin_shutdown(self, cause: Cause | None = None) -> None:
        """All ranks end together, for this cause or because they are done; a rank may still be lost while they wait."""
        self._this_rank.forbid_immediate_stop()
        self._this_rank.shutdown_cause = cause
        self._this_rank.begin("the end", self._limits["update"])

    def close(self) -> None:
        """Say goodbye and stop monitoring, when all ranks have come to their end."""
        self.let_go()
        self._signals.close()

    def is_told_to_stop(self) -> bool:
        """Whether this rank has received a signal, also where nobody monitors."""
        self._signals.receive()
        return self.stop_requested

    def let_go(self) -> StopSignals:
        """Stop monitoring these ranks; returns the signals of this process, which are still handled."""
        self._peers.send(Message(goodbye=True))
        self._monitor.stop()
        self._peers.close()
        return self._signals
