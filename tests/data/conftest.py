"""Makers of small data sets on disk."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def write_idx(tmp_path):
    """Write one IDX file the way the official ones are written."""

    def write(name: str, array: np.ndarray, compress: bool = True, magic: int | None = None) -> Path:
        header = [0x0800 + array.ndim if magic is None else magic, *array.shape]
        content = b"".join(number.to_bytes(4, "big") for number in header) + array.astype(np.uint8).tobytes()
        path = tmp_path / (f"{name}.gz" if compress else name)
        path.write_bytes(gzip.compress(content) if compress else content)
        return path

    return write


@pytest.fixture
def mnist_folder(tmp_path, write_idx):
    """A data set of 20 training and 6 test images of 5x4 pixels, with its arrays."""

    def make(compress: bool = True) -> dict[str, np.ndarray]:
        random = np.random.RandomState(1)
        arrays = {}
        for split, count in (("train", 20), ("t10k", 6)):
            arrays[f"{split}-images-idx3-ubyte"] = random.randint(0, 256, (count, 5, 4)).astype(np.uint8)
            arrays[f"{split}-labels-idx1-ubyte"] = random.randint(0, 10, count).astype(np.uint8)
        for name, array in arrays.items():
            write_idx(name, array, compress)
        return arrays

    return make


@pytest.fixture
def write_cifar(tmp_path):
    """Write one file of CIFAR-10's binary version; returns its labels and images."""

    def write(name: str, count: int, seed: int, folder: str = ".") -> tuple[np.ndarray, np.ndarray]:
        random = np.random.RandomState(seed)
        labels = random.randint(0, 10, count).astype(np.uint8)
        images = random.randint(0, 256, (count, 3, 32, 32)).astype(np.uint8)
        (tmp_path / folder).mkdir(exist_ok=True)
        records = [bytes([label]) + image.tobytes() for label, image in zip(labels, images, strict=True)]
        (tmp_path / folder / name).write_bytes(b"".join(records))
        return labels, images

    return write


@pytest.fixture
def write_npy(tmp_path):
    """Write arrays as `<name>.npy`."""

    def write(**arrays: np.ndarray) -> str:
        for name, array in arrays.items():
            np.save(tmp_path / f"{name}.npy", array)
        return str(tmp_path)

    return write
