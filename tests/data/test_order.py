from __future__ import annotations

import dataclasses
import itertools
import pickle
import random
import threading

import numpy as np
import pytest

from harness.data import Order, permutation, sweep_order
from harness.errors import DataError


def epoch_of(order: Order, epoch: int) -> np.ndarray:
    n = order.iterations_per_epoch
    return np.concatenate([order.global_indices(t) for t in range((epoch - 1) * n + 1, epoch * n + 1)])


@pytest.mark.parametrize(
    ("num_samples", "shards", "batch_size"),
    [
        (samples, shards, size)
        for samples, shards, size in itertools.product((1, 2, 7, 12, 13, 100), (1, 2, 3), (1, 2, 4))
        if samples >= shards * size
    ],
)
def test_keep_uses_every_sample_once_an_epoch_and_drop_all_but_the_rest(num_samples, shards, batch_size):
    size = shards * batch_size
    keep = Order(num_samples, shards, batch_size, seed=3, last_batch="keep")
    drop = Order(num_samples, shards, batch_size, seed=3)
    for epoch in (1, 2, 5):
        assert sorted(epoch_of(keep, epoch)) == list(range(num_samples))
        used = epoch_of(drop, epoch)
        assert len(set(used)) == len(used) == num_samples - num_samples % size
        np.testing.assert_array_equal(used, epoch_of(keep, epoch)[: len(used)])


@pytest.mark.parametrize(
    ("num_samples", "last_batch", "iterations", "counts"),
    [
        (20, "drop", 2, [10, 10]),
        (20, "keep", 2, [10, 10]),
        (28, "drop", 2, [10, 10]),
        (28, "keep", 3, [10, 10, 8]),
        (25, "keep", 3, [10, 10, 5]),
        (10, "keep", 1, [10]),
    ],
)
def test_counts(num_samples, last_batch, iterations, counts):
    order = Order(num_samples, shards=2, batch_size=5, seed=0, last_batch=last_batch)
    assert order.global_batch == 10
    assert order.iterations_per_epoch == iterations
    for epoch in range(3):
        got = range(epoch * iterations + 1, (epoch + 1) * iterations + 1)
        assert [order.global_count(t) for t in got] == counts
        assert [len(order.global_indices(t)) for t in got] == counts
        assert {order.epoch(t) for t in got} == {epoch + 1}


@pytest.mark.parametrize(("num_samples", "sizes"), [(28, [5, 3]), (25, [5, 0]), (21, [1, 0]), (30, [5, 5])])
def test_the_last_shards_of_a_kept_batch_are_short_or_empty(num_samples, sizes):
    order = Order(num_samples, shards=2, batch_size=5, seed=0, last_batch="keep")
    assert [len(order.shard_indices(3, shard)) for shard in (0, 1)] == sizes


@pytest.mark.parametrize("last_batch", ["drop", "keep"])
def test_the_readers_together_see_the_global_batch_however_many_they_are(last_batch):
    order = Order(75, shards=4, batch_size=4, seed=7, last_batch=last_batch)
    for t in range(1, 12):
        expected = order.global_indices(t)
        for readers in (1, 2, 4):
            fresh = [Order(75, 4, 4, 7, last_batch) for _ in range(readers)]
            shards = {s: fresh[s % readers].shard_indices(t, s) for s in range(4)}
            np.testing.assert_array_equal(np.concatenate([shards[s] for s in range(4)]), expected)


def test_the_order_of_questions_does_not_matter():
    asked = Order(50, 2, 3, seed=1)
    expected = {t: Order(50, 2, 3, seed=1).global_indices(t).tolist() for t in range(1, 60)}
    questions = [*expected, *reversed(expected)]
    random.Random(0).shuffle(questions)
    assert all(asked.global_indices(t).tolist() == expected[t] for t in questions)


def test_golden():
    # the permutations of 10 for seed 5 are 7 4 5 9 0 2 3 8 1 6 and 8 3 9 7 6 5 0 1 2 4; a change of these numbers is a
    # change of every run's data order, so it breaks the resuming of all earlier checkpoints
    order = Order(10, shards=2, batch_size=2, seed=5)
    assert [order.global_indices(t).tolist() for t in (1, 2, 3)] == [[7, 4, 5, 9], [0, 2, 3, 8], [8, 3, 9, 7]]


def test_seeds_streams_and_epochs_all_differ():
    keys = itertools.product((0, 1, 2**40, -1), ("train", "finder", "validation"), (0, 1, 2, 11))
    orders = {permutation(30, seed, stream, epoch).tobytes() for seed, stream, epoch in keys}
    assert len(orders) == 4 * 3 * 4
    assert epoch_of(Order(30, 1, 5, 0), 1).tobytes() != epoch_of(Order(30, 1, 5, 0, stream="finder"), 1).tobytes()


def test_each_sweep_of_the_finder_has_an_order_and_an_augmentation_of_its_own():
    training = Order(30, 2, 5, seed=3, last_batch="keep")
    orders, seeds = zip((training, training.seed), *(sweep_order(training, sweep) for sweep in (0, 1)), strict=True)
    assert len({order.global_indices(1).tobytes() for order in orders}) == 3
    assert len(set(seeds)) == 3
    assert [order.last_batch for order in orders] == ["keep", "drop", "drop"]
    assert sweep_order(training, 1) == (orders[2], seeds[2])


def test_every_sample_is_equally_likely_in_every_place():
    size, epochs = 6, 6000
    counts = np.zeros((size, size))
    for epoch in range(epochs):
        counts[np.arange(size), permutation(size, 0, "train", epoch)] += 1
    chi2 = ((counts - epochs / size) ** 2 / (epochs / size)).sum()
    assert chi2 < 52.6  # the 0.999 quantile for (6 - 1)^2 degrees of freedom; the draws are fixed


def test_equal_by_value_and_without_visible_state():
    one, other = Order(20, 2, 5, seed=0), Order(20, 2, 5, seed=0)
    one.global_indices(3)
    assert one == other
    assert hash(one) == hash(other)
    assert repr(one) == repr(other)
    assert dataclasses.replace(one, seed=1).global_indices(1).tolist() == Order(20, 2, 5, 1).global_indices(1).tolist()
    assert pickle.loads(pickle.dumps(one)).global_indices(3).tolist() == other.global_indices(3).tolist()
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.seed = 1
    with pytest.raises(ValueError, match="read-only"):
        one.global_indices(1)[0] = 0


def test_threads_may_share_an_order():
    order = Order(2000, 1, 10, seed=0)
    expected = {t: Order(2000, 1, 10, seed=0).global_indices(t).tolist() for t in range(1, 1001, 97)}
    wrong = []

    def ask(seed):
        for t in random.Random(seed).choices(list(expected), k=60):
            if order.global_indices(t).tolist() != expected[t]:
                wrong.append(t)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("last_batch", ["drop", "keep"])
def test_fewer_samples_than_a_global_batch(last_batch):
    Order(16, 2, 8, seed=0, last_batch=last_batch)
    with pytest.raises(DataError, match="is 2 shards x 8 = 16 samples, but there are only 15 training samples"):
        Order(15, 2, 8, seed=0, last_batch=last_batch)


def test_settings_that_make_no_sense():
    with pytest.raises(DataError, match="last_batch is 'pad'; choose 'drop' or 'keep'"):
        Order(15, 1, 8, seed=0, last_batch="pad")
    with pytest.raises(DataError, match="a global batch is 0 shards x 8 samples; both must be at least 1"):
        Order(15, 0, 8, seed=0)
    with pytest.raises(ValueError, match="iterations count from 1"):
        Order(15, 1, 8, seed=0).epoch(0)
    for shard in (-1, 2):
        with pytest.raises(ValueError, match="not one of 0 to 1"):
            Order(16, 2, 8, seed=0).shard_indices(1, shard)
