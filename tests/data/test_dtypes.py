"""Types of numbers: integers stay integers, floats become float32, and nothing is lost in silence."""

from __future__ import annotations

import numpy as np
import pytest

from harness.data import (
    ArrayDataset,
    Augmentation,
    BatchStream,
    Order,
    SequenceDataset,
    evaluation_batches,
    make_splits,
)
from harness.data.dtypes import as_float32, as_they_are, counted, default_scale
from harness.data.scales import describe_scale, rescaled
from harness.errors import DataError

NAME = counted("here: sample")


def first_batch(dataset, augmentation=None):
    with BatchStream(dataset, Order(len(dataset), 1, 2, 0), [0], augmentation or Augmentation(), 0) as batches:
        (batch,) = batches(1).batches
    return batch


@pytest.mark.parametrize(
    ("dtype", "becomes"),
    [
        ("int8", "int8"),
        ("uint8", "uint8"),
        ("int16", "int32"),
        ("uint16", "int32"),
        ("int32", "int32"),
        (">i4", "int32"),
        ("uint32", "int64"),
        ("int64", "int64"),
        (">i8", "int64"),
        ("uint64", "int64"),
        ("float16", "float32"),
        ("float32", "float32"),
        (">f4", "float32"),
        ("float64", "float32"),
    ],
)
def test_every_type_arrives_as_one_that_mxnet_has(dtype, becomes):
    kind = np.dtype(dtype)
    limits = np.finfo(np.float16) if kind.kind == "f" else np.iinfo(kind)
    values = np.array([[0], [limits.max if kind != np.uint64 else 2**63 - 1], [limits.min]]).astype(kind)
    got = as_they_are(values, NAME)
    assert (got.dtype, got.dtype.isnative, got.flags.c_contiguous) == (np.dtype(becomes), True, True)
    assert got.tolist() == values.tolist()
    dataset = ArrayDataset(np.repeat(values, 2, axis=1), values[:, 0], None)
    batch = first_batch(dataset)
    assert (batch.data.dtype, batch.label.dtype) == (np.dtype(becomes), np.dtype(becomes))
    (evaluated, _) = evaluation_batches(dataset, 2, Augmentation())
    assert (evaluated.data.dtype, evaluated.label.dtype) == (np.dtype(becomes), np.dtype(becomes))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (1e39, "1e+39, which exceeds float32"),
        (-1e300, "-1e+300, which exceeds float32"),
        (1e-50, "1e-50, which becomes 0 in float32"),
        (-5e-324, "-5e-324, which becomes 0 in float32"),
        (2.0**24 + 1, "16777217.0, which is a whole number that float32 cannot hold"),
        (1_700_000_001.0, "1700000001.0, which is a whole number that float32 cannot hold"),
        (float(2**53), None),
        (2.0**24 + 2, None),
        (0.1, None),
        (1_700_000_001.5, None),
        (1e-40, None),
        (3.4e38, None),
        (float("inf"), None),
    ],
)
def test_doubles_that_float32_cannot_hold(value, why):
    values = np.array([[0.0, 1.0], [2.0, value]])
    if why is None:
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(as_float32(values, NAME), values.astype(np.float32))
        return
    with pytest.raises(DataError, match=r"^here: sample 1 has the value ") as error:
        as_float32(values, NAME)
    assert why in str(error.value)


@pytest.mark.parametrize("value", [2**24 + 1, -(2**24) - 1, 2**62 + 1, 2**63 - 1])
def test_integers_that_float32_cannot_hold(value):
    values = np.array([1, 2, value])
    with pytest.raises(DataError, match=rf"sample 2 has the value {value}, which is a whole number"):
        as_float32(values, NAME)
    assert as_float32(np.array([2**24, -(2**24), 2**30, 2**62]), NAME).tolist() == [2**24, -(2**24), 2**30, 2**62]


def test_unsigned_numbers_beyond_int64_are_refused():
    with pytest.raises(DataError, match=r"sample 0 has the value 9223372036854775808, which exceeds int64"):
        as_they_are(np.array([2**63], np.uint64), NAME)
    with pytest.raises(DataError, match=r"the train split: sample 1 has the value 18446744073709551615"):
        make_splits(ArrayDataset(np.array([[1], [2**64 - 1]], np.uint64), np.zeros(2, int)))
    with pytest.raises(DataError, match=r"the train split: label 1 has the value 18446744073709551615"):
        make_splits(ArrayDataset(np.zeros((2, 1)), np.array([1, 2**64 - 1], np.uint64)))


@pytest.mark.parametrize("row", [0, 4097, 9_999])
def test_arrays_in_memory_are_looked_at_whole(row):
    data = np.zeros((10_000, 2))
    data[row, 1] = 1e-60
    for dataset in (
        ArrayDataset(data, np.zeros(10_000)),
        ArrayDataset(data, np.zeros(10_000)).subset(np.arange(10_000)),
    ):
        with pytest.raises(DataError, match=rf"the train split: sample {row} has the value 1e-60, which becomes 0"):
            make_splits(dataset)
    with pytest.raises(DataError, match=rf"the test split: label {row} has the value 1e-60"):
        make_splits(ArrayDataset(np.zeros((9, 2)), np.zeros(9)), test=ArrayDataset(np.zeros((10_000, 2)), data[:, 1]))


def test_mapped_arrays_and_items_are_looked_at_when_they_are_read(tmp_path):
    data = np.zeros((6, 2))
    data[3, 1] = 2.0**24 + 1
    np.save(tmp_path / "data.npy", data)
    mapped = ArrayDataset(np.load(tmp_path / "data.npy", mmap_mode="r"), np.zeros(6), source="there")
    items = SequenceDataset([(sample, 0.0) for sample in data], source="there")
    for dataset in (mapped, items):
        assert make_splits(dataset).num_classes is None
        with pytest.raises(DataError, match=r"^there: sample [01] has the value 16777217.0, which is a whole number"):
            first_batch(dataset.subset(np.array([3, 3])))
        with pytest.raises(DataError, match=r"^there: sample 3 has the value 16777217.0, which is a whole number"):
            list(evaluation_batches(dataset, 6, Augmentation()))
    with pytest.raises(DataError, match=r"^there: label 3 has the value 16777217.0"):
        list(evaluation_batches(ArrayDataset(np.zeros((6, 2)), data[:, 1], source="there"), 6, Augmentation()))


@pytest.mark.parametrize(
    ("dtype", "shape", "scale"),
    [
        ("uint8", (1, 8, 8), 255.0),
        ("uint8", (3, 8, 8), 255.0),
        ("uint8", (4, 8, 8), 255.0),
        ("uint8", (8, 8, 3), 255.0),
        ("uint8", (8, 8, 1), 255.0),
        ("uint8", (8, 8), None),
        ("uint8", (4,), None),
        ("uint8", (2, 8, 8), None),
        ("uint8", (3, 8, 8, 8), None),
        ("int8", (3, 8, 8), None),
        ("int64", (3, 8, 8), None),
        ("float32", (3, 8, 8), 1.0),
        ("float64", (4,), 1.0),
    ],
)
def test_bytes_are_divided_where_they_are_pictures(dtype, shape, scale):
    assert default_scale(np.dtype(dtype), shape) == scale
    assert SequenceDataset([(np.ones(shape, dtype), 0)]).full_scale == scale


def test_a_scale_of_the_users():
    tokens = make_splits(ArrayDataset(np.array([[0, 51], [255, 1]], np.uint8), np.zeros(2, int)))
    assert describe_scale(tokens.train) == "uint8 unchanged"
    assert first_batch(tokens.train).data.dtype == np.uint8
    divided = rescaled(tokens, 255)
    assert describe_scale(divided.train) == "bytes / 255"
    assert first_batch(divided.train).data.max() == 1.0
    assert first_batch(rescaled(tokens, 1).train).data.dtype == np.float32
    pictures = make_splits(ArrayDataset(np.full((4, 3, 8, 8), 7, np.uint8), np.zeros(4, int), 255.0))
    kept = rescaled(pictures, "keep")
    assert (first_batch(kept.train).data.dtype, describe_scale(kept.train)) == (np.uint8, "uint8 unchanged")
    halved = rescaled(make_splits(pictures.train.subset(np.arange(2)), test=pictures.train), 14)
    assert (first_batch(halved.train).data.max(), halved.test.full_scale) == (0.5, 14.0)
    items = make_splits(SequenceDataset([(np.full(3, 7, np.int16), 0.5)] * 3))
    assert first_batch(rescaled(items, 14).train).data.max() == 0.5
    assert describe_scale(items.train) == "int16 unchanged"
    assert items.train.full_scale is None
    with pytest.raises(DataError, match=r"^data.scale: 255: no effect on float data"):
        rescaled(make_splits(ArrayDataset(np.zeros((2, 1)), np.zeros(2))), 255)


def test_a_scale_of_one_refuses_what_floats_cannot_hold():
    ids = ArrayDataset(np.array([[1], [2**24 + 1]]), np.zeros(2, int), None)
    assert first_batch(make_splits(ids).train).data.tolist().count([2**24 + 1]) == 1
    with pytest.raises(DataError, match=r"sample 1 has the value 16777217, .*without a scale"):
        make_splits(ids.with_scale(1.0))
    with pytest.raises(DataError, match=r"has the value 16777217"):
        first_batch(ids, Augmentation(mean=(1.0,)))


def test_splits_of_other_types_are_refused():
    ids, floats = np.zeros((4, 3), np.int64), np.zeros((4, 3), np.float32)
    label = np.zeros(4, int)
    with pytest.raises(DataError, match=r"the test split: data is float32, but in the training split int64"):
        make_splits(ArrayDataset(ids, label), test=ArrayDataset(floats, label))
    assert make_splits(ArrayDataset(ids, label, 255.0), test=ArrayDataset(floats, label)).num_classes == 1


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        (np.zeros((3, 2), bool), "convert them to uint8"),
        (np.zeros((3, 2), complex), "real and imaginary parts"),
        (np.array([[1, None]] * 3), "a tuple of arrays"),
        (np.zeros((3, 2), "M8[s]"), "the time since a reference date"),
        (np.zeros((3, 2), "m8[s]"), "divide by a unit"),
        (np.array([["a", "b"]] * 3), "map them to integers"),
        (np.array([[b"a", b"b"]] * 3), "bytes as uint8"),
        (np.zeros(3, [("a", "f4"), ("b", "f4")]), "each field as a separate"),
        (np.zeros((3, 2), np.longdouble), "convert them to float32"),
    ],
)
def test_types_without_a_meaning_are_refused_with_advice(values, advice):
    with pytest.raises(DataError, match=f"data is .*{advice}"):
        ArrayDataset(values, np.zeros(3, int))
    with pytest.raises(DataError, match=f"labels are .*{advice}"):
        ArrayDataset(np.zeros((3, 2), np.float32), values)


def test_labels_for_every_position():
    masks = np.random.default_rng(0).integers(0, 3, (10, 4, 5)).astype(np.uint8)
    masks[0, 0, 0] = 2
    dataset = ArrayDataset(np.zeros((10, 3, 4, 5), np.float32), masks)
    assert make_splits(dataset).num_classes == 3
    assert first_batch(dataset).label.shape == (2, 4, 5)
    masks[7, 2, 1] = 9
    with pytest.raises(DataError, match=r"label 9 of sample 7 is not in 0\.\.2 \(1 such"):
        make_splits(dataset, num_classes=3)
    items = SequenceDataset(list(zip(np.zeros((10, 3)), masks, strict=True)), source="here")
    make_splits(items, num_classes=3)
    with pytest.raises(DataError, match=r"^here: the label of item 7 is 9, which is not in 0\.\.2"):
        items.take(np.arange(10))


def test_integers_that_go_too_far_are_not_taken_for_classes():
    label = np.arange(50)
    label[9] = 2**40
    dataset = ArrayDataset(np.zeros((50, 2), np.float32), label)
    assert make_splits(dataset).num_classes is None
    assert make_splits(dataset, num_classes=2**41).num_classes == 2**41
    assert make_splits(ArrayDataset(dataset.data, label % 7), count_classes=False).num_classes is None
    assert make_splits(ArrayDataset(dataset.data, label % 7 - 3), count_classes=False).num_classes is None


def test_quotients_beyond_float32_are_refused():
    dataset = ArrayDataset(np.array([[200], [255]], np.uint8), np.zeros(2, int), 1e-37)
    with pytest.raises(DataError, match=r"sample 0 has the value 200, which divided by 1e-37 exceeds float32; raise"):
        list(evaluation_batches(dataset, 2, Augmentation()))
