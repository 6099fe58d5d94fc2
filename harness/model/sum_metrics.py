"""Named metrics that follow from sums: counts of hits and misses, and sums of floats without rounding.

All sums are whole numbers (of floats, their digits: `harness.model.exact`), so a result has the same bits for any size
of batch, and any number of ranks. Labels that are ignored count nowhere. `ValueError` says what is wrong with labels
or predictions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from harness.model.exact import NUM_DIGITS, exact_products, exact_sum, exact_total, root_ratio
from harness.model.metric_kinds import Array, Metric, Sums, class_axis

_IGNORED = -1  # the label that is ignored where labels are classes
_AVERAGES = ("binary", "macro", "micro", "weighted")
_BINS = 1 << 16


def named_sums(axis: int | None, from_logits: bool) -> dict[str, Callable[..., Metric]]:
    """Builders by name.

    Args:
        axis: of predictions, along which classes lie; `None` where the shapes tell it.
        from_logits: whether predictions are the logarithms of probabilities already, as for Gluon's losses.
    """

    def f1(average: str | None = None, ignore: int | None = None) -> Metric:
        if average not in (None, *_AVERAGES):
            raise ValueError(f"average is {average!r}; allowed: {', '.join(_AVERAGES)}")

        def sums(prediction: Array, label: Array) -> Array:
            counts = _tally(_Targets(prediction, label, axis, ignore))
            if average == "binary" and len(counts) > 6:
                raise ValueError(f"average is binary, but there are {len(counts) // 3} classes; choose macro")
            return counts

        return Sums(sums, lambda sums: _f1(sums, average), "highest", are_counts=True, adds_up=True)

    def tallied(finish: Callable[[Array], float]) -> Callable[..., Metric]:
        def build(ignore: int | None = None) -> Metric:
            def sums(prediction: Array, label: Array) -> Array:
                return _tally(_Targets(prediction, label, axis, ignore))

            return Sums(sums, finish, "highest", are_counts=True, adds_up=True)

        return build

    def entropy(finish: Callable[[Array], float]) -> Callable[..., Metric]:
        def build(ignore: int | None = None, from_logits: bool = from_logits) -> Metric:
            def sums(prediction: Array, label: Array) -> Array:
                losses = _Targets(prediction, label, axis, ignore).losses(from_logits)
                return np.append(exact_sum(losses), losses.size)

            return Sums(sums, finish, "lowest", are_counts=True, adds_up=True)

        return build

    def roc_auc(ignore: int | None = None) -> Metric:
        def sums(prediction: Array, label: Array) -> Array:
            return _binned(_Targets(prediction, label, axis, ignore))

        return Sums(sums, _area, "highest", are_counts=True, adds_up=True)

    return {
        "pixel_accuracy": tallied(_share_right),
        "f1": f1,
        "mcc": tallied(_matthews),
        "miou": tallied(_mean_iou),
        "cross_entropy": entropy(_mean_loss),
        "perplexity": entropy(_perplexity),
        "correlation": lambda: Sums(_moments, _pearson, "highest", are_counts=True, adds_up=True),
        "roc_auc": roc_auc,
    }


class _Targets:
    """The labels of a batch that count, and the predictions of them.

    Attributes:
        num_classes: C; 2 where a prediction is one number for each label, which is above 0 for the positive class.
        true: class of each label, `(m,)`.
        scores: a row for each class, `(m, C)`; or the numbers, `(m,)`.
    """

    def __init__(self, prediction: Array, label: Array, axis: int | None, ignore: int | None) -> None:
        if prediction.size == label.size:
            self.num_classes = 2
            kept = np.ones(label.size, bool) if ignore is None else label.reshape(-1) != ignore
            self.true = (label.reshape(-1)[kept] > 0).astype(np.int64)
            self.scores = prediction.reshape(-1)[kept]
            return
        along = class_axis(prediction.shape, label.shape) if axis is None else axis
        scores = np.moveaxis(prediction, along, -1)
        if scores.shape[:-1] != label.shape:
            raise ValueError(
                f"predictions {prediction.shape} do not fit labels {label.shape}; allowed: one number for each label, "
                "or one for each of its classes along one more axis"
            )
        self.num_classes = scores.shape[-1]
        self.true, kept = _classes(label.reshape(-1), self.num_classes, _IGNORED if ignore is None else ignore)
        self.scores = scores.reshape(-1, self.num_classes)
        if not kept.all():
            self.scores = self.scores[kept]

    def decided(self) -> Array:
        """The class with the highest score, `(m,)`; of equal ones the first."""
        decided: Array = self.scores.argmax(axis=1) if self.scores.ndim == 2 else (self.scores > 0).astype(np.int64)
        return decided

    def losses(self, from_logits: bool) -> Array:
        """Minus the logarithm of the probability of each label's class, `(m,)`, in float64."""
        scores = self.scores.astype(np.float64)
        if scores.ndim == 1:
            if from_logits:
                raise ValueError("from_logits needs predictions for each class; found one number for each label")
            binary: Array = np.logaddexp(0, np.where(self.true > 0, -scores, scores))
            return binary
        own: Array = np.take_along_axis(scores, self.true[:, None], axis=1)[:, 0]
        if from_logits:
            return -own
        highest = scores.max(axis=1)
        sums: Array = np.exp(scores - highest[:, None]).sum(axis=1)
        losses: Array = np.log(sums) + (highest - own)
        return losses


def _classes(label: Array, num_classes: int, ignore: int) -> tuple[Array, Array]:
    """The labels that count as whole numbers, `(m,)`, and which these are, `(n,)`."""
    with np.errstate(invalid="ignore"):  # a NaN, of which NumPy warns from 1.24 on, is told next
        whole = label.astype(np.int64)
    if label.dtype.kind == "f" and not (whole == label).all():
        raise ValueError(f"label {label[whole != label][0]:g} is not a class, which is a whole number")
    kept = whole != ignore
    outside = kept & ((whole < 0) | (whole >= num_classes))
    if outside.any():
        raise ValueError(
            f"label {whole[outside][0]} is not one of the classes 0 to {num_classes - 1}, nor {ignore}, which is "
            "ignored"
        )
    return whole[kept], kept


def _tally(targets: _Targets) -> Array:
    """Of each class, how often it is right, predicted, and true: `(3 C,)`."""
    decided, true, num_classes = targets.decided(), targets.true, targets.num_classes
    right = true[decided == true]
    return np.concatenate([np.bincount(one, minlength=num_classes) for one in (right, decided, true)])


class _Counts(NamedTuple):
    """What `_tally` adds up to; each `(C,)`."""

    right: Array
    predicted: Array
    true: Array

    @classmethod
    def of(cls, sums: Array) -> _Counts:
        counts = cls(*sums.reshape(3, -1))
        if not counts.true.any():
            raise ValueError("every label is ignored, so there is nothing to measure")
        return counts


def _share_right(sums: Array) -> float:
    counts = _Counts.of(sums)
    return float(counts.right.sum() / counts.true.sum())


def _f1(sums: Array, average: str | None) -> float:
    """`2 TP / (2 TP + FP + FN)`: van Rijsbergen, Information Retrieval (1979); 0 where there is nothing to find."""
    right, predicted, true = _Counts.of(sums)
    if average == "binary" or (average is None and len(true) == 2):
        return float(2 * right[1] / max(predicted[1] + true[1], 1))
    if average == "micro":
        return float(right.sum() / true.sum())
    seen = predicted + true > 0
    each = 2 * right[seen] / (predicted + true)[seen]
    if average == "weighted":
        return float((each * true[seen]).sum() / true.sum())
    return float(each.mean())


def _matthews(sums: Array) -> float:
    """`R_K` of Gorodkin, Comparing two K-category assignments by a K-category correlation coefficient (2004).

    For two classes it is Matthews' coefficient (1975). It is 0 where all predictions, or all labels, are one class.
    """
    right, predicted, true = [[int(one) for one in counts] for counts in _Counts.of(sums)]
    total = sum(true)
    both = sum(right) * total - sum(p * t for p, t in zip(predicted, true, strict=True))
    return root_ratio(both, total**2 - sum(p * p for p in predicted), total**2 - sum(t * t for t in true))


def _mean_iou(sums: Array) -> float:
    """The mean of `TP / (TP + FP + FN)` over the classes that are true or predicted anywhere."""
    right, predicted, true = _Counts.of(sums)
    union: Array = predicted + true - right
    return float((right[union > 0] / union[union > 0]).mean())


def _mean_loss(sums: Array) -> float:
    if not sums[-1]:
        raise ValueError("every label is ignored, so there is nothing to measure")
    return float(exact_total(sums[:-1]) / int(sums[-1]))


def _perplexity(sums: Array) -> float:
    mean = _mean_loss(sums)
    return math.exp(mean) if mean < 709 else math.inf


def _moments(prediction: Array, label: Array) -> Array:
    if prediction.size != label.size:
        raise ValueError(f"predictions {prediction.shape} and labels {label.shape} are not equally many numbers")
    x, y = [np.asarray(one, np.float64).reshape(-1) for one in (prediction, label)]
    sums = [exact_sum(x), exact_sum(y), *(exact_sum(exact_products(*pair)) for pair in ((x, x), (y, y), (x, y)))]
    return np.append(np.concatenate(sums), x.size)


def _pearson(sums: Array) -> float:
    """Pearson's `r`, from sums without rounding, so that a large mean costs no digits; 0 for constant predictions."""
    x, y, xx, yy, xy = [exact_total(digits) for digits in sums[:-1].reshape(-1, NUM_DIGITS)]
    n = int(sums[-1])
    spread = n * yy - y * y
    if spread == 0:
        raise ValueError("all labels are equal, so there is nothing that predictions could correlate with")
    return root_ratio(n * xy - x * y, n * xx - x * x, spread)


def _binned(targets: _Targets) -> Array:
    """How many positive, then how many negative labels have a score in each bin, `(2 * 2**16,)`.

    A bin holds the scores that are equal in the first 16 bits of a float32: sign, exponent, and 8 bits of the number.
    """
    scores = targets.scores
    if scores.ndim == 2:
        if targets.num_classes != 2:
            raise ValueError(f"found {targets.num_classes} classes; allowed: two, or one number for each label")
        scores = scores[:, 1].astype(np.float64) - scores[:, 0]
    if np.isnan(scores).any():
        raise ValueError("found a prediction that is not a number")
    bits = (scores.astype(np.float32) + np.float32(0)).view(np.uint32)  # the sum is 0 for -0 as well
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)) >> 16
    is_true = targets.true > 0
    return np.concatenate([np.bincount(ordered[one], minlength=_BINS) for one in (is_true, ~is_true)])


def _area(sums: Array) -> float:
    """The share of pairs of a positive and a negative label in which the positive one has the higher score.

    Pairs in one bin count half (Hanley and McNeil, The Meaning and Use of the Area under a ROC Curve, 1982). So the
    result is off by at most half the share of pairs whose scores differ, but are in one bin.
    """
    positive, negative = sums.reshape(2, -1)
    if not positive.any() or not negative.any():
        raise ValueError("all labels are of one class; the area needs positive and negative ones")
    below = np.cumsum(negative) - negative / 2
    return float((positive * below).sum() / (positive.sum() * negative.sum()))
