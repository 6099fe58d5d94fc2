"""Items are functions of their index, or become so by seeding, or are refused."""

from __future__ import annotations

import cProfile
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import mxnet as mx
import numpy as np
import pytest

from harness.data import (
    Augmentation,
    BatchStream,
    Order,
    SequenceDataset,
    draws_at_random,
    evaluation_batches,
    load,
    probe_splits,
    seeded_splits,
)
from harness.data.generators import Seeding
from harness.data.purity import Found, probe
from harness.errors import DataError
from harness.model import seed_generator
from tests.programs.own_data import Items, Kept, pictures

LEGAL = {"mxnet": Found(True, True), "numpy": Found(True, False), "python": Found(True, False)}
SEEDED = {**LEGAL, "rare": Found(True, False), "label": Found(True, False)}
IMPURE = ["default_rng", "own generator", "counter", "cursor", "clock"]


def seeded(how, validation=0):
    splits = load("tests.programs.own_data:pictures", params={"how": how}, validation=validation)
    return seeded_splits(splits, probe_splits(splits, seed_generator), 7, seed_generator)


def disturb(number):
    """Put every global generator somewhere else."""
    random.seed(number)
    np.random.seed(number)
    mx.random.seed(number)


def drawn():
    return random.random(), np.random.random()


@pytest.mark.parametrize(("how", "found"), [("plain", Found()), *SEEDED.items()])
def test_what_the_probe_finds(how, found):
    items = SequenceDataset(pictures(how)["train"])
    for number in range(3):
        disturb(number)
        before = drawn()
        disturb(number)
        assert probe(items, seed_generator)[:2] == found[:2]
        assert drawn() == before


@pytest.mark.parametrize("how", IMPURE)
def test_items_that_no_seed_makes_pure_are_refused_by_name(how):
    splits = load("tests.programs.own_data:pictures", params={"how": how})
    with pytest.raises(DataError) as error:
        probe_splits(splits, seed_generator)
    text = str(error.value)
    for part in (
        "data.name: 'tests.programs.own_data:pictures', train: item ",
        "was read twice with the same seeds",
        "Make item i a function of i",
        "random, np.random or mx.random",
    ):
        assert part in text


def test_pure_items_are_read_as_ever():
    splits = load("tests.programs.own_data:pictures", params={"how": "plain"})
    same = seeded_splits(splits, probe_splits(splits, seed_generator), 7, seed_generator)
    assert same.train is splits.train
    assert not draws_at_random(same.train)


@pytest.mark.parametrize(
    ("how", "count"),
    [(how, 60) for how in ("numpy", "python", "all at once", "one", "few", "noise on top")]
    + [("numpy", 1), ("python", 2), ("all at once", 3)],
)
def test_items_that_keep_what_they_drew_are_refused_by_name(how, count):
    splits = load("tests.programs.own_data:kept", params={"how": how, "count": count})
    with pytest.raises(DataError) as error:
        probe_splits(splits, seed_generator)
    text = str(error.value)
    assert text.startswith("data.name: 'tests.programs.own_data:kept', train: item ")
    for part in (
        ()
        if how == "noise on top"
        else ("drew random numbers when it was first read", "keeps its value, or a part of it (a cache)")
    ):
        assert part in text


def test_items_read_before_the_probe_are_remembered():
    """Every item has drawn before anybody probes."""
    items = SequenceDataset(Kept("numpy"))
    items.take(np.arange(60))
    with pytest.raises(DataError, match="item 0 drew random numbers when it was first read"):
        probe(items)


@pytest.mark.parametrize(("how", "draws"), [("pure", False), ("drawn on top", True)])
def test_caches_of_what_is_not_random_are_legal(how, draws):
    for _ in range(2):
        items = SequenceDataset(Kept(how))
        items.take(np.arange(60))
        assert [probe(items, seed_generator)[:2] for _ in range(2)] == [(draws, False)] * 2


@pytest.mark.parametrize("how", ["plain", *SEEDED])
def test_the_digest_of_items_is_that_of_any_process_and_any_held_out_part(how):
    digests = set()
    for number in range(3):
        disturb(number)
        splits = load("tests.programs.own_data:pictures", params={"how": how}, validation=8 * number)
        digests.add(probe_splits(splits, seed_generator)["train"].digest)
    assert len(digests) == 1


@pytest.mark.parametrize("how", SEEDED)
def test_a_batch_is_a_function_of_the_iteration_whoever_draws_between(how):
    splits = seeded(how)
    order = Order(96, 4, 8, 7)

    def batch_of(t, shards, disturbance):
        with BatchStream(splits.train, order, shards, Augmentation(), 7) as batches:
            disturb(disturbance)
            if disturbance:
                batches(t % 9 + 1)
            found = batches(t).batches
            return {one.shard: (one.data.tobytes(), one.label.tobytes()) for one in found}

    for t in (1, 4, 5):
        together = batch_of(t, [0, 1, 2, 3], 0)
        assert batch_of(t, [0, 1, 2, 3], 5) == together
        assert {**batch_of(t, [3, 1], 6), **batch_of(t, [0], 7), **batch_of(t, [2], 8)} == together


@pytest.mark.parametrize("how", LEGAL)
def test_every_epoch_and_every_seed_draws_anew(how):
    train = seeded(how).train
    indices = np.arange(24)
    first, again, next_epoch, other_seed = (
        train.take(indices, *draws)[0] for draws in ((1, 7), (1, 7), (2, 7), (1, 8))
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, next_epoch)
    assert not np.array_equal(first, other_seed)
    plain = SequenceDataset(pictures("plain")["train"]).take(indices)[0]
    changes = (first - plain).reshape(24, -1)
    if how == "mxnet":
        assert 4 < np.any(changes, axis=1).sum() < 20  # half of the pictures are flipped
    else:
        assert len(set(changes.mean(axis=1).round(3).tolist())) > 12  # another draw for every item
    np.testing.assert_array_equal(train.take(indices)[0], train.take(indices, 0, 7)[0])


def test_reading_leaves_the_generators_of_others_alone():
    train = seeded("numpy").train
    disturb(3)
    before = drawn()
    disturb(3)
    train.take(np.arange(5))
    assert drawn() == before


def test_random_items_are_read_by_who_asks_for_them():
    """Another thread would draw from the generators that the caller draws from."""
    threads = []

    def item(index):
        threads.append(threading.current_thread())
        return np.array([np.random.normal()]), 0

    items = SequenceDataset(Items(12, item)).seeded(Seeding(0))
    threads.clear()
    with BatchStream(items, Order(12, 1, 3, 0), [0], Augmentation(), 0) as batches:
        for t in (1, 2, 3):
            batches(t)
    list(evaluation_batches(items, 5, Augmentation()))
    assert set(threads) == {threading.current_thread()}
    assert len(threads) == 9 + 1 + 12 + 1  # and one for each look at the shape


def test_held_out_samples_of_random_items_are_seeded_too():
    splits = seeded("numpy", validation=16)
    assert (draws_at_random(splits.train), draws_at_random(splits.validation)) == (True, True)
    first = [batch.data.tobytes() for batch in evaluation_batches(splits.validation, 5, Augmentation())]
    disturb(9)
    assert [batch.data.tobytes() for batch in evaluation_batches(splits.validation, 5, Augmentation())] == first


def test_the_fingerprint_of_random_items_is_one():
    prints = set()
    for number in range(3):
        disturb(number)
        prints.add(seeded("label").fingerprint())
    assert len(prints) == 1


def test_a_few_items_of_many_are_probed():
    asked = []

    def item(index):
        asked.append(index)
        return np.zeros(2), 0

    items = SequenceDataset(Items(1_000_000, item))
    asked.clear()
    assert probe(items)[:2] == (False, False)
    assert len(asked) == 3 * 16
    assert sorted(set(asked))[0] == 0
    assert sorted(set(asked))[-1] == 999_999
    assert asked[:16] != asked[16:32] != asked[32:]
    shared = load("tests.programs.own_data:pictures", validation=8, params={"how": "plain"})
    assert set(probe_splits(shared, None)) == {"train", "validation", "test"}


def test_a_profiler_of_the_users_is_left_alone():
    items = SequenceDataset(pictures("numpy")["train"])

    def profiler(*_):
        """Of the user."""

    sys.setprofile(profiler)
    try:
        found = probe(items, seed_generator)
        left = sys.getprofile()
    finally:
        sys.setprofile(None)
    assert (found[:2], left) == ((True, True), profiler)


def test_cprofile_sees_what_comes_after_a_probe():
    """From Python 3.12 on it is no function that `sys.getprofile` would give."""

    def afterwards():
        """What it has to see."""

    with cProfile.Profile() as profile:
        probe(SequenceDataset(pictures("numpy")["train"]), seed_generator)
        afterwards()
    assert afterwards.__code__ in [entry.code for entry in profile.getstats()]


def test_small_sequences_are_probed_too():
    for count in (1, 2, 3):
        assert probe(SequenceDataset(Items(count, lambda i: (np.full(2, i), 0))))[:2] == (False, False)
        with pytest.raises(DataError, match="was read twice with the same seeds"):
            probe(SequenceDataset(Items(count, lambda i: (np.random.default_rng().normal(size=2), 0))))


def test_items_are_read_by_one_thread_at_a_time():
    """Record files of Gluon are not safe for two, and several data sets may share one."""
    inside, most = [], []

    def item(index):
        inside.append(index)
        most.append(len(inside))
        time.sleep(0.001)
        inside.remove(index)
        return np.zeros(2), 0

    shared = Items(64, item)
    first, second = SequenceDataset(shared), SequenceDataset(shared)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda k: (first, second)[k % 2].take(np.arange(k, 64, 8)), range(8)))
    assert max(most) == 1
