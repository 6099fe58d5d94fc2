"""`digits`: 1797 images of handwritten digits, 8x8 pixels from 0 to 16, included in the package.

E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998, CC BY 4.0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.data.arrays import ArrayDataset
from harness.data.request import Counts, DataRequest
from harness.data.splits import Splits, make_splits

_NUM_TRAIN, _NUM_TEST = 1437, 360
_FILE = Path(__file__).parent / "files" / "digits.csv.gz"


def load_digits(request: DataRequest) -> Splits:
    """The data set in its documented split.

    The rows are permuted by `numpy.random.RandomState(0).permutation(1797)`; the first 1437 are for training, the
    other 360 for testing.
    """
    request.refuse("root", "download", "params")
    rows = np.loadtxt(_FILE, dtype=np.uint8, delimiter=",")
    rows = rows[np.random.RandomState(0).permutation(len(rows))]
    images, labels = np.ascontiguousarray(rows[:, :64]).reshape(-1, 1, 8, 8), rows[:, 64].copy()
    train = ArrayDataset(images[:_NUM_TRAIN], labels[:_NUM_TRAIN], 16.0, "digits, training")
    test = ArrayDataset(images[_NUM_TRAIN:], labels[_NUM_TRAIN:], 16.0, "digits, test")
    return make_splits(train, test=test, num_classes=10)


def count_digits(request: DataRequest) -> Counts:
    """The sizes of the split above."""
    request.refuse("root", "download", "params")
    return Counts(_NUM_TRAIN, 0, _NUM_TEST)
