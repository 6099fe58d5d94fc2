"""Sums of rows: the order of the tree for any number of shards and workers, bit for bit; and their message."""

from __future__ import annotations

import numpy as np
import pytest

from harness.comm.rows import RowFold, Rows, finish, pack, unpack
from harness.comm.tree import assign

WIDTHS = (3, 1)


def shard_of(random, num_rows=12, width=3):
    """Some rows, perhaps none, with cancellation, denormals and signed zeros among their numbers."""
    indices = np.flatnonzero(random.random(num_rows) < random.choice([0.0, 0.3, 1.0]))
    values = random.normal(size=(indices.size, width)) * 10.0 ** random.integers(-40, 20, (indices.size, width))
    values[random.random(values.shape) < 0.2] = -0.0
    return Rows(indices, values.astype(np.float32))


def by_definition(shards, width):
    """Row by row: what the tree over all shards leaves of those that have it."""
    table = {}
    for index in range(12):
        terms = [one.values[list(one.indices).index(index)] if index in one.indices else None for one in shards]
        while len(terms) > 1:
            half = (len(terms) + 1) // 2
            for i in range(len(terms) - half):
                pair = [one for one in (terms[i], terms[i + half]) if one is not None]
                terms[i] = None if not pair else pair[0] if len(pair) == 1 else pair[0] + pair[1]
            terms = terms[:half]
        if terms[0] is not None:
            table[index] = terms[0]
    values = np.array([table[index] for index in table], np.float32).reshape(-1, width)
    return np.array(list(table), np.int64), values


@pytest.mark.parametrize("shards", [1, 2, 3, 5, 6, 8, 13])
def test_any_number_of_workers_has_the_bits_of_the_tree(shards):
    random = np.random.default_rng(shards)
    for _ in range(5):
        terms = [tuple(shard_of(random, width=width) for width in WIDTHS) for _ in range(shards)]
        expected = [by_definition([term[i] for term in terms], width) for i, width in enumerate(WIDTHS)]
        for workers in range(1, shards + 1):
            assignment, parts = assign(shards, workers), []
            for own, merges, held in zip(assignment.shards, assignment.merges, assignment.held, strict=True):
                fold = RowFold(merges)
                for _ in range(2):  # the second time over what the first has left
                    fold.begin()
                    for shard in own:
                        fold.push(terms[shard])
                parts += unpack(pack(fold.parts), WIDTHS, held)
            for rows, (indices, values) in zip(finish(parts, assignment), expected, strict=True):
                np.testing.assert_array_equal(rows.indices, indices)
                assert rows.values.tobytes() == values.tobytes()


def test_a_row_of_one_alone_is_copied():
    """0 + -0 is 0: a zero that nobody has would change bits."""
    one, other = Rows(np.array([1]), np.float32([[-0.0]])), Rows(np.array([2]), np.float32([[-0.0]]))
    for total in (one.plus(other), other.plus(one)):
        assert np.signbit(total.values).tolist() == [[True], [True]]


def test_adding_changes_neither():
    one, other = (Rows(np.array([1, 2]), np.ones((2, 1), np.float32)) for _ in range(2))
    one.plus(other)
    assert one.values.tolist() == other.values.tolist() == [[1.0], [1.0]]


@pytest.mark.parametrize("num_parts", [1, 3])
def test_a_message_comes_out_as_it_went_in(num_parts):
    random = np.random.default_rng(3)
    parts = [tuple(shard_of(random, width=width) for width in WIDTHS) for _ in range(num_parts)]
    message = pack(parts)
    assert message.dtype == np.uint8
    for part, received in zip(parts, unpack(message, WIDTHS, num_parts), strict=True):
        for rows, its in zip(part, received, strict=True):
            np.testing.assert_array_equal(rows.indices, its.indices)
            assert rows.values.tobytes() == its.values.tobytes()
            assert its.values.shape == rows.values.shape


def test_nothing_is_a_message_as_well():
    (received,) = unpack(pack([(Rows.none(3), Rows.none(1))]), WIDTHS, 1)
    assert [rows.values.shape for rows in received] == [(0, 3), (0, 1)]
    assert sum(rows.square for rows in received) == 0


def test_the_square_is_that_of_float64():
    values = np.float32([[3e20, 4e20]])
    assert Rows(np.array([7]), values).square == pytest.approx(25e40, rel=1e-7)
