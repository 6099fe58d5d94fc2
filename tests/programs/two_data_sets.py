"""A data set behind a name that does not tell which one it is, as when a file was replaced."""

from __future__ import annotations

import os

import numpy as np


def load(which: int) -> dict:
    """200 samples of two classes; with OTHER_DATA in the environment, of other labels."""
    generator = np.random.default_rng(which + len(os.environ.get("OTHER_DATA", "")))
    data = generator.normal(size=(200, 1, 4, 4)).astype(np.float32)
    return {"train": (data, generator.integers(0, 2, 200)), "test": (data[:50], np.zeros(50, np.int64))}
