"""mixup and CutMix: what is mixed with what, and by which shares."""

from __future__ import annotations

import numpy as np
import pytest

from harness.data import (
    Augmentation,
    BatchStream,
    Functions,
    Order,
    SequenceDataset,
    evaluation_samples,
    load,
    with_functions,
)
from harness.data.generators import generator_of
from harness.data.mixes import CutMix, Mixup
from harness.data.splits import splits_with
from harness.errors import ConfigError, DataError

PICTURES = np.random.default_rng(0).random((6, 2, 8, 10)).astype(np.float32)
ITEMS = [(picture, np.int64(i % 3)) for i, picture in enumerate(PICTURES)]
SHARES = np.eye(3, dtype=np.float32)[np.arange(6) % 3]


@pytest.mark.parametrize("mix", [Mixup(classes=3), CutMix(classes=3)])
def test_nothing_is_mixed_in_evaluation(mix):
    data, label = mix(ITEMS, None)
    np.testing.assert_array_equal(data, PICTURES)
    np.testing.assert_array_equal(label, SHARES)
    assert (data.dtype, label.dtype) == (np.float32, np.float32)


def test_mixup_is_a_mean_of_two_samples_and_of_their_labels():
    for number in range(20):
        data, label = Mixup(alpha=1.0, classes=3)(ITEMS, generator_of(str(number)))
        random = generator_of(str(number))
        share, order = random.beta(1.0, 1.0), random.permutation(6)
        np.testing.assert_allclose(data, share * PICTURES + (1 - share) * PICTURES[order], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(label, share * SHARES + (1 - share) * SHARES[order], rtol=1e-5, atol=1e-6)
        assert (data.dtype, label.dtype) == (np.float32, np.float32)


def test_cutmix_puts_a_rectangle_of_one_picture_into_another():
    areas = []
    for number in range(40):
        data, label = CutMix(classes=3)(ITEMS, generator_of(str(number)))
        random = generator_of(str(number))
        random.beta(1.0, 1.0)
        order = random.permutation(6)
        is_other = (data != PICTURES).any(axis=1)
        for row, other in enumerate(order):
            assert (np.where(is_other[row], PICTURES[other], PICTURES[row]) == data[row]).all()
            if other != row:
                share = 1 - is_other[row].mean()
                np.testing.assert_allclose(label[row], share * SHARES[row] + (1 - share) * SHARES[other], atol=1e-6)
                rows, columns = np.flatnonzero(is_other[row].any(1)), np.flatnonzero(is_other[row].any(0))
                assert is_other[row].sum() == len(rows) * len(columns)  # a rectangle
                areas.append(is_other[row].mean())
    assert min(areas) < 0.1
    assert max(areas) > 0.4


def test_a_single_item_is_mixed_with_itself():
    for mix in (Mixup(classes=3), CutMix(classes=3)):
        data, label = mix(ITEMS[:1], generator_of("one"))
        np.testing.assert_allclose(data, PICTURES[:1], rtol=1e-6)
        np.testing.assert_allclose(label, SHARES[:1], rtol=1e-6)


def test_floats_are_mixed_as_they_are():
    items = [((np.full(3, i, np.float32), np.float32(i)), {"a": np.float32(10 * i)}) for i in range(4)]
    data, label = Mixup(alpha=1.0)(items, generator_of("floats"))
    np.testing.assert_allclose(data[0][:, 0], data[1], rtol=1e-6)
    np.testing.assert_allclose(label["a"], 10 * data[1], rtol=1e-6)


def test_classes_are_those_of_the_data():
    splits = load("digits", functions=Functions.of(None, "mixup"))
    assert evaluation_samples(splits.train, np.arange(2), Augmentation())[1].shape == (2, 10)
    few = load("digits", functions=Functions.of(None, {"mixup": {"classes": 12}}))
    assert evaluation_samples(few.train, np.arange(2), Augmentation())[1].shape == (2, 12)
    with BatchStream(splits.train, Order(1437, 1, 32, 0), [0], Augmentation(), 0) as stream:
        label = stream(1).batches[0].label
    np.testing.assert_allclose(label.sum(axis=1), 1, rtol=1e-6)
    assert (label.max(axis=1) < 1).any()


@pytest.mark.parametrize("collate", ["mixup", "cutmix"])
def test_what_nobody_trains_on_keeps_its_classes(collate):
    plain, mixed = load("digits", validation=0.1), load("digits", validation=0.1, functions=Functions.of(None, collate))
    for split in ("validation", "test"):
        found, expected = (
            evaluation_samples(getattr(splits, split), np.arange(5), Augmentation()) for splits in (mixed, plain)
        )
        assert (found[0] == expected[0]).all()
        assert (found[1].dtype, found[1].tolist()) == (expected[1].dtype, expected[1].tolist())


@pytest.mark.parametrize(
    ("items", "collate", "message"),
    [
        (
            [(np.zeros(2, np.float32), 1)],
            "mixup",
            "'mixup': .*: labels are classes, but how many is not known; give the",
        ),
        ([(np.zeros(2, np.float32), 3)], {"mixup": {"classes": 3}}, r"label 3 is not one of the classes 0 to 2"),
        (
            [(np.zeros(2, int), 1)] * 2,
            {"mixup": {"classes": 3}},
            r"data is int64, of which there are no means; make floats",
        ),
        ([(np.zeros(2, np.float32), [1, 2])], {"mixup": {"classes": 3}}, r"labels are integers of the shape \(2,\)"),
        ([(np.zeros(2, np.float32), 1)], {"cutmix": {"classes": 3}}, r"cuts pictures .*; found \(2,\)"),
        ([((np.zeros(2), np.zeros(2)), 1)], {"cutmix": {"classes": 3}}, r"cuts pictures .*; found \('data\[0\]', "),
    ],
)
def test_what_cannot_be_mixed(items, collate, message):
    dataset = with_functions(SequenceDataset(items), Functions.of(None, collate))
    with pytest.raises(DataError, match=message):
        dataset.batch(np.arange(len(items)), Augmentation(), (1, 0), generator_of("what"))


@pytest.mark.parametrize(
    ("collate", "message"),
    [
        ({"mixup": {"alpha": 0}}, "alpha is 0; allowed: a number above 0"),
        ({"cutmix": {"classes": 0}}, "classes is 0; allowed: a whole number from 1"),
        ({"cutmix": {"beta": 1}}, r"data\.collate\.cutmix\.beta: there is no such parameter"),
    ],
)
def test_parameters_that_are_refused(collate, message):
    with pytest.raises(ConfigError, match=message):
        Functions.of(None, collate)


def test_functions_without_a_need_stay_as_they_are():
    given = Functions.of(None, "stack")
    assert given.for_classes(3) is given
    assert splits_with(load("digits"), Functions()).num_classes == 10
