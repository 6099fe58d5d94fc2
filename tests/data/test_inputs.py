"""Data of several inputs: arrays and items of tuples, with their own types, all the way to a batch."""

from __future__ import annotations

import numpy as np
import pytest

from harness.data import (
    ArrayDataset,
    Augmentation,
    BatchStream,
    Order,
    SequenceDataset,
    describe_scale,
    evaluation_batches,
    load,
    make_splits,
)
from harness.data.scales import rescaled
from harness.errors import DataError

PICTURES = np.arange(10 * 12).reshape(10, 3, 2, 2).astype(np.uint8)
IDS = (np.arange(10) + 2**24).astype(np.int64)
LABEL = np.arange(10) % 3


def arrays(source="data"):
    return ArrayDataset((PICTURES, IDS), LABEL, (255.0, None), source)


def items(form):
    forms = {
        "nested": [((PICTURES[i], IDS[i]), LABEL[i]) for i in range(10)],
        "flat": [(PICTURES[i], IDS[i], LABEL[i]) for i in range(10)],
        "list": [[(PICTURES[i], IDS[i]), LABEL[i]] for i in range(10)],
        "pair of lists": [((PICTURES[i].tolist(), int(IDS[i])), int(LABEL[i])) for i in range(10)],
    }
    return SequenceDataset(forms[form], source="here")


@pytest.mark.parametrize("make", [arrays, *(lambda form=form: items(form) for form in ("nested", "flat", "list"))])
def test_a_batch_is_a_tuple_of_leaves_each_of_its_own_type(make):
    dataset = make()
    assert describe_scale(dataset) == "data[0] bytes / 255, data[1] int64 unchanged"
    assert dataset.full_scale == (255.0, None)
    order = Order(10, 2, 3, 0, "keep")
    with BatchStream(dataset, order, [0, 1], Augmentation(), 0) as batches:
        for t in (1, 2):
            for batch in batches(t).batches:
                indices = order.shard_indices(t, batch.shard)
                pictures, ids = batch.data
                assert (batch.count, pictures.dtype, ids.dtype) == (len(indices), np.float32, np.int64)
                np.testing.assert_array_equal(pictures, (PICTURES[indices] / 255).astype(np.float32))
                np.testing.assert_array_equal(ids, IDS[indices])
                np.testing.assert_array_equal(batch.label, LABEL[indices])
    seen = list(evaluation_batches(dataset.subset(np.array([7, 5, 1])), 2, Augmentation()))
    assert [ids.tolist() for _, (_, ids), _ in seen] == [[IDS[7], IDS[5]], [IDS[1]]]


def test_splits_of_several_inputs():
    splits = make_splits(arrays(), test=items("flat"))
    assert (splits.sample_shape, splits.num_classes) == (((3, 2, 2), ()), 3)
    assert splits.fingerprint() == make_splits(arrays()).fingerprint()
    other = ArrayDataset((PICTURES, IDS + 1), LABEL, (255.0, None))
    assert splits.fingerprint() != make_splits(other).fingerprint()
    assert rescaled(splits, "keep").train.full_scale == (None, None)
    with pytest.raises(DataError, match=r"^data.scale: 16: samples have 2 inputs, but it applies to one"):
        rescaled(splits, 16)
    with pytest.raises(DataError, match="the test split: sample and label have the shapes"):
        make_splits(arrays(), test=ArrayDataset(PICTURES, LABEL))


def test_the_fingerprint_of_one_input_is_what_it_was():
    """Sets of earlier versions hold it."""
    assert make_splits(ArrayDataset(PICTURES, LABEL, 255.0)).fingerprint() == (
        "c51de4191b08cc54248a764c6bc9b4222e85ea53fad3406ae800100d605b6f4f"
    )


@pytest.mark.parametrize("change", [{"pad_crop": 1}, {"flip": True}, {"mean": (0.5,)}, {"std": (0.5,)}])
def test_augmentation_is_for_one_input(change):
    with pytest.raises(DataError, match=r"^augmentation: pad_crop, flip, mean and std apply to one input, .* have 2"):
        Augmentation(**change).check(make_splits(arrays()).sample_shape)
    Augmentation().check(make_splits(arrays()).sample_shape)


def test_what_functions_may_return(tmp_path, monkeypatch):
    (tmp_path / "several_inputs.py").write_text(
        "import numpy as np\n"
        "a, b, y = np.zeros((6, 2), np.float32), np.arange(6), np.arange(6) % 3\n"
        "def nested(): return ((a, b), y), ((a, b), y)\n"
        "def flat(): return {'train': (a, b, y), 'test': ((a, b), y)}\n"
        "def three(): return {'train': (a, b, b, y)}\n"
        "def uneven(): return {'train': (a, b[:3], y)}\n"
    )
    monkeypatch.chdir(tmp_path)
    for name, inputs in (("nested", 2), ("flat", 2), ("three", 3)):
        splits = load(f"several_inputs:{name}")
        assert isinstance(splits.train, ArrayDataset)
        assert (len(splits.train.data), len(splits.sample_shape), splits.num_classes) == (inputs, inputs, 3)
    with pytest.raises(DataError, match=r"train: data\[1\] has shape \(3,\) and labels \(6,\)"):
        load("several_inputs:uneven")


def test_one_input_looks_as_it_did():
    """A tuple or list of numbers is one array, and so is a list of arrays."""
    for sample in ((1.0, 2.0), [1.0, 2.0], np.array([1.0, 2.0])):
        data, _ = SequenceDataset([(sample, 1)] * 2).take(np.arange(2))
        assert data.tolist() == [[1.0, 2.0]] * 2
    data, _ = SequenceDataset([([np.ones(2), np.zeros(2)], 1)] * 2).take(np.arange(1))
    assert data.tolist() == [[[1.0, 1.0], [0.0, 0.0]]]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([({"a": {"b": 1}}, 0)], r"item 0 has a dict, which is not an array of numbers; an item is a pair"),
        ([({}, 0)], r"item 0 has a dict, which is not an array of numbers; an item is a pair"),
        (
            [([np.zeros(2), np.zeros(3)], 0)],
            r"a list of arrays of the shapes \(2,\), \(3,\), which cannot form an array",
        ),
        ([(np.zeros(2),)], "item 0 is a tuple of 1; an item is a pair"),
        (
            [((np.zeros(2), np.zeros(3)), 0), ((np.zeros(2),), 0)],
            r"item 1 has data\[0\], but item 0 has data\[0\], data",
        ),
        (
            [({"a": 1, "b": 2}, 0), ({"a": 1, "c": 2}, 0)],
            r"item 1 has data\['a'\], data\['c'\], but item 0 has data\['a'\], data\['b'\]; give all items the same",
        ),
        (
            [([1.0], {"mask": np.zeros(2)}), ([1.0], {"mask": np.zeros(3)})],
            r"the label\['mask'\] of item 1 is float64 \(3,\), but that of item 0 is float64 \(2,\)",
        ),
        ([([1.0], (np.zeros(2), 1)), ([1.0], np.zeros(2))], r"item 1 has label, but item 0 has label\[0\], label\[1\]"),
        (
            [((np.zeros(2), np.zeros(3)), 0), ((np.zeros(2), np.zeros(4)), 0)],
            r"the data\[1\] of item 1 is float64 \(4,\), but that of item 0 is float64 \(3,\)",
        ),
        ([(1.0, 3)], "a sample is a single number"),
        ([([1.0], {"boxes": np.zeros((0, 4)), "n": 0})], r"label\['boxes'\] has the shape \(0, 4\), which is empty"),
        ([((np.zeros(2), "text"), 0)], r"data\[1\] is <U4; allowed are"),
        ([([1.0], {"ok": 1, "text": "a"})], r"label\['text'\] is <U1; give integer classes"),
        ([((np.zeros(2), None), 0)], "has None, which is not an array of numbers"),
    ],
)
def test_items_that_cannot_be_used(found, message):
    with pytest.raises(DataError, match=f"^here: .*{message}"):
        SequenceDataset(found, source="here").take(np.arange(len(found)))


def test_a_scale_for_each_input():
    with pytest.raises(DataError, match="full_scale: 3 numbers for 2 inputs"):
        ArrayDataset((PICTURES, IDS), LABEL, (1.0, None, None))
    with pytest.raises(DataError, match=r"here: full_scale is 255\.0, but float data is not rescaled"):
        ArrayDataset((PICTURES, np.zeros((10, 1))), LABEL, 255.0, "here")


def named():
    return ArrayDataset({"picture": PICTURES, "id": IDS}, {"kind": LABEL, "mask": PICTURES[:, :1]}, (255.0, None))


def named_items():
    data, label = named().data, named().label
    items = [({key: one[i] for key, one in data.items()}, {k: one[i] for k, one in label.items()}) for i in range(10)]
    return SequenceDataset(items)


@pytest.mark.parametrize("make", [named, named_items])
def test_data_and_labels_by_name(make):
    dataset = make().subset(np.arange(9, -1, -1))
    with BatchStream(dataset, Order(10, shards=2, batch_size=3, seed=0), [1, 0], Augmentation(), seed=0) as stream:
        for batch, shard in zip(stream(1).batches, (1, 0), strict=True):
            rows = 9 - Order(10, shards=2, batch_size=3, seed=0).shard_indices(1, shard)
            assert batch.count == 3
            assert [(key, one.dtype.name) for key, one in batch.data.items()] == [
                ("picture", "float32"),
                ("id", "int64"),
            ]
            assert (batch.data["id"] == IDS[rows]).all()
            assert (batch.label["kind"] == LABEL[rows]).all()
            assert (batch.label["mask"] == PICTURES[rows, :1]).all()
            assert batch.label["mask"].dtype == np.uint8
    (first, *_) = evaluation_batches(dataset, 4, Augmentation())
    assert first.label.keys() == {"kind", "mask"}
    splits = make_splits(dataset)
    assert splits.num_classes is None
    assert splits.sample_shape == {"picture": PICTURES.shape[1:], "id": ()}


def test_labels_by_name_are_part_of_the_fingerprint():
    changed = named().label | {"mask": PICTURES[:, :1] + 1}
    other = ArrayDataset(named().data, changed, (255.0, None))
    assert make_splits(named()).fingerprint() == make_splits(named()).fingerprint()
    assert make_splits(named()).fingerprint() != make_splits(other).fingerprint()


def test_messages_name_the_leaf_and_the_sample():
    label = {"kind": LABEL, "boxes": np.where(np.arange(10) == 4, np.nan, 1.0)}
    with pytest.raises(DataError, match=r"label\['boxes'\] of sample 4 has NaN or infinite values"):
        make_splits(ArrayDataset(PICTURES, label, 255.0))
    data = {"a": np.ones((10, 2)), "b": np.where(np.arange(10) == 3, 1e300, 1.0)}
    with pytest.raises(DataError, match=r"data\['b'\] of sample 3 has the value 1e\+300, which exceeds float32"):
        make_splits(ArrayDataset(data, LABEL))
    with pytest.raises(DataError, match=r"sample 3 \(data\['b'\]\) has the value 1e\+300"):
        list(evaluation_batches(ArrayDataset(data, LABEL), 10, Augmentation()))
    big = {"big": np.where(np.arange(10) == 4, np.uint64(2**64 - 1), np.uint64(0))}
    with pytest.raises(
        DataError, match=r"label 4 \(label\['big'\]\) has the value 18446744073709551615, which exceeds"
    ):
        list(evaluation_batches(ArrayDataset(PICTURES, big, 255.0), 10, Augmentation()))
