from __future__ import annotations

import numpy as np
import pytest

from harness.data import ArrayDataset, Augmentation, BatchStream, Order, SequenceDataset
from harness.errors import DataError


class FakeNDArray:
    """Like MXNet's arrays: NumPy only by request."""

    def __init__(self, values) -> None:
        self.values = np.array(values)

    def asnumpy(self) -> np.ndarray:
        return self.values


def arrays(count=6, dtype=np.uint8, label=np.int64):
    return np.arange(count * 4).reshape(count, 1, 2, 2).astype(dtype), np.arange(count).astype(label)


def test_take_gives_fresh_rows_in_the_asked_order():
    data, label = arrays()
    dataset = ArrayDataset(data, label, 255.0)
    rows, labels = dataset.take(np.array([4, 0, 4]))
    np.testing.assert_array_equal(rows, data[[4, 0, 4]])
    assert labels.tolist() == [4, 0, 4]
    assert not np.shares_memory(rows, data)
    assert len(dataset) == 6


def test_a_subset_is_an_index_and_not_a_copy():
    data, label = arrays()
    outer = ArrayDataset(data, label, 16.0, "somewhere").subset(np.array([5, 3, 1, 0]))
    inner = outer.subset(np.array([2, 0]))
    assert inner.dataset.data is data
    assert (len(outer), len(inner)) == (4, 2)
    assert inner.take(np.array([1, 0]))[1].tolist() == [5, 1]
    assert inner.labels().tolist() == [1, 5]
    assert (inner.full_scale, inner.source) == (16.0, "somewhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": np.zeros((6, 2), complex)}, "data is complex128; allowed are integers, float32 and float64"),
        ({"data": np.zeros((6, 2), np.longdouble)}, "data is float128; allowed are"),
        ({"data": np.zeros(6, np.uint8)}, "a sample is a single number"),
        ({"data": np.zeros((5, 2), np.uint8)}, r"shape \(5, 2\) and labels \(6,\)"),
        ({"data": np.zeros((0, 2), np.uint8), "label": np.zeros(0, int)}, "no samples"),
        ({"data": np.zeros((6, 2, 0), np.uint8)}, r"a sample has the shape \(2, 0\), which is empty"),
        ({"label": np.array(["a"] * 6)}, "labels are <U1; give integer classes"),
        ({"full_scale": 0.0}, "full_scale is 0.0"),
        ({"data": np.zeros((6, 2), np.float32)}, "float data is not rescaled; leave it at 1"),
    ],
)
def test_arrays_that_cannot_be_used(change, message):
    data, label = arrays()
    with pytest.raises(DataError, match=f"^here: .*{message}"):
        ArrayDataset(**{"data": data, "label": label, "full_scale": 255.0, "source": "here"} | change)


def test_a_sequence_of_mxnet_arrays_reads_like_arrays():
    data, label = arrays()
    items = [(FakeNDArray(sample), int(one)) for sample, one in zip(data, label, strict=True)]
    dataset = SequenceDataset(items)
    assert (len(dataset), dataset.full_scale, dataset.labels()) == (6, 255.0, None)
    for indices in (np.array([4, 0, 4]), np.array([], np.int64)):
        expected = ArrayDataset(data, label, 255.0).take(indices)
        for got, wanted in zip(dataset.take(indices), expected, strict=True):
            np.testing.assert_array_equal(got, wanted)
            assert got.dtype == wanted.dtype
    assert dataset.subset(np.array([3, 2])).take(np.array([1]))[1].tolist() == [2]
    assert dataset.subset(np.array([3, 2])).labels() is None


def test_a_sequence_of_floats_is_not_rescaled():
    dataset = SequenceDataset([(np.ones(3, np.float32), np.array([0.5, 1.5]))] * 2)
    assert dataset.full_scale == 1.0
    assert dataset.take(np.array([1]))[1].tolist() == [[0.5, 1.5]]


def test_items_that_cannot_be_used():
    with pytest.raises(DataError, match="no samples"):
        SequenceDataset([])
    with pytest.raises(DataError, match=r"^here: item 0 is an int; an item is a pair \(data, label\)"):
        SequenceDataset([1, 2], source="here")
    with pytest.raises(DataError, match="a sample is a single number"):
        SequenceDataset([(1.0, 2)])
    mixed = SequenceDataset([(np.zeros((2, 2), np.uint8), 0), (np.zeros((2, 3), np.uint8), 0)])
    with pytest.raises(DataError, match=r"the data of item 1 is uint8 \(2, 3\), but that of item 0 is uint8 \(2, 2\)"):
        mixed.take(np.array([0, 1]))


def test_a_gluon_data_set_feeds_a_stream():
    mx = pytest.importorskip("mxnet", reason="MXNet is not installed")
    data, label = arrays(dtype=np.float32, label=np.float32)
    items = mx.gluon.data.ArrayDataset(mx.nd.array(data), mx.nd.array(label)).transform_first(lambda image: image / 2)
    order = Order(6, 1, 3, seed=0)
    with BatchStream(SequenceDataset(items), order, [0], Augmentation(), seed=0) as batches:
        for t in (1, 2, 3):
            (batch,) = batches(t).batches
            np.testing.assert_array_equal(batch.data, data[order.global_indices(t)] / 2)
            np.testing.assert_array_equal(batch.label, label[order.global_indices(t)])
