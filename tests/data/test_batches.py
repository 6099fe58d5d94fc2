from __future__ import annotations

import contextlib
import itertools
import threading

import numpy as np
import pytest

from harness.data import ArrayDataset, Augmentation, BatchStream, Order, evaluation_batches
from harness.errors import DataError

AUGMENTATION = Augmentation(pad_crop=1, flip=True, mean=(0.5,), std=(0.25,))


def make_dataset(count: int = 28) -> ArrayDataset:
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (count, 2, 4, 4)).astype(np.uint8)
    return ArrayDataset(images, np.arange(count) % 7, 255.0)


def stream(dataset=None, shards=(0, 1), last_batch="keep", augmentation=AUGMENTATION, batch_size=5):
    dataset = dataset or make_dataset()
    return BatchStream(dataset, Order(len(dataset), 2, batch_size, 3, last_batch), shards, augmentation, seed=3)


class Failing:
    """A data set that cannot read one of its samples, and notes what it was asked for."""

    full_scale, source = 1.0, "failing"

    def __init__(self, broken: int) -> None:
        self.broken = broken
        self.asked: list[list[int]] = []
        self.threads: set[str] = set()
        self.expected: list[int] = []
        self.came = threading.Event()

    def __len__(self) -> int:
        return 12

    def take(self, indices, *draws):
        self.asked.append(indices.tolist())
        self.threads.add(threading.current_thread().name)
        if indices.tolist() == self.expected:
            self.came.set()
        if self.broken in indices and len(indices) > 1:
            raise OSError("bad sector")
        return np.zeros((len(indices), 1), np.float32), np.zeros(len(indices))

    def subset(self, indices):
        raise NotImplementedError

    def labels(self):
        return None


def test_a_batch_holds_the_samples_of_the_order():
    dataset = make_dataset()
    order = Order(28, 2, 5, 3, "keep")
    with stream(dataset, augmentation=Augmentation()) as batches:
        for t in range(1, 8):
            got = batches(t)
            assert got.t == t
            assert got.num_samples == order.global_count(t)
            assert [batch.shard for batch in got.batches] == [0, 1]
            for batch in got.batches:
                data, label = dataset.take(order.shard_indices(t, batch.shard))
                np.testing.assert_array_equal(batch.data, (data / 255).astype(np.float32))
                np.testing.assert_array_equal(batch.label, label)
                assert (batch.data.dtype, batch.label.dtype) == (np.float32, np.int64)
                assert batch.data.flags.c_contiguous
                assert batch.label.flags.c_contiguous


@pytest.mark.parametrize(("count", "sizes"), [(28, [5, 3]), (25, [5, 0])])
def test_ragged_and_empty_shards(count, sizes):
    with stream(make_dataset(count)) as batches:
        last = batches(3)
    assert [len(batch.data) for batch in last.batches] == sizes
    assert [batch.data.shape[1:] for batch in last.batches] == [(2, 4, 4)] * 2
    assert last.num_samples == sum(sizes)
    with stream(make_dataset(count), shards=(1,)) as batches:
        (alone,) = batches(3).batches
    assert len(alone.data) == len(alone.label) == sizes[1]


def test_a_shard_is_the_same_whoever_plays_it():
    with stream() as both, stream(shards=(1,)) as one, stream(shards=(1, 0)) as turned:
        for t in range(1, 8):
            zero, first = both(t).batches
            np.testing.assert_array_equal(one(t).batches[0].data, first.data)
            assert one(t).num_samples == both(t).num_samples
            assert [batch.shard for batch in turned(t).batches] == [1, 0]
            np.testing.assert_array_equal(turned(t).batches[1].data, zero.data)


def test_any_iteration_in_any_order():
    with stream() as batches:
        forward = {t: batches(t).batches[1].data.copy() for t in range(1, 10)}
        for t in (9, 1, 2, 5, 5, 4, 6, 7, 1, 9):
            np.testing.assert_array_equal(batches(t).batches[1].data, forward[t])


def test_a_sample_is_augmented_anew_every_epoch():
    dataset = make_dataset(10)
    order = Order(10, 2, 5, 3)
    with stream(dataset, augmentation=Augmentation(pad_crop=1)) as batches:
        epochs = []
        for t in (1, 2):
            images = np.concatenate([batch.data for batch in batches(t).batches])
            epochs.append(images[np.argsort(order.global_indices(t))])
    assert not np.array_equal(*epochs)


def test_batches_are_never_overwritten():
    with stream() as batches:
        first = batches(1).batches[0]
        before = first.data.copy()
        others = [batches(t).batches[0].data for t in range(2, 6)]
        np.testing.assert_array_equal(first.data, before)
        assert not any(np.shares_memory(first.data, other) for other in others)


def test_the_next_batch_is_read_ahead_by_one_thread():
    dataset = Failing(broken=-1)
    order = Order(12, 1, 3, 0)
    with BatchStream(dataset, order, [0], Augmentation(), 0) as batches:
        dataset.asked.clear()
        dataset.threads.clear()
        batches(1)
        batches(2)
        dataset.expected = order.global_indices(4).tolist()
        batches(3)
        assert dataset.came.wait(30)  # for the fourth, which nobody has asked for
    assert dataset.asked[:3] == [order.global_indices(t).tolist() for t in (1, 2, 3)]
    assert len(dataset.asked) == 4
    assert len(dataset.threads) == 1
    assert threading.current_thread().name not in dataset.threads


def test_an_error_of_the_thread_reaches_the_call_that_asks_for_the_batch():
    order = Order(12, 1, 3, 0)
    broken = int(order.global_indices(3)[0])
    with BatchStream(Failing(broken), order, [0], Augmentation(), 0) as batches:
        batches(1)
        batches(2)
        for _ in range(2):
            with pytest.raises(OSError, match="bad sector"):
                batches(3)
        assert batches(4).t == 4


def test_close_ends_the_thread():
    batches = stream()
    batches(1)
    assert any(thread.name.startswith("batches") for thread in threading.enumerate())
    batches.close()
    batches.close()
    assert not any(thread.name.startswith("batches") for thread in threading.enumerate())
    with pytest.raises(RuntimeError):
        batches(2)


def test_an_error_of_the_caller_ends_the_thread():
    with contextlib.suppress(KeyError), stream() as batches:
        batches(1)
        raise KeyError
    assert not any(thread.name.startswith("batches") for thread in threading.enumerate())


def test_parts_that_do_not_fit():
    with pytest.raises(ValueError, match="the order is for 27 samples, but the data set has 28"):
        BatchStream(make_dataset(), Order(27, 1, 5, 0), [0], AUGMENTATION, 0)
    for shards in ([], [2], [0, -1]):
        with pytest.raises(ValueError, match="give some of 0 to 1"):
            stream(shards=shards)
    with pytest.raises(DataError, match="3 values of mean"):
        stream(augmentation=Augmentation(mean=(0.1, 0.2, 0.3)))


@pytest.mark.parametrize(("count", "batch_size"), [(28, 5), (25, 5), (3, 5), (1, 1)])
@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_evaluation_sees_every_sample_once(count, batch_size, ranks):
    dataset = make_dataset(count)
    parts = [list(evaluation_batches(dataset, batch_size, AUGMENTATION, rank, ranks)) for rank in range(ranks)]
    for rank, part in enumerate(parts):
        assert [batch.number % ranks for batch in part] == [rank] * len(part)
    together = sorted(itertools.chain(*parts), key=lambda batch: batch.number)
    assert [batch.number for batch in together] == list(range(-(-count // batch_size)))
    np.testing.assert_array_equal(
        np.concatenate([batch.data for batch in together]), AUGMENTATION.evaluate(dataset.data, 255.0)
    )
    np.testing.assert_array_equal(np.concatenate([batch.label for batch in together]), dataset.label)
    assert all(batch.label.dtype == np.int64 for batch in together)


def test_the_next_batch_of_an_evaluation_is_read_ahead():
    dataset = Failing(broken=-1)
    dataset.expected = [8, 9]
    batches = evaluation_batches(dataset, 2, Augmentation(), first=0, step=2)
    assert [next(batches).number, next(batches).number] == [0, 2]
    assert dataset.came.wait(30)
    batches.close()
    assert dataset.asked[1:] == [[0, 1], [4, 5], [8, 9]]


def test_an_evaluation_left_early_ends_its_thread():
    batches = evaluation_batches(make_dataset(), 5, AUGMENTATION)
    next(batches)
    batches.close()
    assert not any(thread.name.startswith("evaluation") for thread in threading.enumerate())


def test_an_evaluation_raises_what_reading_raises():
    batches = evaluation_batches(Failing(broken=4), 3, Augmentation())
    assert next(batches).number == 0
    with pytest.raises(OSError, match="bad sector"):
        next(batches)


def test_an_evaluation_complains_before_it_starts():
    with pytest.raises(ValueError, match="at least 1, 0 and 1"):
        evaluation_batches(make_dataset(), 0, AUGMENTATION)
    with pytest.raises(DataError, match="3 values of mean"):
        evaluation_batches(make_dataset(), 5, Augmentation(mean=(0.1, 0.2, 0.3)))
