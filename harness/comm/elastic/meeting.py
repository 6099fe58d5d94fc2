"""Who becomes a rank of the next world: those that have the state meet, and the first of them decides."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from harness.comm.elastic.connecting import Connector
from harness.comm.elastic.notices import HAVE_STATE, Notice, Roster, choose_members
from harness.comm.elastic.pulse import SILENT_S, Pulses, end_silent, is_here
from harness.comm.elastic.usher import Slot, Usher
from harness.comm.world import JobOverError, World
from harness.errors import LostRankError, StoppedOnRequestError

POLL_S = 0.01
_LATE_S = 3.0  # after which a process that has said nothing is not waited for
_AGAIN_S = 4.0  # after which the driver is asked again who is left
_FORLORN_S = 20.0  # after which a process does not hope any longer that others come back that have a state
_SEEK_S = 1.0  # between two looks for one that has
_LOOK_S = 0.5  # between two looks at who is silent
_SETTLE_S = 60.0  # after which a worker that is done does not wait for those of others
_UNANSWERED_S = SILENT_S + 1.0  # after which those who are left meet without the driver's answer


class RemovedError(StoppedOnRequestError):
    """This worker has to leave, and the others go on without it."""


class Meeting:
    """Finds rosters that this process is on.

    Attributes:
        most: how many ranks there can be.
        wait_s: how long to wait for enough workers.
        has_given_up: whether it has waited for that long.
        members: of the last world.
        call_of_update: how often the driver had been asked when the last update began.
        may_wait: is called while this process waits for others; raises if it should not.
    """

    def __init__(self, usher: Usher, slot: Slot, connector: Connector, pulses: Pulses) -> None:
        """Nobody is looked for yet.

        Args:
            usher: of this process.
            slot: of this process.
            connector: listens for the others, if this process decides.
            pulses: of all processes.
        """
        self._usher, self._slot, self._connector, self._pulses = usher, slot, connector, pulses
        self.may_wait: Callable[[], None] = lambda: None
        self.most = usher.numbers.size
        self.wait_s = 600.0
        self.has_given_up = False
        self.call_of_update = 0
        self.members: Sequence[Notice] = ()
        self._looked_s = self._seen_s = 0.0

    def first(self, after: int = 0) -> Roster | None:
        """The first roster of a later generation with this process; `None` if others have a state, or the job is over.

        Args:
            after: the generation of a world that this process could not connect with the others.
        """
        call, since_s = self._usher.numbers.call, time.monotonic()
        while True:
            self.check()
            if self._usher.look_for_end() is not None:
                return None
            notices, roster = self._usher.notices(), self._usher.roster()
            if roster is not None and roster.generation > after and roster.rank_of(self._usher.notice.uid) is not None:
                return roster
            if any(one is not None and one.phase != "new" for one in notices):
                return None
            self._decide(after + 1, notices, may_be_late=False)
            call, since_s = self._call_again(call, since_s)
            time.sleep(POLL_S)

    def meet(self, generation: int, iteration: int) -> Roster:
        """The roster of a world of at least this generation with this process, which has the state of an iteration."""
        self._usher.post(phase="meeting", generation=generation, iteration=iteration)
        begun_s = since_s = time.monotonic()
        call = self._usher.numbers.call
        while True:
            self.check()
            roster = self._usher.roster()
            if roster is not None and roster.generation >= generation:
                if roster.rank_of(self._usher.notice.uid) is not None:
                    return roster
                self._usher.post(phase="prepared", iteration=None)  # the others have gone on without this one
                return self.wait_for_invitation(roster.generation)
            call, since_s = self._call_again(call, since_s)
            self._decide(generation, self._usher.notices(), may_be_late=time.monotonic() - since_s > _LATE_S)
            self._limit(begun_s)
            time.sleep(POLL_S)

    def _call_again(self, call: int, since_s: float) -> tuple[int, float]:
        """Ask the driver again if there is no roster for long: somebody is waited for who is not there any more.

        Args:
            call: how often the driver had answered when this process began to wait.
            since_s: when that was.

        Returns:
            Both, as they are now.
        """
        now_s, newest = time.monotonic(), self._usher.numbers.call
        if newest == call and now_s - since_s <= _AGAIN_S:
            return call, since_s
        if newest == call:
            self._usher.call()
        return newest, now_s

    def _decide(self, generation: int, notices: Sequence[Notice | None], *, may_be_late: bool) -> None:
        """Write the roster, if that is up to this process.

        Nobody of the last world is late: the driver may have forgotten what one has said that has frozen since. It has
        the lock of the run's folder if it was the first, so it is ended before the others go on.
        """
        if self._usher.numbers.rank < 0:
            return
        silent = self._end_silent([*self.members, *notices])
        heard = {one.uid for one in notices if one is not None}
        is_late = may_be_late and {one.uid for one in self.members} <= heard | silent
        there = [one for one in notices if one is None or one.uid not in silent]
        own = next((number for number, one in enumerate(there) if one and one.uid == self._usher.notice.uid), None)
        chosen = None if own is None else choose_members(there, own, self.most, is_late=is_late)
        if chosen is None:
            return
        generation = max(generation, *(one.generation for one in chosen))
        self._usher.publish(self._connector.listen(Roster(generation, chosen)))

    def wait_for_invitation(self, after: int = 0) -> Roster:
        """The first roster of a later generation with this process, which has no state.

        Raises:
            JobOverError: if the job ends before; and as `check_others`.
        """
        self._seen_s = time.monotonic()
        while True:
            self.check_others()
            roster = self._usher.roster()
            is_new = roster is not None and roster.generation > after
            if roster is not None and is_new and roster.rank_of(self._usher.notice.uid) is not None:
                return roster
            time.sleep(10 * POLL_S)

    def wait_for_offer(self) -> bytes:
        """What another has offered, for a process that joins.

        Raises:
            JobOverError: if the job ends before; and as `check_others`.
        """
        self._seen_s = time.monotonic()
        while True:
            self.check_others()
            told = self._usher.job()
            if told:
                return told
            time.sleep(10 * POLL_S)

    def ask_driver(self) -> None:
        """Wait until the driver has said who is left.

        It cannot say so while a process is frozen, or its host cannot be reached. If that is on this machine it is
        ended here; otherwise those who are left meet without an answer, unless they are fewer than the launcher wants.

        Raises:
            LostRankError: if there is no answer for `wait_s`; and as `check`.
        """
        begun_s, call = time.monotonic(), self._usher.numbers.call
        if call > self.call_of_update:
            return  # another has noticed the loss before, and this process was asked meanwhile
        self._usher.call()
        while self._usher.numbers.call == call:
            self.check()
            # the driver may have forgotten what one of the last world has said
            known = {one.uid: one for one in (*self.members, *self._usher.notices()) if one is not None}
            silent = self._end_silent(list(known.values()))
            is_reached = all(is_here(known[uid].process) for uid in silent)
            least = max(one.least for one in (self._usher.notice, *known.values()))
            if not is_reached and len(known) - len(silent) >= least and time.monotonic() - begun_s > _UNANSWERED_S:
                return
            self._limit(begun_s)
            time.sleep(POLL_S)

    def all_run(self, members: Sequence[Notice]) -> bool:
        """Whether none of these processes is known to be silent; ask often."""
        return not self._end_silent(members)

    @contextmanager
    def watching(self, world: World) -> Iterator[None]:
        """While the ranks of a world have no guard yet: let its collectives fail if a process of it is silent."""
        is_over = threading.Event()

        def watch() -> None:
            while not is_over.wait(_LOOK_S):
                if not self.all_run(self.members):
                    world.cut()

        watcher = threading.Thread(target=watch, name="watcher", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            is_over.set()
            watcher.join()

    def _end_silent(self, watched: Sequence[Notice | None]) -> set[str]:
        """End the processes that are silent, as far as they are on this machine; returns the uids of all that are."""
        known = {one.uid: one.process for one in watched if one is not None}
        silent = self._pulses.silent(known)
        for uid in silent:
            end_silent(known[uid])
        return silent

    def check(self) -> None:
        """Whether it makes sense to go on waiting.

        Raises:
            RemovedError: if the driver has no place for this process any more.
            LostRankError: if the driver is gone.
        """
        self.may_wait()
        if self._usher.numbers.rank < 0:
            raise RemovedError(
                f"worker {self._slot.number} of host {self._slot.host} has no place any more: its host was removed, or "
                "another worker failed there, after which Horovod leaves out the host"
            ).on_all_ranks()
        if self._usher.is_driver_gone:
            raise LostRankError("horovodrun does not answer any more")

    def check_others(self) -> None:
        """Whether it makes sense for a process without a state to go on waiting for those that have it.

        Raises:
            JobOverError: if the job has ended.
            LostRankError: if none of them is left; and as `check`.
        """
        self.check()
        over = self._usher.look_for_end()
        if over is not None:
            raise JobOverError(over)
        now_s = time.monotonic()
        if now_s - self._looked_s > _SEEK_S:
            self._looked_s = now_s
            if any(one is not None and one.phase in HAVE_STATE for one in self._usher.notices()):
                self._seen_s = now_s
        if now_s - self._seen_s > _FORLORN_S:
            raise LostRankError("none of the workers that trained is left")

    def settle(self) -> None:
        """The job is done: wait until the driver has answered all workers of the world, and none of them calls again.

        By Horovod's rules one that ends with 0 before ends all that wait for an answer.
        """
        self._usher.hush()
        members, begun_s = {one.uid for one in self.members}, time.monotonic()
        passed_s = 0.0
        while passed_s < _SETTLE_S and not self._usher.is_driver_gone:
            if self._usher.notice.phase != "done" and not self._usher.is_asking:
                self._usher.post(phase="done")
            notices = self._usher.notices()
            busy = {one.uid for one in notices if one is not None and one.uid in members and one.phase != "done"}
            passed_s = time.monotonic() - begun_s
            # what the driver has forgotten is said again soon
            if (None not in notices or passed_s > _LATE_S) and busy <= self._pulses.silent(busy):
                return
            time.sleep(POLL_S)

    def _limit(self, begun_s: float) -> None:
        if time.monotonic() - begun_s > self.wait_s:
            self.has_given_up = True
            raise LostRankError(f"there were not enough workers for {self.wait_s:g} s (elastic.wait_s)")
