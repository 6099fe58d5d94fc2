from __future__ import annotations

import gzip

import numpy as np
import pytest

from harness.data import Counts, count_samples, load
from harness.errors import DataError

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("compress", [True, False])
def test_reads_what_was_written(tmp_path, mnist_folder, name, compress):
    arrays = mnist_folder(compress)
    splits = load(name, root=str(tmp_path))
    np.testing.assert_array_equal(splits.train.data[:, 0], arrays[IMAGES])
    np.testing.assert_array_equal(splits.train.label, arrays[LABELS])
    np.testing.assert_array_equal(splits.test.data[:, 0], arrays["t10k-images-idx3-ubyte"])
    np.testing.assert_array_equal(splits.test.label, arrays["t10k-labels-idx1-ubyte"])
    assert (splits.num_classes, splits.sample_shape, splits.train.full_scale) == (10, (1, 5, 4), 255.0)
    assert isinstance(splits.train.data, np.memmap) is not compress
    assert count_samples(name, root=str(tmp_path), validation=5) == Counts(15, 5, 6)


def test_missing_files_are_named(tmp_path, mnist_folder):
    mnist_folder()
    (tmp_path / f"{LABELS}.gz").unlink()
    for ask in (load, count_samples):
        with pytest.raises(DataError) as error:
            ask("mnist", root=str(tmp_path))
        assert str(error.value) == (
            f"data.name: 'mnist': train-labels-idx1-ubyte[.gz] not found in {tmp_path}; set data.root to the folder "
            "that contains them, or set `data.download: true` to download them"
        )
    assert count_samples("mnist", root=str(tmp_path), download=True).official


def test_parameters_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"data\.params: no effect"):
        load("mnist", root=str(tmp_path), params={"num_classes": 3})


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda content: content[:-7],
            r"409 bytes \(uncompressed\), but according to its header 20x5x4 elements make 416; .*truncated",
        ),
        (lambda content: content + b"more", "420 bytes"),
        (lambda content: content[:10], "10 bytes are too few for the header"),
        (lambda content: b"", "0 bytes are too few for the header"),
        (
            lambda content: b"\0\0\x08\x01" + content[4:],
            "starts with the number 2049, but an IDX file of images with 2051",
        ),
        (lambda content: content[:4] + bytes(4) + content[8:], "the header says 0x5x4 elements"),
        (lambda content: content[:4] + b"\xff" * 12, "according to its header 4294967295x4294967295x4294967295"),
    ],
)
def test_damaged_images(tmp_path, mnist_folder, compress, damage, message):
    mnist_folder(compress)
    path = tmp_path / (f"{IMAGES}.gz" if compress else IMAGES)
    content = path.read_bytes()
    path.write_bytes(gzip.compress(damage(gzip.decompress(content))) if compress else damage(content))
    with pytest.raises(DataError, match=f"^{path}: .*{message}"):
        load("mnist", root=str(tmp_path))


@pytest.mark.parametrize("damage", [lambda c: c[:-20], lambda c: b"PK" + c[2:], lambda c: c[:60] + b"\0" * 9 + c[69:]])
def test_damaged_compression(tmp_path, mnist_folder, damage):
    mnist_folder()
    path = tmp_path / f"{IMAGES}.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=rf"^{path}: cannot be read \(.*download the file again"):
        load("mnist", root=str(tmp_path))


def test_a_damaged_header_is_found_when_counting(tmp_path, mnist_folder, write_idx):
    arrays = mnist_folder()
    write_idx(IMAGES, arrays[IMAGES], magic=2049)
    with pytest.raises(DataError, match="starts with the number 2049"):
        count_samples("mnist", root=str(tmp_path))


def test_images_and_labels_belong_together(tmp_path, mnist_folder, write_idx):
    arrays = mnist_folder()
    write_idx(LABELS, arrays[LABELS][:-1])
    with pytest.raises(DataError, match=r"20 images, but train-labels-idx1-ubyte\.gz has 19 labels"):
        load("mnist", root=str(tmp_path))


def test_labels_are_classes(tmp_path, mnist_folder, write_idx):
    arrays = mnist_folder()
    arrays[LABELS][3] = 10
    write_idx(LABELS, arrays[LABELS])
    with pytest.raises(DataError, match=r"label 10 of sample 3 is not in 0..9 \(1 such labels\)"):
        load("mnist", root=str(tmp_path))
