from __future__ import annotations

import numpy as np
import pytest

from harness.data import ArrayDataset, SequenceDataset, make_splits
from harness.data.splits import hold_out, holdout_size
from harness.errors import DataError


def dataset(label, data=None, source="data") -> ArrayDataset:
    label = np.asarray(label)
    data = np.zeros((len(label), 3), np.float32) if data is None else data
    return ArrayDataset(data, label, 1.0, source)


def test_classes_are_counted_from_the_training_labels():
    splits = make_splits(dataset([0, 4, 2]), test=dataset([1]))
    assert (splits.num_classes, splits.sample_shape, splits.validation) == (5, (3,), None)
    assert make_splits(dataset([0, 4, 2]), num_classes=7).num_classes == 7
    assert make_splits(dataset([0.0, 4.0])).num_classes is None


def test_every_split_is_checked_and_named():
    good = dataset([0, 1, 2])
    for name in ("train", "validation", "test"):
        splits = {"train": good, name: dataset([0, 7, 9])}
        with pytest.raises(DataError, match=rf"the {name} split: label 7 of sample 1 is not in 0..2 \(2 such labels\)"):
            make_splits(**splits, num_classes=3)
    with pytest.raises(DataError, match=r"^here: label -1 of sample 0"):
        make_splits(dataset([-1, 3], source="here"))
    with pytest.raises(DataError, match=r"the test split: sample and label have the shapes \(4,\) and \(\)"):
        make_splits(good, test=dataset([0], np.zeros((1, 4), np.float32)))
    with pytest.raises(DataError, match="labels are float64, but there are 3 classes"):
        make_splits(good, test=dataset([0.0]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 4500, 9999])
def test_numbers_that_are_not_finite(bad, row):
    data, label = np.zeros((10_000, 3), np.float32), np.zeros(10_000)
    data[row, 1] = bad
    with pytest.raises(DataError, match=f"the train split: sample {row} has NaN or infinite values"):
        make_splits(dataset(label, data))
    label[row] = bad
    with pytest.raises(DataError, match=f"the train split: label {row} has NaN or infinite values"):
        make_splits(dataset(label))


def test_a_subset_is_checked_by_its_own_labels():
    whole = dataset([0, 1, 9])
    assert make_splits(whole.subset(np.array([0, 1]))).num_classes == 2
    with pytest.raises(DataError, match="label 9 of sample 1"):
        make_splits(whole.subset(np.array([0, 2])), num_classes=2)


def test_a_sequence_must_say_how_many_classes_there_are():
    items = SequenceDataset([(np.zeros(2, np.float32), 1), (np.zeros(2, np.float32), 3)], source="here")
    with pytest.raises(DataError, match=r"^here: the labels are integers, and counting their classes would read every"):
        make_splits(items)
    assert make_splits(items, num_classes=4).num_classes == 4
    with pytest.raises(DataError, match=r"^here: label 3 of sample 1 is not in 0\.\.2"):
        make_splits(items, num_classes=3)
    floats = SequenceDataset([(np.zeros(2, np.float32), np.float32(1))])
    assert make_splits(floats).num_classes is None
    assert make_splits(floats, num_classes=2).num_classes == 2


@pytest.mark.parametrize(
    ("count", "validation", "size"),
    [(10, 0, 0), (10, 0.0, 0), (10, 3, 3), (10, 0.3, 3), (5, 0.3, 2), (15, 0.1, 2), (14, 0.1, 1), (3, 2, 2)],
)
def test_holdout_size(count, validation, size):
    assert holdout_size(count, validation) == size


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        (-1, "-1 is not a valid size; allowed are 0"),
        (True, "True is not a valid size"),
        ("0.1", "'0.1' is not a valid size"),
        (float("nan"), "nan is not a valid size"),
        (1.0, "1.0 is neither a fraction nor a whole number"),
        (10, "10 holds out 10 of 10 training samples; at least one must be held out and one must remain"),
        (0.01, "0.01 holds out 0 of 10"),
        (0.99, "0.99 holds out 10 of 10"),
    ],
)
def test_holdout_size_refuses(validation, message):
    with pytest.raises(DataError, match=f"^data.validation: {message}"):
        holdout_size(10, validation)


def test_hold_out_is_a_partition_keyed_by_the_seed():
    whole = dataset(np.arange(50))
    train, validation = hold_out(whole, 10, seed=3)
    kept, held = train.labels(), validation.labels()
    assert (len(kept), len(held)) == (40, 10)
    assert sorted([*kept, *held]) == list(range(50))
    assert kept.tolist() == sorted(kept)
    assert hold_out(whole, 10, seed=3)[1].labels().tolist() == held.tolist()
    assert hold_out(whole, 10, seed=4)[1].labels().tolist() != held.tolist()
    assert set(hold_out(whole, 5, seed=3)[1].labels()) < set(held)
    # a change of these numbers changes what is held out of every run, so no earlier checkpoint could be resumed
    assert held.tolist() == [0, 4, 6, 11, 13, 24, 30, 32, 39, 41]
