"""Worker processes: the bytes of one process on any number of them, its errors, and an end for whatever goes wrong."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from harness.data import Functions, load
from harness.data.collated import innermost
from harness.data.generators import Seeding
from harness.data.workers.orders import WorkerOrders
from harness.data.workers.pool import WorkerPool
from harness.errors import ConfigError, DataError
from harness.processes import state

HERE = "tests.programs.worked"
ROWS = np.array([3, 8, 12, 40, 30, 17, 59, 0, 0, 5, 17, 31, 22])
EPOCH, SEED = 3, 11


def read_here(name="points", transform=None, collate=None, **params):
    """The arguments of `load`, and training items that are seeded one by one."""
    given = {"name": f"{HERE}:{name}", "params": params, "labels_are_numbers": transform is not None}
    items = innermost(load(**given, functions=Functions.of(transform, collate)).train)
    return given, items.seeded(Seeding(SEED))


@pytest.fixture
def opened():
    """Opens workers beside items, and closes them."""
    pools = []

    def open_pool(count, given, items, timeout_s=60.0, **functions):
        orders = WorkerOrders(given, seed=SEED, calls_more={"train": False}, timeout_s=timeout_s, **functions)
        pools.append(WorkerPool(count, orders, {"train": items}))
        return pools[-1], items.read_by(partial(pools[-1].read, "train"))

    yield open_pool
    for pool in pools:
        pool.close()
        assert [pid for pid in pool.pids if state(pid) is not None] == []


def bytes_of(sample):
    data, label = sample
    leaves = data if isinstance(data, tuple) else (data,)
    return b"".join(leaf.tobytes() for leaf in leaves) + label.tobytes()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_bytes_of_one_process(opened, count):
    given, items = read_here()
    _, worked = opened(count, given, items)
    for draws in ((EPOCH, SEED), (EPOCH + 1, SEED), (EPOCH, SEED + 1), ()):
        data, label = items.take(ROWS, *draws)
        again, labels = worked.take(ROWS, *draws)
        assert again.tobytes() == data.tobytes()
        assert labels.tolist() == label.tolist() == [row % 3 for row in ROWS]
    assert data[7].tobytes() == data[8].tobytes()
    assert (items.take(ROWS, EPOCH, SEED)[0] != items.take(ROWS, EPOCH + 1, SEED)[0]).any()
    assert worked.take(ROWS[:0], EPOCH, SEED)[0].shape == (0, 4)


def test_items_of_any_length_and_a_transform(opened):
    functions = {"transform": f"{HERE}:letters", "collate": "pad"}
    given, items = read_here("lines", **functions)
    _, worked = opened(2, given, items, **functions)
    rows = np.arange(40)[::-1]
    for draws in ((EPOCH, SEED), ()):
        here = [bytes_of(sample) for sample in items.samples(rows, *draws)]
        assert [bytes_of(sample) for sample in worked.samples(rows, *draws)] == here
        assert len(set(map(len, here))) == 8


def test_generators_of_this_process_are_left_alone(opened):
    given, items = read_here()
    _, worked = opened(1, given, items)
    np.random.seed(1)
    worked.take(ROWS, EPOCH, SEED)
    found = np.random.rand()
    np.random.seed(1)
    assert np.random.rand() == found


def test_several_threads_ask_at_once(opened):
    given, items = read_here()
    _, worked = opened(2, given, items)
    expected = {epoch: items.take(ROWS, epoch, SEED)[0].tobytes() for epoch in range(1, 9)}
    found = {}

    def ask(epoch):
        found[epoch] = worked.take(ROWS, epoch, SEED)[0].tobytes()

    threads = [threading.Thread(target=ask, args=(epoch,)) for epoch in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


def test_large_items_make_room_for_themselves(opened, monkeypatch):
    given = {"name": f"{HERE}:wide", "params": {"width": 300_000}}
    items = innermost(load(**given).train)
    _, worked = opened(2, given, items)
    rows = np.arange(9)
    assert worked.take(rows)[0].tobytes() == items.take(rows)[0].tobytes()


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("fault", ["raises", "leaves"])
def test_an_error_is_that_of_one_process(opened, count, fault):
    given, items = read_here(fault=fault)
    _, worked = opened(count, given, items)
    said = []
    for one in (items, worked, worked):
        with pytest.raises(DataError) as error:
            one.take(ROWS, EPOCH, SEED)
        said.append(str(error.value))
    assert said[0] == said[1] == said[2]
    raised = "KeyError: 'nothing for 30'" if fault == "raises" else "SystemExit: 4"
    place = r"\(at .*worked\.py:\d+\)"
    assert re.fullmatch(rf"data\.name: '{HERE}:points', train: reading item 30 raised {raised} {place}; .*", said[0])


ENDS = {
    "exits": "ended with exit code 5 while it read item 30; the item's own code must not end the process",
    "killed": r"was killed \(SIGKILL\) while it read item 30; the kernel does that where memory runs out \(dmesg\);",
    "crashes": r"was ended by SIGSEGV while it read item 30 \(at .*:\d+\); mend the item's own code, or what has sent",
    "hangs": r"has been reading item 30 for data.timeout_s = 1 s \(at .*worked\.py:\d+\), and was ended; mend what it",
    "deaf": r"has been reading item 30 for data.timeout_s = 1 s \(at .*worked\.py:\d+\), and was ended; mend what it",
}


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("fault", ENDS)
def test_a_worker_that_ends_or_hangs_is_named_in_time(opened, count, fault):
    given, items = read_here(fault=fault)
    _, worked = opened(count, given, items, timeout_s=1.0)
    worked.take(ROWS[:4])  # they have begun
    begun = time.monotonic()
    with pytest.raises(DataError) as error:
        worked.take(ROWS, EPOCH, SEED)
    assert time.monotonic() - begun < 2.0 + (fault in ("hangs", "deaf"))
    named = rf"data\.name: '{HERE}:points', train: worker \d of {count} \(process \d+\)"
    assert re.match(f"{named} {ENDS[fault]}", str(error.value))
    with pytest.raises(DataError, match="item 30"):  # and again
        worked.take(ROWS[:1], EPOCH, SEED)


def test_batches_that_wait_for_workers_that_hang_end_with_the_first(opened):
    given, items = read_here(fault="hangs")
    _, worked = opened(2, given, items, timeout_s=3.0)
    worked.take(ROWS[:4])
    said, begun = [], time.monotonic()

    def ask(delay_s, rows):
        time.sleep(delay_s)
        try:
            worked.take(rows, EPOCH, SEED)
        except DataError as error:
            said.append((round(time.monotonic() - begun), str(error)))

    threads = [threading.Thread(target=ask, args=one) for one in ((0.0, ROWS[4:5]), (2.0, ROWS[5:6]), (2.5, ROWS[:8]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({text for _, text in said}) == 1
    assert max(seconds for seconds, _ in said) <= 5


def test_one_that_was_killed_while_idle_is_named(opened):
    given, items = read_here()
    pool, worked = opened(1, given, items)
    worked.take(ROWS)
    os.kill(pool.pids[0], signal.SIGKILL)
    with pytest.raises(DataError, match=r"worker 1 of 1 .* was killed \(SIGKILL\) while it read item 3; "):
        worked.take(ROWS)


def test_signals_to_all_processes_are_the_ranks_affair(opened):
    given, items = read_here()
    pool, worked = opened(2, given, items)
    worked.take(ROWS)
    for pid in pool.pids:
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
    assert worked.take(ROWS)[0].tobytes() == items.take(ROWS)[0].tobytes()


def test_data_that_are_others_in_a_worker_are_refused(opened):
    given = {"name": f"{HERE}:other_in_a_worker", "params": {}}
    items = innermost(load(**given).train)
    _, worked = opened(1, given, items)
    with pytest.raises(DataError, match="train: items are others in a worker process than in the rank's own"):
        worked.take(ROWS)


def test_data_that_cannot_be_loaded_in_a_worker(opened):
    given = {"name": f"{HERE}:unloadable_in_a_worker", "params": {}}
    items = innermost(load(**given).train)
    _, worked = opened(2, given, items)
    for _ in range(2):
        with pytest.raises(DataError, match="unloadable_in_a_worker': raised OSError: no such volume "):
            worked.take(ROWS)


@pytest.mark.parametrize("params", [{"a": {1: 2}}, {"a": object()}, {"a": (1, 2)}])
def test_arguments_that_are_no_plain_data(params):
    with pytest.raises(ConfigError, match=r"^data\.params: worker processes are told them as JSON, which has no such"):
        WorkerOrders({"name": "a:b", "params": params})


def test_they_have_no_names_in_shared_memory_and_no_launcher(opened, monkeypatch):
    monkeypatch.setenv("PMI_RANK", "0")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    given, items = read_here()
    pool, worked = opened(2, given, items)
    worked.take(ROWS)
    for pid in pool.pids:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"PMI_RANK" not in environ
        assert b"OMPI_" not in environ
        for one in (pid, os.getpid()):
            maps = Path(f"/proc/{one}/maps").read_text()
            assert "/memfd:harness-data" in maps
            assert "/dev/shm/" not in maps
