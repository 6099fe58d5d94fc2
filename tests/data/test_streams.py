"""Samples as streams: every row reads consecutive ones, and an evaluation reads every sample once."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from harness.data import ArrayDataset, Augmentation, BatchStream, EvaluationStreams, Order, sweep_order
from harness.errors import DataError


@pytest.mark.parametrize(("num_samples", "shards", "size"), [(77, 4, 3), (24, 1, 1), (12, 3, 4), (50, 2, 7)])
def test_every_row_reads_on_where_it_was(num_samples, shards, size):
    order = Order(num_samples, shards, size, seed=0, are_streams=True)
    length = num_samples // (shards * size)
    assert order.iterations_per_epoch == length
    for shard in range(shards):
        rows = np.array([order.shard_indices(t, shard) for t in range(1, length + 1)]).T
        first = [(shard * size + row) * length for row in range(size)]
        assert rows.tolist() == [list(range(begin, begin + length)) for begin in first]
        assert order.shard_indices(length + 1, shard).tolist() == first
    assert [order.begins(t) for t in range(1, 2 * length + 1)] == 2 * [True, *[False] * (length - 1)]


def test_the_finder_reads_the_same_streams_from_elsewhere():
    order = Order(100, 2, 5, seed=3, are_streams=True)
    other, _ = sweep_order(order, 0)
    rows = np.array([other.global_indices(t) for t in range(1, 11)])
    assert ((rows[1:] - rows[:-1]) % 100 == 1).all()
    assert sorted(rows.reshape(-1).tolist()) == list(range(100))
    assert rows[0].tolist() != order.global_indices(1).tolist()
    assert other.begins(1)


def test_a_stream_says_when_states_begin():
    data = ArrayDataset(np.zeros((13, 2), np.float32), np.zeros(13, np.float32))
    order = Order(13, 2, 2, seed=0, are_streams=True)
    with BatchStream(data, order, [0, 1], Augmentation(), seed=0) as stream:
        assert [stream(t).begins for t in range(1, 8)] == [True, False, False, True, False, False, True]


def test_streams_have_no_smaller_batch():
    with pytest.raises(DataError, match="last_batch is 'keep', but rows that read streams of samples are equally many"):
        Order(13, 2, 2, seed=0, last_batch="keep", are_streams=True)


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
@pytest.mark.parametrize(
    ("num_samples", "streams", "rows"), [(29, 12, 3), (29, 3, 3), (5, 12, 3), (24, 4, 1), (7, 1, 4)]
)
def test_an_evaluation_reads_every_sample_once(num_samples, streams, rows, ranks):
    order = EvaluationStreams(num_samples, streams, rows, ranks)
    assert len(order) % ranks == 0
    parts = {number: order.part(number) for number in range(len(order))}
    found = {number: part for number, part in parts.items() if part is not None}
    assert sorted(np.concatenate(list(found.values())).tolist()) == list(range(num_samples))
    assert all(len(part) <= rows for part in found.values())
    groups = {}
    for number, part in found.items():
        groups.setdefault(order.group(number), []).append(part)
        assert order.group(number) % ranks == number % ranks  # so a group is one rank's
    for group in groups.values():
        assert all((after == before + 1).all() for before, after in itertools.pairwise(group))
    alone = EvaluationStreams(num_samples, streams, rows, 1)
    expected = [part for part in map(alone.part, range(len(alone))) if part is not None]
    assert [part.tolist() for part in found.values()] == [part.tolist() for part in expected]
