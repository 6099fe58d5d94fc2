"""What every world can do, and the world of one process.

A world is the set of ranks that train together. Each collective has a name, which must be the same on every rank: it
pairs the calls, and error messages show it. Reductions return sums; divide by the count for a mean.
"""

from __future__ import annotations

import json
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from harness.comm.compare import Facts, differences
from harness.comm.half import HalfPrecision, HalfRounder
from harness.comm.tree import Assignment
from harness.errors import DisagreementError, HarnessError

T = TypeVar("T")
Array = npt.NDArray[Any]
SumBy = Literal["tree", "engine"]


class Buffer(Protocol):
    """Memory of a device that is summed over ranks.

    Attributes:
        array: a one-dimensional `mx.nd.NDArray`.
        host: the same memory for NumPy, where the device is the CPU.
    """

    array: Any
    host: Array | None

    def like(self, size: int) -> Buffer:
        """More memory on the same device, for `size` numbers."""


class JobOverError(Exception):
    """The job has ended before this worker could join it.

    Attributes:
        exit_code: of the job.
    """

    def __init__(self, exit_code: int) -> None:
        """Say how it has ended."""
        super().__init__(f"the job has ended with {exit_code} before this worker could join it")
        self.exit_code = exit_code


class Membership(Protocol):
    """Where workers may come and go: finds this process's next world. `harness.comm.elastic` has it.

    Attributes:
        is_joining: whether there was a world already when this process began.
        leaves: set by the training: whether this process has to leave.
        is_removed: whether the launcher has no place for this process any more.
        brought: of each rank of the world, the last update in its state when the world began; `None` without a state.
    """

    is_joining: bool
    leaves: bool

    @property
    def is_removed(self) -> bool:
        """See above."""

    @property
    def brought(self) -> Sequence[int | None]:
        """See above."""

    def is_launcher_gone(self, longer_s: float = 0.0) -> bool:
        """Whether the launcher was lost, or cannot be reached from here, at least so many seconds ago."""

    def limit(self, most: int, wait_s: float) -> None:
        """Set how many ranks there can be in the worlds to come, and how long to wait for others."""

    def wants_change(self, rank: int) -> bool:
        """Whether others are ready to join, and it is this rank that has to say so; called before every update."""

    def offer(self, job: Mapping[str, Any]) -> None:
        """Show what a process that joins has to know (anything JSON can hold)."""

    def wait_for_offer(self, may_wait: Callable[[], None]) -> dict[str, Any]:
        """What another has offered; calls `may_wait` meanwhile, and raises `JobOverError` if the job ends before."""

    def next_world(
        self, iteration: int | None, *, is_lost: bool, may_wait: Callable[[], None], hurries: Callable[[], bool]
    ) -> World:
        """Become a rank of the next world; `may_wait` is called meanwhile, and raises if one should not wait.

        A process that `hurries` waits for no answer of the launcher's.
        """

    def watching(self, world: World) -> AbstractContextManager[None]:
        """Until a guard does, see to it that collectives of this world fail if one of its ranks is frozen."""

    def suspect(self, ranks: Iterable[int]) -> None:
        """Nothing has been heard of these ranks of the world for long; called by the guard's thread."""

    def leave(self) -> None:
        """Show that this process is not there any more, and that the job goes on without it."""

    def end(self, exit_code: int) -> int:
        """End with the job, or without it; returns the exit code, unless the process has to end at once."""


class World(ABC):
    """The ranks of a job, seen from one of them.

    Attributes:
        rank: this process, 0 to `size - 1`.
        size: number of processes.
        local_rank: this process among those of its host.
        local_size: number of processes on its host.
        hostname: the host's name.
        kind: the communication backend, in words.
        sum_by: who orders the additions of `sum_parts`: the `tree` of the shards, or Horovod's own `engine`.
        last_collective: the name of the one that was started last.
        num_collectives: how many were started; the rank that has started fewest is the one the others wait for.
        remarks: what the user should know of how the ranks are connected, a sentence each.
        fails_when_lost: whether a collective that waits for a lost rank raises, instead of waiting for ever.
        membership: what finds the next world, where ranks may come and go; `None` in any other job.
    """

    kind: str
    sum_by: SumBy = "tree"
    fails_when_lost = True
    membership: Membership | None = None

    def __init__(self, rank: int, size: int, local_rank: int, local_size: int) -> None:
        """Store the numbers, and this host's name."""
        self.rank = rank
        self.size = size
        self.local_rank = local_rank
        self.local_size = local_size
        self.hostname = socket.gethostname()
        self.last_collective = "start"
        self.num_collectives = 0
        self.remarks: list[str] = []

    @abstractmethod
    def allreduce(self, array: Array, name: str) -> Array:
        """The sum of the ranks' arrays (same shape and dtype everywhere), as a new array."""

    @abstractmethod
    def sum_parts(
        self, parts: Sequence[Buffer], assignment: Assignment, name: str, half: HalfPrecision | None = None
    ) -> None:
        """Add up the ranks' partial sums, in place, as `sum_by` says. May return before that is done.

        Args:
            parts: this rank's, in the order of the assignment; the last one gets the sum, the others are overwritten.
            assignment: who holds which partial sums; its workers are the ranks.
            name: of the collective.
            half: which numbers may travel in 16 bits: every shard's are rounded to it, and their sum is here.
        """

    @abstractmethod
    def broadcast(self, array: Array, name: str, root: int = 0) -> Array:
        """The array of rank `root`, on every rank; the others pass one of the same shape and dtype."""

    @abstractmethod
    def allgather_bytes(self, sent: Array, name: str) -> list[Array]:
        """Every rank's bytes, `(n,)` of uint8, in the order of the ranks; each has at least one."""

    @abstractmethod
    def close(self) -> None:
        """Shut down in good order: no rank leaves before all have called this."""

    def cut(self) -> None:
        """Where ranks may be lost: let every collective that this rank waits in fail now. Any thread may call it."""
        return

    def abandon(self) -> None:
        """This process ends without the other ranks: at its exit, wait for none of them."""
        return

    def allgather_object(self, value: object, name: str) -> list[Any]:
        """Every rank's value (anything JSON can hold), in the order of the ranks; as JSON, so nothing is unpickled."""
        sent = np.frombuffer(json.dumps(value).encode(), np.uint8)
        return [json.loads(received.tobytes()) for received in self.allgather_bytes(sent, name)]

    def broadcast_object(self, value: T, name: str, root: int = 0) -> T:
        """The value of rank `root` (anything JSON can hold), on every rank."""
        received: T = self.allgather_object(value if self.rank == root else None, name)[root]
        return received

    def to_json(self) -> dict[str, Any]:
        """As manifests and finder results hold it."""
        return {"kind": self.kind, "size": self.size, "sum": self.sum_by}

    def explain(self, error: Exception) -> HarnessError | None:
        """What an error of MXNet or a collective means for the job; `None` if it came from neither."""
        return None

    def barrier(self, name: str) -> None:
        """Wait until every rank has called this."""
        self.allreduce(np.zeros(1, np.int32), name)

    def must_be_equal(self, name: str, facts: Facts, what_to_do: str, own: object = None) -> list[Any]:
        """Compare facts that must be equal on all ranks, in one named collective.

        Args:
            name: of the collective.
            facts: by their names in messages.
            what_to_do: the end of the message.
            own: what may differ (anything JSON can hold); it travels in the same message.

        Returns:
            Every rank's `own`.

        Raises:
            DisagreementError: on every rank, naming every difference, the ranks and their values.
        """
        everyone = self.allgather_object([dict(facts), own], name)
        found = differences([its_facts for its_facts, _ in everyone])
        if found:
            raise DisagreementError(
                f"{name}: the ranks do not agree:\n  " + "\n  ".join(found) + f"\n{what_to_do}"
            ).on_all_ranks()
        return [its_own for _, its_own in everyone]

    def agreed(self, name: str, work: Callable[[], T], partly: str = "") -> T:
        """Do `work` on every rank, and fail on every rank if it failed on any.

        A rank that fails alone would leave the others waiting in their next collective. This way, a file that is
        missing on one host becomes one message and one exit code.

        Args:
            name: of the collective.
            work: to do; must not call a collective.
            partly: the end of the message where some ranks failed, and others did not.

        Raises:
            HarnessError: of the first rank that failed; its message names the ranks, unless all failed alike.
        """
        done, failure = _attempt(work)
        merged = _merge_failures(self.allgather_object(_report(failure), f"agreed.{name}"), partly)
        if merged is not None:
            raise merged from failure
        return done[0]

    def on_root(self, name: str, work: Callable[[], T]) -> T:
        """Do `work` on rank 0 while the others wait, and fail on every rank if it failed.

        Returns:
            What `work` returned (anything JSON can hold), on every rank.

        Raises:
            HarnessError: of rank 0, on every rank.
        """
        done, failure = _attempt(work) if self.rank == 0 else ([], None)
        results, report = self.broadcast_object((done, _report(failure)), f"root.{name}")
        if report is not None:
            raise _rebuild(report) from failure
        return results[0]


class SingleWorld(World):
    """One process: every sum is its own array."""

    kind = "single"

    def __init__(self) -> None:
        """A world of one."""
        super().__init__(rank=0, size=1, local_rank=0, local_size=1)
        self._round = HalfRounder()

    @override
    def allreduce(self, array: Array, name: str) -> Array:
        return array.copy()

    @override
    def sum_parts(
        self, parts: Sequence[Buffer], assignment: Assignment, name: str, half: HalfPrecision | None = None
    ) -> None:
        """One rank holds one partial sum, which is the sum."""
        if half is not None:
            self._round(parts[-1].array, half, parts[-1].host)

    @override
    def broadcast(self, array: Array, name: str, root: int = 0) -> Array:
        return array.copy()

    @override
    def allgather_bytes(self, sent: Array, name: str) -> list[Array]:
        return [sent]

    @override
    def allgather_object(self, value: object, name: str) -> list[Any]:
        return [value]

    @override
    def close(self) -> None:
        return


def _attempt(work: Callable[[], T]) -> tuple[list[T], HarnessError | None]:
    try:
        return [work()], None
    except HarnessError as error:
        return [], error


def _report(failure: HarnessError | None) -> list[str] | None:
    return None if failure is None else [type(failure).__name__, str(failure)]


def _rebuild(report: Sequence[str]) -> HarnessError:
    kinds: dict[str, type[HarnessError]] = {kind.__name__: kind for kind in HarnessError.__subclasses__()}
    return kinds[report[0]](report[1]).on_all_ranks()


def _merge_failures(reports: Sequence[list[str] | None], partly: str) -> HarnessError | None:
    failed = {rank: report for rank, report in enumerate(reports) if report is not None}
    if not failed:
        return None
    first_kind, first_text = next(iter(failed.values()))
    ranks_of: dict[str, list[int]] = {}
    for rank, (_, text) in failed.items():
        ranks_of.setdefault(text, []).append(rank)
    if len(ranks_of) == 1 and len(failed) == len(reports):
        return _rebuild([first_kind, first_text])
    lines = [f"rank {', '.join(map(str, ranks))}: {text}" for text, ranks in ranks_of.items()]
    lines += [partly] if partly and len(failed) < len(reports) else []
    return _rebuild([first_kind, "\n".join(lines)])
