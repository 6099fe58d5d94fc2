"""What is done ahead of time: batches by several workers at once, the next epoch's order; and the first batch."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from harness.data import Augmentation, BatchStream, Order
from harness.data import order as module

IMAGENET = 1_281_167
AS_IT_IS = Augmentation(is_done=True)


class Numbers:
    """A data set of its own indices, that counts what is read."""

    full_scale, source = 1.0, "numbers"

    def __init__(self, count):
        self.count, self.num_read = count, 0

    def __len__(self):
        return self.count

    def take(self, indices, *draws):
        self.num_read += len(indices)
        return np.float32(indices)[:, None], indices

    def labels(self):
        return None


def stream_of(dataset, batch=32, shards=8, prefetch=3):
    order = Order(len(dataset), shards, batch, seed=1)
    return BatchStream(dataset, order, [0, 1], AS_IT_IS, seed=1, prefetch=prefetch)


@pytest.fixture
def computed(monkeypatch):
    """Which epochs' orders are computed, and by which threads."""
    found, permutation = [], module.permutation

    def compute(count, seed, stream, epoch):
        found.append((epoch, threading.current_thread().name))
        return permutation(count, seed, stream, epoch)

    monkeypatch.setattr(module, "permutation", compute)
    return found


def test_the_next_order_of_many_samples_is_there_before_its_epoch(computed):
    with stream_of(Numbers(60_000), batch=1000, prefetch=1) as stream:  # 7 batches in an epoch
        for t in range(1, 24):
            stream(t)
            time.sleep(0.02)
    assert [epoch for epoch, _ in computed] == [1, 2, 3, 4, 5]
    assert {name.partition("-")[0] for epoch, name in computed if epoch > 1} == {"order"}


def test_that_of_an_epoch_that_was_resumed_in_the_middle_too(computed):
    with stream_of(Numbers(60_000), batch=1000, prefetch=1) as stream:
        for t in range(11, 16):
            stream(t)
            time.sleep(0.02)
    assert [epoch for epoch, _ in computed] == [2, 3, 4]
    assert {name.partition("-")[0] for epoch, name in computed if epoch > 2} == {"order"}


def test_that_of_few_samples_is_not_worth_a_thread(computed):
    with stream_of(Numbers(600), batch=10) as stream:
        stream(1)
    assert [epoch for epoch, _ in computed] == [1]


def test_only_one_thread_computes_an_order(computed):
    order = Order(60_000, 8, 1000, seed=1)
    threads = [threading.Thread(target=order.global_indices, args=(t,)) for t in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [epoch for epoch, _ in computed] == [1]
    assert order.global_indices(9).tolist() == Order(60_000, 8, 1000, seed=1).global_indices(9).tolist()


RESUMED = (2, 2500, 5004, 5005, 10_008, 123_456, 450_000)


@pytest.mark.parametrize("t", RESUMED)
def test_a_resumed_run_reads_nothing_before_its_first_batch(t):
    dataset = Numbers(60_000)
    with stream_of(dataset, prefetch=0) as stream:
        dataset.num_read = 0  # one was, for its shape
        stream(t)
        assert dataset.num_read == 64


def test_the_first_batch_of_a_run_that_resumes_comes_as_soon_as_that_of_a_new_one():
    """Wherever it resumes: at most twice the CPU time, of 1.28 million samples; the least of three."""

    def seconds(t):
        found = []
        for _ in range(3):
            begun = time.process_time()
            stream = stream_of(Numbers(IMAGENET), prefetch=0)
            stream(t)
            found.append(time.process_time() - begun)
            stream.close()
        return min(found)

    first = seconds(1)
    assert max(map(seconds, (2, 2500, 5005, 450_000))) < 2 * first
    assert first < 2.0
