"""This process among those of an elastic job: from the first world to the next, and the next.

A world ends when a rank is lost (all that are left ask the driver who still is), or by agreement, when processes are
ready to join or a rank has to leave. Those that have the state meet at the launcher's server, the first of them writes
the roster, and all that are on it connect. If one is lost on the way, they meet again.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from harness.comm.elastic.connecting import Connector
from harness.comm.elastic.launcher_words import fewest_workers
from harness.comm.elastic.meeting import Meeting
from harness.comm.elastic.notices import Notice, Roster
from harness.comm.elastic.pulse import Pulse, Pulses, Strays, this_process
from harness.comm.elastic.usher import Numbers, Slot, Usher
from harness.comm.launcher import Launch
from harness.comm.launcher_store import open_launcher_store
from harness.comm.routes import reachable_addresses
from harness.comm.world import Membership, SingleWorld, SumBy, World
from harness.errors import LostRankError

_SCOPE = "harness-elastic"
_TOGETHER_S = 2.0  # that one that is ready to join waits for others that are getting ready
_LOOK_S = 0.5  # between two looks at who is ready
_ROLL_CALL_S = 3.0  # after the first world has begun


class Seats(NamedTuple):
    """The processes of a world.

    Attributes:
        generation: of the world, from 1.
        members: in the order of their ranks; with the iteration that each has brought, if it has brought a state.
    """

    generation: int
    members: Sequence[Notice]


class DriverMembership(Membership):
    """Lets this process become a rank of one world after another; called by the main thread.

    Attributes:
        seats: of the world that it is in.
        is_joining: whether there was a world already when this process began.
        leaves: set by the training: whether this rank has to leave.
    """

    def __init__(self, launch: Launch, sum_by: SumBy) -> None:
        """Show up at the launcher's server.

        Args:
            launch: how this process was started.
            sum_by: see `World.sum_parts`.
        """
        store = open_launcher_store(os.environ, _SCOPE)
        if store is None:
            raise LostRankError("HOROVOD_GLOO_RENDEZVOUS_ADDR does not name horovodrun's server")
        environ = os.environ
        # Horovod's own answer to a change would ask the driver within `hvd.init`, where nothing else can happen.
        environ.pop("HOROVOD_ELASTIC", None)
        self._slot = Slot(environ.get("HOROVOD_HOSTNAME", socket.gethostname()), launch.local_rank)
        address = environ["HOROVOD_GLOO_RENDEZVOUS_ADDR"], int(environ["HOROVOD_GLOO_RENDEZVOUS_PORT"])
        self._launcher = address
        least, uid = fewest_workers(), secrets.token_hex(8)
        own = Notice(uid, self._slot.host, tuple(reachable_addresses()), process=this_process(), least=least)
        self._store = store
        self.usher = Usher(store, address, self._slot, Numbers(0, launch.rank, launch.size), own)
        self._connector = Connector(sum_by)
        self._pulse, self._pulses = Pulse(store, own.uid), Pulses(store, own.uid)
        self._strays = Strays(self._pulses)
        self._meeting = Meeting(self.usher, self._slot, self._connector, self._pulses)
        self.seats = Seats(0, ())
        self.is_joining = False
        self.leaves = False
        self._looked_s = self._ready_since_s = 0.0
        self._is_wanted = False
        self._began_s = time.monotonic()
        self._has_called_roll = self._has_left = False

    def limit(self, most: int, wait_s: float) -> None:
        """Set how many ranks there can be in the worlds to come, and how long this process waits for others.

        Args:
            most: ranks.
            wait_s: seconds without enough workers.
        """
        self._meeting.most, self._meeting.wait_s = most, wait_s

    # --- worlds ---

    def first_world(self) -> World:
        """The world of all processes that the job begins with; one alone for a process that joins later."""
        self.usher.start()
        self._pulse.start()
        generation = 0
        while True:
            roster = self._meeting.first(generation)
            if roster is None:
                self.is_joining = True
                self.usher.post(phase="preparing")
                return self._alone()
            world = self._connect(roster)
            if world is not None:
                return world
            generation = roster.generation
            self._meeting.ask_driver()

    def next_world(
        self, iteration: int | None, *, is_lost: bool, may_wait: Callable[[], None], hurries: Callable[[], bool]
    ) -> World:
        """Become a rank of the next world.

        Args:
            iteration: the last update in this process's state; `None` for a process that is ready, and has no state.
            is_lost: whether a rank was lost, so that the driver has to be asked who is left.
            may_wait: is called while this process waits for others; raises if it should not.
            hurries: whether this process was told to stop: then it waits for no answer of the launcher's any more, also
                afterwards, if it ends for that reason. A launcher that ends has given up its server before.

        Raises:
            RemovedError: if the driver has no place for this process any more.
            LostRankError: if there were not enough workers for `wait_s`.
        """
        self._meeting.may_wait, self._store.hurries = may_wait, hurries
        before, generation = self.seats, self.seats.generation
        self.usher.post(phase="prepared" if iteration is None else "meeting", iteration=iteration)
        world: World | None = None
        while world is None:
            if iteration is None:
                roster = self._meeting.wait_for_invitation(generation)
            else:
                if is_lost:
                    self._meeting.ask_driver()
                roster = self._meeting.meet(generation + 1, iteration)
            world = self._connect(roster)
            is_lost, generation = True, roster.generation
        self._store.hurries = lambda: False
        if world.rank == 0 and {one.uid for one in before.members} - {one.uid for one in self.seats.members}:
            self.usher.call()  # the driver may have another for the one that has left
        return world

    def watching(self, world: World) -> AbstractContextManager[None]:
        """Until a guard does, see to it that collectives of this world fail if one of its ranks is frozen."""
        return self._meeting.watching(world)

    def suspect(self, ranks: Iterable[int]) -> None:
        """Nothing has been heard of these ranks of the world for long."""
        self._pulses.suspects = frozenset(self.seats.members[rank].uid for rank in ranks)

    def leave(self) -> None:
        """Show that this process is not there any more, and that the job goes on without it."""
        self.usher.post(phase="leaving")
        self._has_left = True

    def end(self, exit_code: int) -> int:
        """End with the job, or without it; returns the exit code, unless the process has to end at once.

        Args:
            exit_code: of this process.
        """
        # one that was cut off knows nothing of the others, and may reach the launcher again at this very moment
        speaks_for_all = not self._has_left and not self.is_launcher_gone()
        if speaks_for_all:
            self._strays.meet(self.usher.notices())
            self._strays.end_stopped()  # for whose answers the driver would wait
            if exit_code == 0:
                self._meeting.settle()
            if self._meeting.has_given_up and self.usher.is_asking:
                print(
                    "this worker ends when horovodrun does, which looks for hosts until its --elastic-timeout is over",
                    file=sys.stderr,
                    flush=True,
                )
                self.usher.outwait_driver()
        # what is announced before the driver answers, it forgets
        self.usher.stop(is_done=exit_code == 0, leaves=self._has_left)
        if speaks_for_all:
            self.usher.announce_end(exit_code)
            self._strays.end_stopped_members()  # horovodrun would wait for them when all others have ended
        if self._connector.is_spoiled:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(exit_code)  # threads of a library that was given up would be waited for
        return exit_code

    def offer(self, job: Mapping[str, Any]) -> None:
        """Show what a process that joins has to know (anything JSON can hold)."""
        self.usher.offer(json.dumps(job).encode())

    def wait_for_offer(self, may_wait: Callable[[], None]) -> dict[str, Any]:
        """What another has offered.

        Args:
            may_wait: is called while this process waits.

        Raises:
            JobOverError: if the job ends before.
            LostRankError: if nobody has, and nobody will.
        """
        self._meeting.may_wait = may_wait
        found: dict[str, Any] = json.loads(self._meeting.wait_for_offer())
        return found

    @property
    def brought(self) -> Sequence[int | None]:
        """Of each rank of the world, the last update in its state when the world began; `None` without a state."""
        return [one.iteration for one in self.seats.members]

    # --- what a change is asked for ---

    @property
    def is_removed(self) -> bool:
        """Whether the driver has no place for this process any more."""
        return self.usher.numbers.rank < 0

    def is_launcher_gone(self, longer_s: float = 0.0) -> bool:
        """See `Membership`."""
        return self.usher.driver_gone_s > longer_s

    def wants_change(self, rank: int) -> bool:
        """Whether others are ready to join, and it is this rank that has to say so; called before every update."""
        self._meeting.call_of_update = self.usher.numbers.call
        if rank > 0:
            return False
        now_s = time.monotonic()
        if now_s - self._looked_s > _LOOK_S:
            self._looked_s = now_s
            self._is_wanted = self._look_for_new(now_s)
        return self._is_wanted

    def _look_for_new(self, now_s: float) -> bool:
        if not self._has_called_roll and now_s - self._began_s > _ROLL_CALL_S:
            # what has changed before the driver could tell this worker of changes
            self._has_called_roll = True
            self.usher.call()
        known = [one for one in self.usher.notices() if one is not None]
        self._strays.meet(known)
        self._strays.end_silent()
        phases = [one.phase for one in known]
        if "prepared" not in phases or len(self.seats.members) >= self._meeting.most:
            self._ready_since_s = now_s
            return False
        others = any(phase in ("new", "preparing") for phase in phases)
        return not others or now_s - self._ready_since_s > _TOGETHER_S

    def hosts_changed(self, *_: object) -> None:
        """The driver has found other hosts than before: have it hand out its numbers anew, beside the training."""
        self.usher.call()

    def listen_for_changes(self) -> None:
        """Let the driver tell this worker when hosts come or go; it tells the first of its workers alone."""
        from horovod.runner.elastic.worker import WorkerNotificationManager

        self._manager = WorkerNotificationManager()
        self._manager.register_listener(_Listener(self))
        self._manager.init(*self._launcher, hostname=self._slot.host, local_rank=self._slot.number)

    # --- connecting ---

    def _connect(self, roster: Roster) -> World | None:
        """The world of a roster; `None` if a process on it was lost meanwhile."""
        world = self._connector.connect(roster, self.usher.notice.uid, lambda: self._meeting.all_run(roster.members))
        self._pulse.size = self.usher.numbers.size
        self.usher.forget_roster()
        self.usher.post(generation=roster.generation)
        self._meeting.call_of_update = self.usher.numbers.call
        if world is None:
            return None
        self._strays.enter(roster.members)
        self.seats = Seats(roster.generation, roster.members)
        self._meeting.members = roster.members
        self.usher.post(phase="member")
        self._is_wanted = False
        self._looked_s = self._ready_since_s = time.monotonic()
        world.membership = self
        return world

    def _alone(self) -> World:
        world = SingleWorld()
        world.membership = self
        return world


class _Listener:
    """What Horovod's notification service calls."""

    def __init__(self, membership: DriverMembership) -> None:
        self._membership = membership

    def on_hosts_updated(self, timestamp: int, result: int) -> None:
        self._membership.hosts_changed()


def join_elastic(launch: Launch, sum_by: SumBy) -> World:
    """The first world of this process in an elastic job; see `DriverMembership.first_world`.

    Raises:
        LostRankError: if the others cannot be found.
    """
    membership = DriverMembership(launch, sum_by)
    membership.listen_for_changes()
    return membership.first_world()
