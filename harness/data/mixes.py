"""Collates that mix the samples of a batch in training: mixup and CutMix.

Labels become shares of classes, `(n, classes)`, in training and evaluation alike, as `softmax_cross_entropy` takes them
with `sparse_label: false`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.data.collates import Stack
from harness.data.items import Sample
from harness.data.leaves import Array, Data, leaves_of, names_of, pack
from harness.errors import DataError


@dataclass(frozen=True)
class Mixup:
    """Weighted means of two samples, and of their labels.

    `share * a + (1 - share) * b`, with one share a batch from Beta(alpha, alpha), where `b` are the samples of the
    batch in a random order (H. Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018, arXiv 1710.09412).

    Attributes:
        alpha: of the distribution, above 0; near 0 samples are hardly mixed.
        classes: how many; by default as many as the data have. Labels that are floats are mixed as they are.
    """

    alpha: float = 0.2
    classes: int | None = None

    def __post_init__(self) -> None:
        """Refuse impossible parameters."""
        _check(self.alpha, self.classes)

    def __call__(self, items: list[Sample], random: np.random.Generator | None) -> Sample:
        """Data and labels `(n, ...)`.

        Raises:
            DataError: if samples cannot be stacked, or are not floats.
        """
        data, label = Stack()(items, random)
        label = _shares(label, self.classes)
        if random is None:
            return data, label
        share, order = np.float32(random.beta(self.alpha, self.alpha)), random.permutation(len(items))
        return _mixed("data", data, share, order), _mixed("label", label, share, order)


@dataclass(frozen=True)
class CutMix:
    """Rectangles of one picture in another; labels by the shares of their areas.

    A rectangle with `1 - share` of the area, `share` from Beta(alpha, alpha), is cut out around a random point, the
    same one in all pictures of the batch, and filled from the batch in a random order (S. Yun et al., CutMix:
    Regularization Strategy to Train Strong Classifiers with Localizable Features, ICCV 2019, arXiv 1905.04899).

    Attributes:
        alpha: of the distribution, above 0.
        classes: how many; by default as many as the data have. Labels that are floats are mixed as they are.
    """

    alpha: float = 1.0
    classes: int | None = None

    def __post_init__(self) -> None:
        """Refuse impossible parameters."""
        _check(self.alpha, self.classes)

    def __call__(self, items: list[Sample], random: np.random.Generator | None) -> Sample:
        """Data `(n, channels, height, width)` and labels `(n, ...)`.

        Raises:
            DataError: if samples cannot be stacked, or are not pictures.
        """
        data, label = Stack()(items, random)
        label = _shares(label, self.classes)
        if not isinstance(data, np.ndarray) or data.ndim != 4:
            shape = data.shape[1:] if isinstance(data, np.ndarray) else tuple(names_of(data, "data"))
            raise DataError(f"cuts pictures (channels, height, width); found {shape}")
        if random is None:
            return data, label
        height, width = data.shape[2:]
        ratio, order = np.sqrt(1 - random.beta(self.alpha, self.alpha)), random.permutation(len(items))
        rows, columns = (_around(int(random.integers(size)), int(size * ratio), size) for size in (height, width))
        mixed = data.copy()
        mixed[:, :, rows, columns] = data[order][:, :, rows, columns]
        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        share = np.float32(1 - area / (height * width))
        return mixed, _mixed("label", label, share, order)


def _check(alpha: Any, classes: Any) -> None:
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < np.inf:
        raise ValueError(f"alpha is {alpha!r}; allowed: a number above 0")
    if classes is not None and (isinstance(classes, bool) or not isinstance(classes, int) or classes < 1):
        raise ValueError(f"classes is {classes!r}; allowed: a whole number from 1")


def _around(center: int, size: int, most: int) -> slice:
    """So many rows around one, cut at the border."""
    return slice(max(0, center - size // 2), min(most, center - size // 2 + size))


def _shares(label: Data, classes: int | None) -> Data:
    """Labels that can be mixed: classes become their shares, `(n, classes)`."""
    if not isinstance(label, np.ndarray) or label.dtype.kind == "f":
        return label
    if label.ndim != 1:
        raise DataError(f"labels are integers of the shape {label.shape[1:]}; give one class for each item, or floats")
    if classes is None:
        raise DataError("labels are classes, but how many is not known; give the parameter classes")
    bad = label[(label < 0) | (label >= classes)]
    if len(bad):
        raise DataError(
            f"label {bad[0]} is not one of the classes 0 to {classes - 1}; fix it, or the parameter classes"
        )
    shares: Array = np.eye(classes, dtype=np.float32)[label]
    return shares


def _mixed(what: str, part: Data, share: np.float32, order: Array) -> Data:
    leaves = []
    for name, leaf in zip(names_of(part, what), leaves_of(part), strict=True):
        if leaf.dtype.kind != "f":
            raise DataError(
                f"{name} is {leaf.dtype}, of which there are no means; make floats of it (data.scale: 1), or mix in a "
                "collate of your own"
            )
        leaves.append(share * leaf + (np.float32(1) - share) * leaf[order])
    return pack(leaves, part)
