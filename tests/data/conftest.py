"""Makers of small data sets on disk, and the guard against leaked threads."""

from __future__ import annotations

import gzip
import os
import threading
from pathlib import Path

import numpy as np
import pytest

SHARED = Path(os.environ.get("HARNESS_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


@pytest.fixture(autouse=True)
def _no_leaked_threads():
    before = set(threading.enumerate())
    yield
    leaked = set(threading.enumerate()) - before
    assert not leaked, f"left running: {leaked}"


@pytest.fixture
def shared_data():
    """The folder with real data sets, or a skip."""

    def folder(name: str) -> str:
        if not (SHARED / name).is_dir():
            pytest.skip(f"no {SHARED / name}; set HARNESS_DATA to the folder that has {name}")
        return str(SHARED / name)

    return folder


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
