from __future__ import annotations

import numpy as np
import pytest

from harness.data import Counts, count_samples, load
from harness.errors import DataError


@pytest.mark.parametrize("folder", [".", "cifar-10-batches-bin"])
def test_reads_the_parts_that_exist_in_their_order(tmp_path, write_cifar, folder):
    parts = [write_cifar(f"data_batch_{number}.bin", count, number, folder) for number, count in ((4, 3), (2, 5))]
    test = write_cifar("test_batch.bin", 4, 9, folder)
    splits = load("cifar10", root=str(tmp_path))
    np.testing.assert_array_equal(splits.train.label, np.concatenate([parts[1][0], parts[0][0]]))
    np.testing.assert_array_equal(splits.train.data, np.concatenate([parts[1][1], parts[0][1]]))
    np.testing.assert_array_equal(splits.test.label, test[0])
    np.testing.assert_array_equal(splits.test.data, test[1])
    assert splits.train.data.flags.c_contiguous
    assert (splits.num_classes, splits.sample_shape, splits.train.full_scale) == (10, (3, 32, 32), 255.0)
    assert count_samples("cifar10", root=str(tmp_path)) == Counts(8, 0, 4)


@pytest.mark.parametrize("present", ["data_batch_1.bin", "test_batch.bin"])
def test_half_of_the_files(tmp_path, write_cifar, present):
    write_cifar(present, 2, 0)
    for ask in (load, count_samples):
        with pytest.raises(DataError, match=rf"\(at least one\), test_batch.bin not found in {tmp_path}"):
            ask("cifar10", root=str(tmp_path))
    assert count_samples("cifar10", root=str(tmp_path), download=True).official


@pytest.mark.parametrize("size", [0, 3072, 3073 * 2 - 1])
def test_files_that_are_cut_off(tmp_path, write_cifar, size):
    write_cifar("data_batch_1.bin", 2, 0)
    write_cifar("test_batch.bin", 2, 0)
    (tmp_path / "data_batch_1.bin").write_bytes(bytes(size))
    for ask in (load, count_samples):
        with pytest.raises(DataError, match=f"data_batch_1.bin: {size} bytes are not a whole number of records"):
            ask("cifar10", root=str(tmp_path))


def test_labels_are_classes(tmp_path, write_cifar):
    write_cifar("data_batch_1.bin", 2, 0)
    write_cifar("test_batch.bin", 2, 0)
    (tmp_path / "test_batch.bin").write_bytes(bytes(3073) + b"\x0b" + bytes(3072))
    with pytest.raises(DataError, match=r"test_batch.bin: label 11 of sample 1 is not in 0..9"):
        load("cifar10", root=str(tmp_path))
