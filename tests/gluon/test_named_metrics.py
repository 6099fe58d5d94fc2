"""Every named metric against its definition over all predictions, for sizes of batches and numbers of ranks."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from harness.errors import DataError
from harness.model import build_metrics
from harness.model.metrics import METRICS
from tests.gluon.ranks import evaluated

N = 131  # no size of batch divides it
RANDOM = np.random.default_rng(5)


def drawn(*shape, classes=4, steps=None):
    """Predictions; with `steps`, few different ones, so that there are ties."""
    scores = RANDOM.normal(size=shape)
    return (np.round(scores * steps) / steps if steps else scores).astype(np.float32)


def labels(*shape, classes=4, missing=(), ignored=0.0, low=0):
    found = RANDOM.choice([one for one in range(low, classes) if one not in missing], shape)
    return np.where(RANDOM.uniform(size=shape) < ignored, -1, found)


# Definitions, written over single samples.


def pairs(prediction, label, ignore=-1):
    """Predicted and true class of every label that counts."""
    if prediction.size == label.size:
        return [
            (int(p > 0), int(t > 0))
            for p, t in zip(prediction.flat, label.flat, strict=True)
            if ignore is None or t != ignore
        ]
    axis = 1 if prediction.ndim > 2 and prediction.shape[2:] == label.shape[1:] else prediction.ndim - 1
    rows = np.moveaxis(prediction, axis, -1).reshape(label.size, -1)
    return [(list(p).index(max(p)), int(t)) for p, t in zip(rows.tolist(), label.flat, strict=True) if t != ignore]


def f1_of(found, one):
    hit = sum(p == one and t == one for p, t in found)
    either = sum((p == one) + (t == one) for p, t in found)
    return 2 * hit / either if either else 0.0


def seen(found):
    return sorted({one for pair in found for one in pair})


def f1_binary(prediction, label):
    return f1_of(pairs(prediction, label), 1)


def f1_macro(prediction, label):
    found = pairs(prediction, label)
    return sum(f1_of(found, one) for one in seen(found)) / len(seen(found))


def f1_weighted(prediction, label):
    found = pairs(prediction, label)
    return sum(f1_of(found, one) * sum(t == one for _, t in found) for one in seen(found)) / len(found)


def share_right(prediction, label):
    found = pairs(prediction, label)
    return sum(p == t for p, t in found) / len(found)


def correlation_of(x, y):
    x, y = [[float(one) for one in np.asarray(values).flat] for values in (x, y)]
    mean_x, mean_y = math.fsum(x) / len(x), math.fsum(y) / len(y)
    both = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    spread = [math.fsum((a - mean) ** 2 for a in one) for one, mean in ((x, mean_x), (y, mean_y))]
    return both / math.sqrt(spread[0] * spread[1]) if all(spread) else 0.0


def mcc_of(prediction, label):
    """The correlation of the indicators of classes (Gorodkin, 2004)."""
    found = pairs(prediction, label)
    covariances = {(a, b): 0.0 for a in "pt" for b in "pt"}
    for one in range(max(seen(found)) + 1):
        columns = {"p": [float(p == one) for p, _ in found], "t": [float(t == one) for _, t in found]}
        for a, b in covariances:
            mean_a, mean_b = [sum(columns[name]) / len(found) for name in (a, b)]
            covariances[a, b] += sum((x - mean_a) * (y - mean_b) for x, y in zip(columns[a], columns[b], strict=True))
    spread = covariances["p", "p"] * covariances["t", "t"]
    return covariances["p", "t"] / math.sqrt(spread) if spread > 1e-12 else 0.0


def iou_of(prediction, label):
    found = pairs(prediction, label)
    each = []
    for one in seen(found):
        hit = sum(p == one and t == one for p, t in found)
        each.append(hit / sum(p == one or t == one for p, t in found))
    return sum(each) / len(each)


def entropy_of(prediction, label):
    if prediction.size == label.size:
        chances = [1 / (1 + math.exp(-p if t > 0 else p)) for p, t in zip(prediction.flat, label.flat, strict=True)]
    else:
        axis = 1 if prediction.ndim > 2 and prediction.shape[2:] == label.shape[1:] else prediction.ndim - 1
        rows = np.moveaxis(prediction, axis, -1).reshape(label.size, -1).tolist()
        exponents = [
            ([math.exp(one) for one in row], int(t)) for row, t in zip(rows, label.flat, strict=True) if t != -1
        ]
        chances = [row[t] / math.fsum(row) for row, t in exponents]
    return math.fsum(-math.log(one) for one in chances) / len(chances)


def auc_of(scores, positive):
    """Over every pair of a positive and a negative label."""
    wins = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for (a, is_true), (b, other) in itertools.product(zip(scores, positive, strict=True), repeat=2)
        if is_true and not other
    ]
    return sum(wins) / len(wins)


def top_k_of(prediction, label, k):
    return sum(
        sum(one > row[t] for one in row) < k for row, t in zip(prediction.tolist(), label.tolist(), strict=True)
    ) / len(label)


TWO, FOUR = (drawn(N, 2, steps=2), labels(N, classes=2)), (drawn(N, 4, steps=2), labels(N))
ABSENT = (
    np.concatenate([drawn(N, 3, steps=2), np.full((N, 2), -9, np.float32)], axis=1),
    labels(N, missing=(0,), classes=3),
)
ONE = (drawn(N, 1, steps=3), labels(N, classes=2).astype(np.float32))
SIGNS = (drawn(N, steps=3), labels(N, classes=2) * 2 - 1)
PICTURES = (drawn(N, 4, 3, 5, steps=2), labels(N, 3, 5, ignored=0.2))
TOKENS = (drawn(N, 6, 4), labels(N, 6, ignored=0.3).astype(np.float32))
MASKS = (drawn(N, 1, 3, 3), labels(N, 3, 3, classes=2).astype(np.uint8))
SAME = (np.tile(np.float32([1, 0]), (N, 1)), np.zeros(N, int))
NUMBERS = (drawn(N, 2).astype(np.float64), RANDOM.normal(size=(N, 2)))
EIGHTHS = (drawn(N, 1, steps=8), np.round(RANDOM.normal(size=N) * 8) / 8)
YEARS = (np.float32(1e5) + drawn(N, steps=64), 1e5 + np.round(RANDOM.normal(size=N) * 64) / 64)
FAR = (1e9 + RANDOM.normal(size=N), 1e9 + RANDOM.normal(size=N))
NAMES = {
    "TWO": TWO,
    "FOUR": FOUR,
    "ABSENT": ABSENT,
    "ONE": ONE,
    "SIGNS": SIGNS,
    "PICTURES": PICTURES,
    "TOKENS": TOKENS,
    "MASKS": MASKS,
    "SAME": SAME,
    "NUMBERS": NUMBERS,
    "EIGHTHS": EIGHTHS,
    "YEARS": YEARS,
    "FAR": FAR,
}


def halves(prediction):
    """Scores of bfloat16, of which there are few enough for bins."""
    return (prediction.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)


AUC_ONE, AUC_TWO = (
    (halves(drawn(N, 1)), ONE[1]),
    (np.stack([np.zeros(N), halves(drawn(N))], 1).astype(np.float32), TWO[1]),
)
SINGLES = (drawn(N, 3), 1000 * drawn(N, 3))
NAMES |= {"AUC_ONE": AUC_ONE, "AUC_TWO": AUC_TWO, "SINGLES": SINGLES}


def mean_error(power):
    return lambda prediction, label: (
        math.fsum(
            abs(float(p) - float(t)) ** power
            for p, t in zip(prediction.reshape(label.shape).flat, label.flat, strict=True)
        )
        / label.size
    )


CASES = [
    *(("accuracy", name, share_right) for name in ("TWO", "FOUR", "ABSENT", "SAME")),
    *(("error", name, lambda *given: 1 - share_right(*given)) for name in ("TWO", "FOUR")),
    ("binary_accuracy", "ONE", share_right),
    ("binary_accuracy", "SIGNS", lambda *given: sum(p == t for p, t in pairs(*given, None)) / N),
    *(({"top_k": {"k": k}}, "FOUR", lambda *given, k=k: top_k_of(*given, k)) for k in (1, 2, 3)),
    ("top_5_accuracy", "ABSENT", lambda *given: top_k_of(*given, 5)),
    *(("pixel_accuracy", name, share_right) for name in ("PICTURES", "TOKENS", "MASKS", "FOUR")),
    *(("f1", name, f1_binary) for name in ("TWO", "ONE", "MASKS", "SAME")),
    *(("f1", name, f1_macro) for name in ("FOUR", "ABSENT", "PICTURES", "TOKENS")),
    ({"f1": {"average": "macro"}}, "TWO", f1_macro),
    ({"f1": {"average": "micro"}}, "FOUR", share_right),
    ({"f1": {"average": "weighted"}}, "ABSENT", f1_weighted),
    *(("mcc", name, mcc_of) for name in ("TWO", "ONE", "FOUR", "ABSENT", "PICTURES", "SAME")),
    *(("miou", name, iou_of) for name in ("PICTURES", "ABSENT", "TOKENS", "MASKS", "SAME")),
    *(("cross_entropy", name, entropy_of) for name in ("TWO", "FOUR", "ONE", "PICTURES", "TOKENS")),
    *(("perplexity", name, lambda *given: math.exp(entropy_of(*given))) for name in ("FOUR", "TOKENS")),
    *(("mae", name, mean_error(1)) for name in ("NUMBERS", "EIGHTHS", "SINGLES")),
    *(("mse", name, mean_error(2)) for name in ("NUMBERS", "EIGHTHS", "SINGLES")),
    *(("rmse", name, lambda *given: math.sqrt(mean_error(2)(*given))) for name in ("NUMBERS", "EIGHTHS", "SINGLES")),
    *(("correlation", name, correlation_of) for name in ("NUMBERS", "EIGHTHS", "YEARS", "FAR", "ONE")),
    ("roc_auc", "AUC_ONE", lambda scores, label: auc_of(scores.reshape(-1).tolist(), label > 0)),
    ("roc_auc", "AUC_TWO", lambda scores, label: auc_of((scores[:, 1] - scores[:, 0]).tolist(), label == 1)),
]


def test_every_named_metric_is_here():
    assert {choice if isinstance(choice, str) else next(iter(choice)) for choice, *_ in CASES} == set(METRICS)


@pytest.mark.parametrize(("choice", "given", "definition"), CASES, ids=[f"{case[0]}-{case[1]}" for case in CASES])
def test_a_metric_is_its_definition_for_any_batch_and_number_of_ranks(choice, given, definition):
    prediction, label = NAMES[given]
    metrics = build_metrics([choice])
    expected = definition(prediction, label)
    for batch in (1, 7, 64):
        found = [evaluated(metrics, prediction, label, batch, size) for size in (1, 2, 3)]
        assert all(one == found[0] for one in found), "every number of ranks has the bits of one"
        assert list(found[0].values())[1] == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("choice", "given"),
    [("f1", "FOUR"), ("mcc", "FOUR"), ("miou", "PICTURES"), ("cross_entropy", "TOKENS"), ("correlation", "FAR")],
)
def test_sums_without_rounding_have_the_same_bits_for_every_size_of_batch(choice, given):
    found = [evaluated(build_metrics([choice]), *NAMES[given], batch) for batch in (1, 7, 64, N)]
    assert len({one[choice] for one in found}) == 1


@pytest.mark.parametrize("spread", [0.01, 1.0, 50.0])
def test_the_area_is_within_its_bound_where_bins_hold_several_scores(spread):
    label = labels(N, classes=2)
    scores = (RANDOM.normal(size=N) * spread + 5 + label * spread).astype(np.float32)
    found = evaluated(build_metrics(["roc_auc"]), scores, label)["roc_auc"]
    together = [
        a != b and x == y
        for (a, is_true, x), (b, other, y) in itertools.product(
            zip(scores, label, halves(scores), strict=True), repeat=2
        )
        if is_true and not other
    ]
    bound = sum(together) / len(together) / 2
    assert abs(found - auc_of(scores.tolist(), label > 0)) <= bound
    assert bound > 0, "there is something to see"


def test_the_area_orders_scores_of_both_signs_and_takes_both_zeros_for_one():
    scores, label = np.float32([-3e38, -2, -1e-30, -0.0, 0.0, 1e-30, 2, 3e38]), np.array([0, 1, 0, 1, 0, 1, 0, 1])
    found = evaluated(build_metrics(["roc_auc"]), scores, label, 3)["roc_auc"]
    assert found == auc_of(scores.tolist(), label > 0)
    assert auc_of([0.0, 0.0], np.array([True, False])) == 0.5


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.int64, np.float32])
def test_labels_of_every_type_mean_the_same(dtype):
    prediction, label = FOUR
    metrics = build_metrics(["f1", "mcc", "miou", "cross_entropy"])
    assert evaluated(metrics, prediction, label.astype(dtype)) == evaluated(metrics, prediction, label)


def test_another_label_is_ignored_where_told():
    prediction, label = PICTURES
    void = np.where(label < 0, 255, label)
    for name in ("miou", "pixel_accuracy", "f1", "mcc", "cross_entropy"):
        found = evaluated(build_metrics([{name: {"ignore": 255}}]), prediction, void)
        assert found[name] == evaluated(build_metrics([name]), prediction, label)[name]


def test_one_number_for_each_label_ignores_nothing_unless_told():
    scores, signs = SIGNS
    assert evaluated(build_metrics([{"f1": {"ignore": -1}}]), scores, signs)["f1"] != pytest.approx(
        evaluated(build_metrics(["f1"]), scores, signs)["f1"]
    )


def test_logarithms_of_probabilities_are_taken_as_they_are():
    prediction, label = FOUR
    logs = prediction - np.log(np.exp(prediction.astype(np.float64)).sum(axis=1, keepdims=True))
    found = evaluated(build_metrics([{"cross_entropy": {"from_logits": True}}]), logs, label)["cross_entropy"]
    assert found == pytest.approx(entropy_of(prediction, label), rel=1e-9)
    told = build_metrics(["cross_entropy"], from_logits=True)
    assert evaluated(told, logs, label)["cross_entropy"] == found


def test_large_predictions_do_not_overflow():
    prediction, label = np.float32([[1e4, 0], [0, 1e4]]), np.array([1, 1])
    assert evaluated(build_metrics(["cross_entropy"]), prediction, label)["cross_entropy"] == 5000
    assert evaluated(build_metrics(["perplexity"]), prediction, label)["perplexity"] == math.inf


# What is reported where there is nothing to measure.


@pytest.mark.parametrize(
    ("choice", "prediction", "label", "value"),
    [
        ("f1", [[1, 0]] * 3, [0, 0, 0], 0),  # neither true nor predicted, as scikit-learn's zero_division=0
        ("f1", [[1, 0]] * 3, [1, 1, 1], 0),
        ("mcc", [[1, 0]] * 3, [0, 0, 0], 0),
        ("mcc", [[1, 0]] * 3, [0, 1, 0], 0),
        ("miou", [[1, 0, 0]] * 3, [0, 0, 0], 1),
        ("correlation", [2, 2, 2], [1, 2, 3], 0),
    ],
)
def test_a_value_where_a_formula_divides_by_nothing(choice, prediction, label, value):
    assert evaluated(build_metrics([choice]), np.float32(prediction), np.array(label))[choice] == value


@pytest.mark.parametrize(
    ("choice", "prediction", "label", "message"),
    [
        ("roc_auc", [1, 2, 3], [1, 1, 1], "metric 'roc_auc': all labels are of one class; the area needs"),
        ("correlation", [1, 2, 3], [1, 1, 1], "metric 'correlation': all labels are equal"),
        *((name, [[1, 0]] * 3, [-1, -1, -1], f"metric '{name}': every label is ignored") for name in ("f1", "miou")),
        *((name, [[1, 0]] * 3, [-1] * 3, "every label is ignored") for name in ("mcc", "pixel_accuracy")),
        *((name, [[1, 0]] * 3, [-1] * 3, "every label is ignored") for name in ("cross_entropy", "perplexity")),
        ("miou", [[1, 0]] * 3, [0, 2, 1], "label 2 is not one of the classes 0 to 1, nor -1, which is ignored"),
        ("f1", [[1, 0]] * 3, [0, 0.5, 1], r"label 0\.5 is not a class, which is a whole number"),
        ("f1", [[1, 0]] * 3, [0, math.nan, 1], "label nan is not a class"),
        ("mcc", [[1, 0]] * 3, [[0, 1, 1, 1]] * 3, r"predictions \([12], 2\) do not fit labels \([12], 4\)"),
        ("roc_auc", [[1, 0, 0]] * 3, [0, 1, 1], "found 3 classes; allowed: two, or one number for each label"),
        ("roc_auc", [1, math.nan, 3], [0, 1, 1], "found a prediction that is not a number"),
        ("cross_entropy", [[1, math.nan]] * 3, [0, 1, 1], "found a number that is not finite"),
        ("correlation", [1, math.inf, 3], [0, 1, 2], "found a number that is not finite"),
        ("correlation", [[1, 2]] * 3, [0, 1, 2], r"predictions \([12], 2\) and labels \([12],\) are not equally many"),
    ],
)
@pytest.mark.parametrize("size", [1, 2])
def test_what_cannot_be_measured_is_one_message(choice, prediction, label, message, size):
    with np.errstate(invalid="ignore"), pytest.raises(DataError, match=message):
        evaluated(build_metrics([choice]), np.float32(prediction), np.array(label), 2, size)
