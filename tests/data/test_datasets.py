from __future__ import annotations

import hashlib

import numpy as np
import pytest

from harness.data import DATASETS, Counts, count_samples, load
from harness.errors import DataError


def test_digits_are_the_documented_split():
    splits = load("digits")
    assert (len(splits.train), len(splits.test), splits.validation) == (1437, 360, None)
    assert (splits.num_classes, splits.sample_shape, splits.train.full_scale) == (10, (1, 8, 8), 16.0)
    arrays = (splits.train.data, splits.train.label, splits.test.data, splits.test.label)
    assert all(array.dtype == np.uint8 for array in arrays)
    assert splits.train.data.max() == 16
    assert np.bincount(np.concatenate(arrays[1::2])).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert [hashlib.md5(array.tobytes()).hexdigest()[:8] for array in arrays] == [
        "974dee62",
        "7cbc1ca1",
        "13514078",
        "86c2e15c",
    ]
    assert count_samples("digits") == Counts(1437, 0, 360)


def test_digits_take_no_files():
    for settings in ({"root": "x"}, {"params": {"a": 1}}):
        for ask in (load, count_samples):
            with pytest.raises(DataError, match=r"data.name: 'digits': data.(root|params): no effect on this data set"):
                ask("digits", **settings)


@pytest.mark.parametrize("validation", [0, 100, 0.1])
def test_validation_is_held_out_and_counted(validation):
    splits, counts = load("digits", validation=validation, seed=5), count_samples("digits", validation=validation)
    assert counts == Counts(len(splits.train), len(splits.validation or ()), 360)
    assert counts.train + counts.validation == 1437
    assert counts.validation == {0: 0, 100: 100, 0.1: 144}[validation]


def test_the_seed_chooses_what_is_held_out():
    held = [load("digits", validation=50, seed=seed).validation.indices.tolist() for seed in (0, 0, 1)]
    assert held[0] == held[1] != held[2]


def test_an_unknown_name_lists_the_known():
    assert set(DATASETS) == {"digits", "mnist", "fashion_mnist", "cifar10", "npy", "records", "folder"}
    for ask in (load, count_samples):
        with pytest.raises(DataError, match=r"unknown name 'minst'; did you mean 'mnist'\? known: cifar10, digits, fa"):
            ask("minst")


@pytest.mark.parametrize(
    ("name", "train", "test"),
    [("mnist", 60_000, 10_000), ("fashion_mnist", 60_000, 10_000), ("cifar10", 50_000, 10_000)],
)
def test_absent_files_count_as_published(tmp_path, name, train, test):
    root = str(tmp_path / "nowhere")
    assert count_samples(name, root=root) == Counts(train, 0, test, official=True)
    assert count_samples(name, root=root, validation=0.1) == Counts(train * 9 // 10, train // 10, test, official=True)
    with pytest.raises(DataError, match=r"not found in .*nowhere; set data.root .* or set `data.download: true`"):
        load(name, root=root)


def test_the_default_root_is_in_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataError, match=f"not found in {tmp_path}/.cache/harness/mnist"):
        load("mnist")
    with pytest.raises(DataError, match=f"not found in {tmp_path}/data"):
        load("mnist", root="~/data")


def test_real_fashion_mnist(shared_data):
    root = shared_data("fashion-mnist")
    splits = load("fashion_mnist", root=root, validation=5000)
    assert count_samples("fashion_mnist", root=root, validation=5000) == Counts(55_000, 5000, 10_000)
    assert [len(split) for split in (splits.train, splits.validation, splits.test)] == [55_000, 5000, 10_000]
    assert np.bincount(splits.test.label).tolist() == [1000] * 10
    assert splits.sample_shape == (1, 28, 28)
    assert splits.test.label[:8].tolist() == [9, 2, 1, 1, 6, 1, 4, 6]
    assert round(float(splits.train.dataset.data.mean()) / 255, 4) == 0.2860  # the mean that everyone normalises with


def test_a_real_part_of_cifar10(shared_data):
    root = shared_data("cifar10-sample")
    splits = load("cifar10", root=root)
    assert count_samples("cifar10", root=root) == Counts(2000, 0, 500) == Counts(len(splits.train), 0, len(splits.test))
    # frog, truck, truck, deer, car, car, bird, horse
    assert splits.train.label[:8].tolist() == [6, 9, 9, 4, 1, 1, 2, 7]
    assert splits.train.data[0, :, 0, 0].tolist() == [59, 62, 63]
