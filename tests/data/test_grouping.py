"""Batches of samples of alike lengths, and batches that a function of the user's own names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.data import ArrayDataset, BatchStream, GroupBy, Order, SequenceDataset, sweep_order
from harness.data.augment import Augmentation
from harness.errors import ConfigError, DataError

N = 103
LENGTHS = np.random.default_rng(3).integers(1, 31, N)
WIDTHS = [5, 10, 20, 30]


def ordered(widths=WIDTHS, batches=None, last_batch="drop", shards=2, batch_size=5, **more):
    given = GroupBy.of(None if batches else {"widths": widths}, batches)
    grouping = given.make(LENGTHS.copy(), shards * batch_size)
    return Order(N, shards, batch_size, 0, last_batch, grouping=grouping, **more)


def epoch_of(order, epoch):
    count = order.iterations_per_epoch
    return [order.global_indices((epoch - 1) * count + number) for number in range(1, count + 1)]


def alike(lengths, epoch, seed):
    """Batches of up to 60 steps each; as many in every epoch, because ties alone are left to chance."""
    random = np.random.default_rng([seed, epoch])
    order = np.lexsort([random.random(len(lengths)), lengths])
    batches, begin = [], 0
    for end in range(1, len(order) + 1):
        if end == len(order) or lengths[order[end]] * (end + 1 - begin) > 60 or end - begin == 10:
            batches.append(order[begin:end])
            begin = end
    return [batches[i] for i in random.permutation(len(batches))]


@pytest.mark.parametrize("last_batch", ["drop", "keep"])
def test_buckets_have_every_sample_once_in_as_many_batches_as_without(last_batch):
    order, plain = ordered(last_batch=last_batch), Order(N, 2, 5, 0, last_batch)
    for epoch in (1, 2, 3):
        batches = epoch_of(order, epoch)
        assert [len(batch) for batch in batches] == [len(batch) for batch in epoch_of(plain, epoch)]
        seen = np.concatenate(batches)
        assert len(set(seen)) == len(seen) == (N if last_batch == "keep" else 100)


@pytest.mark.parametrize("last_batch", ["drop", "keep"])
def test_samples_of_a_batch_are_of_one_bucket_or_of_neighbours(last_batch):
    """All but one batch for each border between buckets are of one bucket."""
    order, numbers = ordered(last_batch=last_batch), np.searchsorted(WIDTHS, LENGTHS)
    for epoch in range(1, 20):
        spans = [np.ptp(numbers[batch]) for batch in epoch_of(order, epoch)]
        assert sum(span > 0 for span in spans) <= len(WIDTHS)
    mixed = np.mean([np.ptp(LENGTHS[batch]) for batch in epoch_of(Order(N, 2, 5, 0), 1)])
    assert np.mean([np.ptp(LENGTHS[batch]) for batch in epoch_of(order, 1)]) < mixed / 2


def test_what_is_dropped_or_comes_together_is_left_to_chance():
    order = ordered()
    dropped = [frozenset(range(N)) - set(np.concatenate(epoch_of(order, epoch)).tolist()) for epoch in range(1, 60)]
    assert len(frozenset.union(*dropped)) > N / 2
    first = [epoch_of(order, epoch)[0].tolist() for epoch in range(1, 20)]
    assert len({min(batch) for batch in first}) > 10
    kept = ordered(last_batch="keep")
    assert len({int(LENGTHS[epoch_of(kept, epoch)[-1]].max()) for epoch in range(1, 40)}) > 5


def test_one_bucket_is_a_shuffle_of_all_and_an_order_is_a_function_of_its_settings():
    assert sorted(np.concatenate(epoch_of(ordered([30], last_batch="keep"), 1))) == list(range(N))
    for made in (lambda: ordered(), lambda: ordered(last_batch="keep"), lambda: ordered(batches=alike)):
        order, again = made(), made()
        backwards = [again.global_indices(t).tolist() for t in range(30, 0, -1)]
        assert [order.global_indices(t).tolist() for t in range(1, 31)] == backwards[::-1]
        other = replace(order, seed=1)
        assert [batch.tolist() for batch in epoch_of(other, 1)] != [batch.tolist() for batch in epoch_of(order, 1)]


def test_shards_are_slices_of_a_batch_and_the_last_may_be_empty():
    order = ordered(last_batch="keep")
    for t in range(1, 12):
        parts = [order.shard_indices(t, shard).tolist() for shard in range(2)]
        assert [*parts[0], *parts[1]] == order.global_indices(t).tolist()
    assert [len(order.shard_indices(11, shard)) for shard in range(2)] == [3, 0]


def test_a_number_of_widths_are_equal_steps():
    lengths = np.array([3, 4, 7, 8, 12, 13])
    for count, numbers in ((1, [0] * 6), (2, [0, 0, 0, 0, 1, 1]), (5, [0, 0, 1, 2, 4, 4])):
        assert GroupBy.of({"widths": count}, None).make(lengths, 2).numbers.tolist() == numbers


def test_own_batches_may_have_any_size():
    order = ordered(batches=alike)
    sizes = [order.global_count(t) for t in range(1, order.iterations_per_epoch + 1)]
    assert len(set(sizes)) > 3
    assert sum(sizes) == N
    for t, size in enumerate(sizes, start=1):
        parts = [order.shard_indices(t, shard) for shard in range(2)]
        assert [len(part) for part in parts] == [-(-size // 2), size // 2]
        assert np.concatenate(parts).tolist() == order.global_indices(t).tolist()
    assert order.epoch(len(sizes)) == 1
    assert order.epoch(len(sizes) + 1) == 2


@pytest.mark.parametrize("batches", [None, alike])
def test_sweeps_of_the_finder_have_batches_of_their_own(batches):
    order = ordered(batches=batches)
    others = [sweep_order(order, sweep)[0] for sweep in (0, 1)]
    found = [str([batch.tolist() for batch in epoch_of(one, 1)]) for one in (order, *others)]
    assert len(set(found)) == 3


def test_a_stream_has_the_samples_of_own_batches():
    order = ordered(batches=alike, shards=4, batch_size=3)
    dataset = ArrayDataset(np.arange(N, dtype=np.float32)[:, None], np.arange(N))
    with BatchStream(dataset, order, range(4), Augmentation(), 0) as stream:
        for t in (1, 7, order.iterations_per_epoch + 2):
            batch = stream(t)
            assert batch.num_samples == order.global_count(t)
            assert np.concatenate([one.label for one in batch.batches]).tolist() == order.global_indices(t).tolist()


ITEMS = [({"ids": np.zeros(length), "size": 2 * length}, np.zeros((3, length))) for length in (4, 7, 5)]


@pytest.mark.parametrize(
    ("by", "found"),
    [
        ("data", [4, 7, 5]),
        ("data['ids']", [4, 7, 5]),
        ("data['size']", [8, 14, 10]),
        ("label", [3, 3, 3]),
        (lambda item: item[1].shape[1] + 1, [5, 8, 6]),
    ],
)
def test_what_the_length_of_a_sample_is(by, found):
    length = GroupBy.of({"by": by, "widths": 1}, None).length
    items = SequenceDataset(ITEMS, is_ragged=True)
    assert length(items).tolist() == found
    assert length(items, 1, 2).tolist() == found[1::2]
    assert length(items.subset(np.array([2, 0]))).tolist() == [found[2], found[0]]


def test_lengths_of_arrays_are_not_read_one_by_one():
    sizes = np.arange(20) % 7
    arrays = ArrayDataset((np.zeros((20, 9)), sizes), sizes[::-1].copy())
    for by, found in (("data", [9] * 20), ("data[1]", sizes), ("label", sizes[::-1])):
        length = GroupBy.of({"by": by, "widths": 1}, None).length
        assert length(arrays).tolist() == list(found)
        assert length(arrays.subset(np.arange(5, 15)).subset(np.arange(3))).tolist() == list(found[5:8])


@pytest.mark.parametrize(
    ("by", "message"),
    [
        (
            "data[0]",
            r"data\.bucket\.by: 'data\[0\]': there is no such array; items have data\['ids'\], data\['size'\], data",
        ),
        (lambda item: 0.5, r"data\.bucket\.by: .*: gave 0\.5 for item 0; a length is a whole number from 0"),
        (lambda item: -1, "gave -1 for item 0; a length is a whole number from 0"),
        (lambda item: "a", "gave 'a' for item 0"),
        (lambda item: item[2], r"raised IndexError: tuple index out of range for item 0"),
    ],
)
def test_lengths_that_are_refused(by, message):
    with pytest.raises(DataError, match=message):
        GroupBy.of({"by": by, "widths": 1}, None).length(SequenceDataset(ITEMS, is_ragged=True))


def test_a_sample_longer_than_every_bucket_is_refused():
    with pytest.raises(
        DataError, match=r"data\.bucket: sample \d+ has a length of 30, more than the widest bucket, 20"
    ):
        ordered([10, 20])


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (lambda lengths, epoch, seed: [list(range(11))], r"batch 0 of epoch 1 has 11 samples, but .* has at most 10"),
        (lambda lengths, epoch, seed: [[0.5]], r"batch 0 of epoch 1 is float64 of the shape \(1,\); give the numbers"),
        (lambda lengths, epoch, seed: [[1], []], "batch 1 of epoch 1 is empty; give the numbers of its samples"),
        (lambda lengths, epoch, seed: [[103]], "there is no sample 103; samples are 0 to 102"),
        (lambda lengths, epoch, seed: [[-1]], "there is no sample -1"),
        (lambda lengths, epoch, seed: [], "gave no batches for epoch 1; give at least one"),
        (
            lambda lengths, epoch, seed: [[1]] * epoch,
            "gave 2 batches for epoch 2, but 1 for epoch 1; give equally many",
        ),
        (lambda lengths, epoch, seed: [[np.random.randint(9)]], "draws from the global generators"),
        (
            lambda lengths, epoch, seed: [np.random.default_rng().permutation(99)[:10].tolist()],
            "was called twice for epoch 1",
        ),
        (lambda lengths, epoch, seed: lengths.sort(), r"raised ValueError: .*read-only for epoch 1 \(at .*:\d+\)"),
    ],
)
def test_batches_that_are_refused(batches, message):
    with pytest.raises(DataError, match=message):
        ordered(batches=batches)


def test_a_later_epoch_with_another_number_of_batches_is_refused():
    order = ordered(batches=lambda lengths, epoch, seed: [[1], [2]] if epoch < 3 else [[1]])
    assert order.global_indices(4).tolist() == [2]
    with pytest.raises(DataError, match="gave 1 batches for epoch 3, but 2 for epoch 1"):
        order.global_indices(5)


def test_functions_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"data\.batches: .*takes \(a\), but is called with \(lengths, epoch, seed\)"):
        GroupBy.of(None, lambda a: a)
    with pytest.raises(ConfigError, match=r"data\.bucket\.by: .*takes \(\), but is called with \(item\)"):
        GroupBy.of({"by": lambda: 1, "widths": 1}, None)
