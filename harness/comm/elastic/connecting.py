"""The processes of a roster become the ranks of a world, or none of them does."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from typing_extensions import override

from harness.comm.bootstrap import set_slot
from harness.comm.elastic.library import HorovodLibrary
from harness.comm.elastic.lifeline import Lifeline, LifelineServer
from harness.comm.elastic.notices import Notice, Roster
from harness.comm.horovod import HorovodWorld
from harness.comm.launcher import Launch
from harness.comm.rendezvous import Rendezvous
from harness.comm.routes import listen_at, reachable_addresses
from harness.comm.world import Array, SingleWorld, SumBy, World


class ElasticWorld(HorovodWorld):
    """The ranks of a world that may change, as far as they can reach each other.

    A sum is gathered, and added here. A rank whose collective has failed goes on to Horovod's next negotiation, which
    begins with an allreduce; another one that has not noticed the loss yet may still send it a part of the collective
    before. Gloo tells messages apart by the kind of collective alone, and aborts a process that gets a longer one than
    it waits for. So no array may travel in an allreduce where a third rank could be the lost one.
    """

    def __init__(self, library: HorovodLibrary, sum_by: SumBy) -> None:
        """Take what the library has connected."""
        self._library, self._number = library, library.number
        super().__init__(Launch("horovodrun"), sum_by, connected=True)

    @property
    def _is_current(self) -> bool:
        """Whether the library has not begun another world since."""
        return self._library.number == self._number

    @override
    def allreduce(self, array: Array, name: str) -> Array:
        if array.size == 0:
            return array.copy()
        summed: Array = self._gather(array, name).sum(axis=0, dtype=array.dtype)
        return summed

    @override
    def _lengths(self, own: int, name: str) -> Array:
        return self._gather(np.array([own], np.int64), name)[:, 0]

    def _gather(self, array: Array, name: str) -> Array:
        """The ranks' arrays, one behind the other along a new first dimension."""
        sent = self._mx.nd.array(array.reshape(-1), dtype=array.dtype)
        received: Array = self._named(name, lambda: self._hvd.allgather(sent, name=name).asnumpy())
        return received.reshape(self.size, *array.shape)

    @override
    def cut(self) -> None:
        if self._is_current:
            self._library.cut()

    @override
    def abandon(self) -> None:
        if self._is_current:
            self._library.end()


class Connector:
    """Connects this process with the others of one roster after another."""

    def __init__(self, sum_by: SumBy) -> None:
        """Nothing is loaded yet.

        Args:
            sum_by: see `World.sum_parts`.
        """
        self._sum_by: SumBy = sum_by
        self._library: HorovodLibrary | None = None
        self._rendezvous_at: Mapping[str, socket.socket] = {}
        self._lifeline_at: Mapping[str, socket.socket] = {}

    @property
    def is_spoiled(self) -> bool:
        """Whether this process has to end without waiting for its threads."""
        return self._library is not None and self._library.is_spoiled

    def listen(self, roster: Roster) -> Roster:
        """Listen for the others, as the first of a roster; the roster with the ports."""
        addresses = reachable_addresses()
        self._rendezvous_at, self._lifeline_at = listen_at(addresses), listen_at(addresses)
        return replace(roster, rendezvous=_ports(self._rendezvous_at), lifeline=_ports(self._lifeline_at))

    def connect(self, roster: Roster, uid: str, all_run: Callable[[], bool]) -> World | None:
        """The world of a roster; `None` if a process on it was lost meanwhile.

        Args:
            roster: with this process.
            uid: of this process.
            all_run: is asked again and again meanwhile; once it says no, the attempt is given up.
        """
        rank = roster.rank_of(uid)
        assert rank is not None
        server, rendezvous = None, None
        if rank == 0:
            server = LifelineServer(list(self._lifeline_at.values()), [one.uid for one in roster.members])
            peers = {address for one in roster.members for address in one.addresses}
            rendezvous = Rendezvous(list(self._rendezvous_at.values()), peers, len(roster.members))
        world: World | None = None
        lifeline: Lifeline | None = None
        try:
            lifeline = Lifeline(roster.lifeline, uid)
            if lifeline.wait_for_all(all_run):
                world = self._world_of(roster, rank, lifeline, all_run)
        except OSError:
            world = None
        finally:
            if lifeline is not None:
                lifeline.close()
            if server is not None:
                if world is not None:
                    server.wait()
                server.close()
            if rendezvous is not None:
                rendezvous.stop()
        return world

    def _world_of(self, roster: Roster, rank: int, lifeline: Lifeline, all_run: Callable[[], bool]) -> World | None:
        if len(roster.members) == 1:
            return SingleWorld() if lifeline.confirm(all_run) else None
        if self._library is None:
            self._library = HorovodLibrary()
        hosts = [(one.host, _place(roster.members, number)) for number, one in enumerate(roster.members)]
        set_slot(hosts, rank, lifeline.address, roster.rendezvous[lifeline.address])
        if not self._library.begin(lambda: lifeline.holds() and all_run()):
            return None
        if not lifeline.confirm(all_run):
            self._library.end()
            return None
        return ElasticWorld(self._library, self._sum_by)


def _ports(listeners: Mapping[str, socket.socket]) -> dict[str, int]:
    return {address: one.getsockname()[1] for address, one in listeners.items()}


def _place(members: Sequence[Notice], number: int) -> int:
    """The number of a member among those of its host."""
    return sum(one.host == members[number].host for one in members[:number])
