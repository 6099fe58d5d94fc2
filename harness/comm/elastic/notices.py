"""What the processes of an elastic job tell each other at the launcher's server, where anybody can write. Pure.

A notice says who a process is and what it is doing; there is one for each number that Horovod's driver has given. The
roster says who becomes a rank of the next world, and where its first rank listens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Phase = Literal["new", "preparing", "prepared", "member", "meeting", "leaving", "done"]
PHASES = ("new", "preparing", "prepared", "member", "meeting", "leaving", "done")
HAVE_STATE = ("member", "meeting")
MAX_NOTICE = 4096
MAX_ROSTER = 1 << 20


@dataclass(frozen=True)
class Notice:
    """What a process says of itself.

    Attributes:
        uid: of the process, drawn at random.
        host: its host, as the driver calls it.
        addresses: at which it reaches others.
        phase: `new` (has just begun), `preparing` and `prepared` (to join a world), `member` (of one), `meeting` (those
            who will be the next world), `leaving` or `done` (the job is over).
        generation: of the world that it is in, or looks for.
        iteration: the last update in its state; `None` without a state.
        process: see `harness.comm.elastic.pulse`.
        least: with how many workers the launcher goes on at least, as far as the process knows.
    """

    uid: str
    host: str
    addresses: tuple[str, ...] = ()
    phase: str = "new"
    generation: int = 0
    iteration: int | None = None
    process: str = ""
    least: int = 1

    def encode(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, text: bytes | None) -> Notice | None:
        """The notice in a text from anywhere; `None` if it holds none."""
        with suppress(ValueError, TypeError, KeyError, RecursionError):
            return cls._of(json.loads(text or b""))
        return None

    @classmethod
    def _of(cls, found: Any) -> Notice | None:
        notice = cls(**{**found, "addresses": tuple(found["addresses"])})
        texts = (notice.uid, notice.host, notice.phase, notice.process, *notice.addresses)
        numbers = (notice.generation, notice.least, 0 if notice.iteration is None else notice.iteration)
        is_valid = all(type(one) is str for one in texts) and all(type(one) is int for one in numbers)
        return notice if is_valid and notice.phase in PHASES else None


@dataclass(frozen=True)
class Roster:
    """The next world.

    Attributes:
        generation: of the world, from 1.
        members: in the order of their ranks.
        rendezvous: the port of the server through which Horovod's ranks find each other, by address.
        lifeline: the port at which the first rank watches over the others meanwhile, by address.
    """

    generation: int
    members: tuple[Notice, ...]
    rendezvous: Mapping[str, int] = field(default_factory=dict)
    lifeline: Mapping[str, int] = field(default_factory=dict)

    def rank_of(self, uid: str) -> int | None:
        """The rank of a process; `None` if it is not in this world."""
        return next((rank for rank, one in enumerate(self.members) if one.uid == uid), None)

    def encode(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, text: bytes | None) -> Roster | None:
        """The roster in a text from anywhere; `None` if it holds none."""
        with suppress(ValueError, TypeError, KeyError, RecursionError):
            found = json.loads(text or b"")
            members = [Notice.decode(json.dumps(one).encode()) for one in found["members"]]
            ports = {**found["rendezvous"], **found["lifeline"]}
            is_valid = all(type(one) is str for one in ports) and all(type(one) is int for one in ports.values())
            if is_valid and type(found["generation"]) is int:
                known = tuple(one for one in members if one is not None)
                if len(known) == len(members):
                    return cls(found["generation"], known, found["rendezvous"], found["lifeline"])
        return None


def choose_members(
    notices: Sequence[Notice | None], own: int, most: int, *, is_late: bool
) -> tuple[Notice, ...] | None:
    """Who is in the next world, if it is this process that decides; `None` if it is another, or it is too early.

    The first process that has the state decides, when all that have it have come to meet. At the beginning nobody has a
    state, and the first process decides as soon as all are there.

    Args:
        notices: by the driver's numbers; `None` where nothing was said yet.
        own: this process's number.
        most: how many ranks there can be.
        is_late: whether those who have said nothing yet are not waited for any longer.
    """
    if any(one is None for one in notices) and not is_late:
        return None
    known = [one for one in notices if one is not None]
    own_notice = notices[own]
    if own_notice is None:
        return None
    with_state = [one for one in known if one.phase in HAVE_STATE]
    if not with_state:
        is_beginning = len(known) == len(notices) and all(one.phase == "new" for one in known)
        return tuple(known[:most]) if is_beginning and own == 0 else None
    if with_state[0] is not own_notice or any(one.phase == "member" for one in with_state):
        return None
    others = [one for one in known if one.phase == "prepared"][: max(0, most - len(with_state))]
    # in the driver's order, by which the oldest stay first
    return tuple(one for one in known if one in with_state or one in others)
