from __future__ import annotations

import numpy as np
import pytest

from harness.data import Augmentation, BatchStream, Counts, Order, count_samples, load
from harness.errors import DataError


def images(count: int, dtype=np.uint8) -> np.ndarray:
    return (np.arange(count * 12) % 200).reshape(count, 3, 2, 2).astype(dtype)


def test_all_splits_are_mapped_and_not_read(write_npy):
    root = write_npy(
        train_data=images(6),
        train_label=np.array([0, 1, 2, 3, 0, 1]),
        validation_data=images(2),
        validation_label=np.array([0, 1]),
        test_data=images(3),
        test_label=np.array([3, 2, 1]),
    )
    splits = load("npy", root=root)
    assert isinstance(splits.train.data, np.memmap)
    assert (splits.num_classes, splits.sample_shape, splits.train.full_scale) == (4, (3, 2, 2), 255.0)
    np.testing.assert_array_equal(splits.train.take(np.array([5, 0]))[0], images(6)[[5, 0]])
    assert splits.test.take(np.array([0]))[1].tolist() == [3]
    assert count_samples("npy", root=root) == Counts(6, 2, 3)
    for ask in (load, count_samples):
        with pytest.raises(
            DataError, match=r"has a validation split of its own, but data\.validation is 2; set it to 0"
        ):
            ask("npy", root=root, validation=2)


def test_regression_from_doubles(write_npy):
    root = write_npy(train_data=images(6, np.float64), train_label=np.arange(12.0).reshape(6, 2))
    splits = load("npy", root=root, validation=1)
    assert (splits.num_classes, splits.train.full_scale, splits.test) == (None, 1.0, None)
    with BatchStream(splits.train, Order(5, 1, 5, 0), [0], Augmentation(), 0) as batches:
        (batch,) = batches(1).batches
    assert (batch.data.dtype, batch.label.dtype, batch.label.shape) == (np.float32, np.float32, (5, 2))


def test_other_byte_orders_and_layouts_are_read(write_npy):
    data = np.asfortranarray(images(6).astype(">f4"))
    root = write_npy(train_data=data, train_label=np.zeros(6, ">i8"))
    got = Augmentation().evaluate(load("npy", root=root).train.take(np.arange(6))[0], 1.0)
    assert got.dtype.isnative
    np.testing.assert_array_equal(got, images(6))


def test_the_number_of_classes_may_be_given(write_npy):
    root = write_npy(train_data=images(2), train_label=np.array([0, 1]))
    assert load("npy", root=root, params={"num_classes": 10}).num_classes == 10
    with pytest.raises(DataError, match=r"label 1 of sample 1 is not in 0\.\.0"):
        load("npy", root=root, params={"num_classes": 1})
    for ask in (load, count_samples):
        with pytest.raises(DataError, match="num_classes 'ten' is not a number of classes"):
            ask("npy", root=root, params={"num_classes": "ten"})
        with pytest.raises(
            DataError, match=r"data.params: classes unknown to data.name: 'npy'; it takes only num_classes"
        ):
            ask("npy", root=root, params={"classes": 1})


def test_files_that_are_missing(write_npy, tmp_path):
    with pytest.raises(DataError, match=r"train_data\.npy, train_label\.npy not found in"):
        load("npy", root=str(tmp_path))
    with pytest.raises(DataError, match=r"needs data\.root, the folder with train_data\.npy"):
        load("npy")
    root = write_npy(train_data=images(2), train_label=np.array([0, 1]), test_data=images(2))
    with pytest.raises(DataError) as error:
        load("npy", root=root)
    assert str(error.value) == (
        f"data.name: 'npy': test_label.npy not found in {tmp_path}; set data.root to the folder that contains them"
    )


@pytest.mark.parametrize(
    ("label", "data", "message"),
    [
        (
            np.array([0, None]),
            images(2),
            "train_label.npy: not an array that can be memory-mapped .*rather than Python objects",
        ),
        (np.array([0, 1]), images(2, bool), "train_data.npy: data is bool; allowed are .*: convert them to uint8"),
        (np.array([0, 1, 0]), images(2), r"shape \(2, 3, 2, 2\) and labels \(3,\)"),
        (np.array([0, 1]), np.full((2, 3), np.nan), "sample 0 has NaN or infinite values"),
        (np.array([0, np.nan]), images(2), "label 1 has NaN or infinite values"),
    ],
)
def test_arrays_that_cannot_be_used(write_npy, label, data, message):
    root = write_npy(train_data=data, train_label=label)
    with pytest.raises(DataError, match=message):
        load("npy", root=root)


def test_files_that_are_not_arrays(write_npy, tmp_path):
    root = write_npy(train_data=images(20), train_label=np.zeros(20, int))
    path = tmp_path / "train_data.npy"
    whole = path.read_bytes()
    for content in (b"", b"nonsense", whole[:-10]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"^{path}: not an array that can be memory-mapped"):
            load("npy", root=root)
    with path.open("wb") as file:
        np.savez(file, images(2))
    with pytest.raises(DataError, match="an archive of several arrays; write one array"):
        load("npy", root=root)
