"""The tree finished by collectives of all ranks: played by threads on NumPy's memory, and by Horovod on real ranks."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import numpy as np
import pytest

from harness.comm.collective_fold import BLOCK_BYTES, WHOLE_BYTES, CollectiveFold
from harness.comm.tree import assign
from tests.comm.trees import Memory, adversarial, partial_sums, tree_sum

DRAWN = [(shards, random.Random(shards).randint(1, min(shards, 16))) for shards in range(1, 65)]


class Together:
    """Collectives of threads that meet; what an all-to-all or an allgather fills has to be of the right size."""

    def __init__(self, size: int) -> None:
        self.size, self.names = size, []
        self._sent: dict[int, object] = {}
        self.meeting = threading.Barrier(size, timeout=20)

    def of_rank(self, rank: int) -> OfRank:
        return OfRank(self, rank)

    def meet(self, rank: int, name: str, sent: object, receive: Callable[[dict[int, object]], None]) -> None:
        self._sent[rank] = (name, sent)
        self.meeting.wait()
        assert {its_name for its_name, _ in self._sent.values()} == {name}
        if rank == 0:
            self.names.append(name)
        receive({one: its_sent for one, (_, its_sent) in self._sent.items()})
        self.meeting.wait()


class OfRank:
    def __init__(self, together: Together, rank: int) -> None:
        self._together, self._rank = together, rank

    def alltoall(self, sent, counts, received, name):
        assert sum(counts) in (0, sent.size)
        cuts = np.split(np.array(sent)[: sum(counts)], np.cumsum(counts)[:-1])
        self._together.meet(
            self._rank,
            f"alltoall {name}",
            cuts,
            lambda found: fill(received, [found[one][self._rank] for one in sorted(found)]),
        )

    def allgather(self, sent, received, name):
        copy = np.array(sent)
        self._together.meet(
            self._rank, f"allgather {name}", copy, lambda found: fill(received, [found[one] for one in sorted(found)])
        )

    def allreduce(self, array, name):
        copy = np.array(array)
        self._together.meet(self._rank, f"allreduce {name}", copy, lambda found: fill(array, [found[0] + found[1]]))


def fill(received, arrays):
    joined = np.concatenate(arrays)
    assert joined.shape == received.shape
    received[:] = joined


def finished(values, ranks, on_cpu=True, times=1):
    """What every rank holds after all have finished the tree, and the collectives that it took."""
    assignment, together = assign(len(values), ranks), Together(ranks)
    totals, failures = [b""] * ranks, []

    def play(rank):
        try:
            fold = CollectiveFold(rank, together.of_rank(rank))
            buffers = [Memory(values[0].size, on_cpu) for _ in range(assignment.held[rank])]
            for _ in range(times):
                for buffer, part in zip(buffers, partial_sums(values, assignment, rank), strict=True):
                    buffer.array[:] = part
                fold.finish(buffers, assignment, "sum")
            totals[rank] = buffers[-1].array.tobytes()
        except BaseException as error:
            failures.append(error)
            together.meeting.abort()

    threads = [threading.Thread(target=play, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    return totals, together.names


@pytest.mark.parametrize("on_cpu", [True, False])
@pytest.mark.parametrize(("shards", "ranks"), DRAWN)
def test_any_number_of_ranks_finishes_the_tree_over_any_number_of_shards(shards, ranks, on_cpu, monkeypatch):
    for count, whole in ((1, WHOLE_BYTES), (7, 0), (4101, 0), (501, WHOLE_BYTES)):
        monkeypatch.setattr("harness.comm.collective_fold.WHOLE_BYTES", whole)
        values = adversarial(shards, count, seed=shards)
        totals, _ = finished(values, ranks, on_cpu, times=2)
        assert set(totals) == {tree_sum(values).tobytes()}


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_every_size_of_block_gives_the_bits_of_the_tree(more, monkeypatch):
    values = adversarial(8, 3 * (2 * BLOCK_BYTES // 4 + more), seed=8)
    monkeypatch.setattr("harness.comm.collective_fold.WHOLE_BYTES", 0)
    totals, names = finished(values, 3)
    assert set(totals) == {tree_sum(values).tobytes()}
    assert names == ["alltoall sum.0", "alltoall sum.1", "allgather sum"]


@pytest.mark.parametrize(
    ("shards", "ranks", "count", "names"),
    [
        (4, 1, 100, []),
        (2, 2, 100, ["allreduce sum"]),  # in one order only: by the library
        (4, 4, 0, []),
        (4, 4, WHOLE_BYTES // 16, ["allgather sum"]),
        (4, 4, WHOLE_BYTES // 16 + 1, ["alltoall sum.0", "allgather sum"]),
        (8, 3, WHOLE_BYTES // 20, ["allgather sum"]),
        (8, 3, WHOLE_BYTES // 20 + 1, ["alltoall sum.0", "alltoall sum.1", "allgather sum"]),
    ],
)
def test_a_small_array_takes_one_collective(shards, ranks, count, names):
    values = adversarial(shards, count, seed=1)
    totals, found = finished(values, ranks)
    assert found == names
    assert set(totals) == {tree_sum(values).tobytes()}


@pytest.mark.parametrize("count", [100, WHOLE_BYTES])
def test_no_update_after_the_first_allocates(count, monkeypatch):
    values = adversarial(8, count, seed=2)
    monkeypatch.setattr(Memory, "made", 0)
    finished(values, 3)
    first = Memory.made
    monkeypatch.setattr(Memory, "made", 0)
    finished(values, 3, times=3)
    assert Memory.made == first


def test_another_array_gets_other_memory():
    together, assignment, sums = Together(3), assign(3, 3), []

    def play(rank):
        fold = CollectiveFold(rank, together.of_rank(rank))
        for count in (5, 9, WHOLE_BYTES, 5):
            buffer = Memory(count, on_cpu=True)
            buffer.array[:] = rank + 1
            fold.finish([buffer], assignment, "sum")
            sums.append(set(buffer.array.tolist()))

    threads = [threading.Thread(target=play, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == [{6.0}] * 12


@pytest.mark.parametrize("np_", [2, 3, *(pytest.param(np_, marks=pytest.mark.thorough) for np_ in (4, 5, 8))])
def test_horovod_finishes_the_tree(start, np_):
    found = start("tests/programs/sums.py", np=np_, PYTHONPATH=".").stdout
    assert found.count("every sum has the bits of the tree") == np_


def test_horovod_sums_by_its_engine_where_that_is_asked_for(start):
    """It adds in an order of its own: if this fails, it has learned ours, and nobody needs the other."""
    found = start("tests/programs/sums.py", "engine", np=3, PYTHONPATH=".").stdout
    assert "other bits than those of the tree, to rounding its sum" in found
