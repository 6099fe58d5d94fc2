"""The digits in the forms that the networks here take: larger, in colour, and row by row. Nothing is downloaded.

Run it through the configurations beside it, as examples/README.md says.
"""

from __future__ import annotations

import numpy as np

from harness.data import load


def in_colour() -> dict[str, object]:
    """Three equal channels, `(n, 3, 32, 32)`, each pixel a square of pixels."""
    return _splits(lambda images: np.repeat(_larger(images, 4, 0), 3, axis=1))


def as_large_as_mnist() -> dict[str, object]:
    """Images of MNIST's size, `(n, 1, 28, 28)`, within a margin."""
    return _splits(lambda images: _larger(images, 3, 2))


def in_rows() -> dict[str, object]:
    """Eight steps of eight pixels, `(n, 8, 8)`."""
    return _splits(lambda images: images[:, 0])


def _splits(form) -> dict[str, object]:
    digits = load("digits")
    found = {}
    for name in ("train", "test"):
        images, labels = getattr(digits, name).take(np.arange(len(getattr(digits, name))))
        found[name] = (form(images.astype(np.float32) / 16), labels.astype(np.int32))
    return {**found, "num_classes": 10}


def _larger(images: np.ndarray, times: int, margin: int) -> np.ndarray:
    around = ((0, 0), (0, 0), (margin, margin), (margin, margin))
    return np.pad(images.repeat(times, axis=2).repeat(times, axis=3), around)
