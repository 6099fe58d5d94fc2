"""Sums and rows of the user's own: added up and collected in order over ranks, and what is refused."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from harness.errors import ConfigError
from harness.gluon import totals
from harness.model import Rows, Sums, build_metrics, try_metrics
from harness.model.metrics import as_metric
from tests.gluon.ranks import evaluated, evaluated_on, on_ranks

N = 131
RANDOM = np.random.default_rng(3)
PREDICTION, LABEL = RANDOM.normal(size=(N, 3)).astype(np.float32), RANDOM.integers(0, 3, N)


def own(value):
    return {"own": as_metric(value, "own", "metrics")}


class Moments:
    """Of an own class: several numbers by name."""

    best = "lowest"

    def sums(self, prediction, label):
        return [len(label), prediction[:, 0].sum(dtype=np.float64), (prediction[:, 0].astype(np.float64) ** 2).sum()]

    def finish(self, sums):
        n, total, squares = sums
        return {"mean": total / n, "variance": squares / n - (total / n) ** 2}


def added_in_order(batch):
    """The sum of the batches' sums, one after the other."""
    total = np.zeros(3)
    for first in range(0, N, batch):
        rows = slice(first, first + batch)
        total = total + Moments().sums(PREDICTION[rows], LABEL[rows])
    return Moments().finish(total)


@pytest.mark.parametrize("batch", [1, 7, 64, N])
@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("table_bytes", [1, 200, totals.TABLE_BYTES])
def test_sums_are_added_in_the_order_of_the_batches(batch, size, table_bytes, monkeypatch):
    monkeypatch.setattr(totals, "TABLE_BYTES", table_bytes)
    found = evaluated(own(Moments()), PREDICTION, LABEL, batch, size)
    expected = added_in_order(batch)
    assert found == {"loss": found["loss"], "own.mean": expected["mean"], "own.variance": expected["variance"]}
    losses = np.arange(N, dtype=np.float32) / 7
    assert found["loss"] == sum(float(losses[i : i + batch].astype(float).sum()) for i in range(0, N, batch)) / N


def test_results_keep_the_order_in_which_metrics_are_named():
    metrics = {**build_metrics(["f1", "accuracy"]), **own(Moments()), **build_metrics(["error"])}
    assert list(evaluated(metrics, PREDICTION, LABEL)) == [
        "loss",
        "f1",
        "accuracy",
        "own.mean",
        "own.variance",
        "error",
    ]


@pytest.mark.parametrize(
    ("names", "collectives"),
    [
        (["accuracy"], ["evaluation"]),
        (["accuracy", "error"], ["evaluation"]),
        (["f1", "miou", "roc_auc"], ["evaluation.sums", "evaluation", "evaluation.finish"]),
    ],
)
def test_means_cost_one_collective_and_sums_two_more(names, collectives):
    def calls(world):
        evaluated_on(world, build_metrics(names), PREDICTION[:, :2], LABEL % 2, 1)
        return [name.removeprefix("root.") for name in world.calls]

    assert on_ranks(2, calls) == [collectives] * 2


# Rows: what is no sum.


class Order:
    """The order in which rows come, of arrays of several types and lengths."""

    def rows(self, prediction, label):
        return {"ids": np.repeat(label, label % 3), "scores": prediction[:, :2], "few": label[:1].astype(np.int8) > 0}

    def finish(self, rows):
        assert (rows["ids"] == np.repeat(np.arange(N), np.arange(N) % 3)).all()
        assert rows["scores"].dtype == np.float32
        assert (rows["scores"] == PREDICTION[:, :2]).all()
        assert rows["few"].dtype == bool
        return float(len(rows["few"]))


@pytest.mark.parametrize("batch", [1, 7, 64, N])
@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("message_bytes", [5, totals.MESSAGE_BYTES])
def test_rows_are_collected_in_the_order_of_the_samples(batch, size, message_bytes, monkeypatch):
    monkeypatch.setattr(totals, "MESSAGE_BYTES", message_bytes)
    if message_bytes == 5 and batch == 1 and size > 1:
        pytest.skip("thousands of messages say no more")
    assert evaluated(own(Order()), PREDICTION, np.arange(N), batch, size)["own"] == -(-N // batch)


class VOC07:
    """Mean average precision at IoU 0.5 and eleven recalls: Everingham et al., The PASCAL VOC Challenge, IJCV 2010.

    A prediction is class, score and box of each detection, `(n, d, 6)`; a label class and box of each object,
    `(n, g, 5)`; a class of -1 fills up what is missing.
    """

    best = "highest"

    def __init__(self, classes):
        self.classes = classes

    def rows(self, prediction, label):
        """Of each detection class, score, and whether it is the best of an object; of each object its class."""
        return np.concatenate([self.judged(*one) for one in zip(prediction, label, strict=True)]), label[..., 0][
            label[..., 0] >= 0
        ]

    def judged(self, detections, objects):
        detections = detections[detections[:, 0] >= 0]
        detections = detections[np.argsort(-detections[:, 1], kind="stable")]
        objects, taken, found = objects[objects[:, 0] >= 0], set(), []
        for kind, score, *box in detections:
            overlaps = [overlap(box, one[1:]) if one[0] == kind else 0.0 for one in objects]
            best = int(np.argmax(overlaps)) if overlaps else -1
            hit = best >= 0 and overlaps[best] >= 0.5 and best not in taken
            if hit:
                taken.add(best)
            found.append((kind, score, hit))
        return np.array(found, np.float64).reshape(-1, 3)

    def finish(self, rows):
        detections, objects = rows
        found = {}
        for kind in range(self.classes):
            own = detections[detections[:, 0] == kind]
            hits = own[np.argsort(-own[:, 1], kind="stable"), 2]
            recall = np.cumsum(hits) / max((objects == kind).sum(), 1)
            precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
            found[str(kind)] = float(np.mean([precision[recall >= at / 10].max(initial=0.0) for at in range(11)]))
        return {**found, "mAP": sum(found.values()) / self.classes}


def overlap(one, other):
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    both = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return both / (sum(areas) - both)


def detections_of(random, n, classes):
    """Objects, and detections of most of them, some twice, some of the wrong class, and some of nothing."""
    labels, predictions = np.full((n, 4, 5), -1.0), np.full((n, 9, 6), -1.0)
    for sample in range(n):
        for place in range(random.integers(0, 4)):
            corner = random.uniform(0, 80, 2)
            labels[sample, place] = [random.integers(classes), *corner, *(corner + random.uniform(8, 20, 2))]
            for again in range(random.integers(0, 3)):
                kind = labels[sample, place, 0] if random.uniform() < 0.8 else random.integers(classes)
                box = labels[sample, place, 1:] + random.normal(size=4)
                predictions[sample, 2 * place + again] = [kind, round(random.uniform(), 2), *box]
        predictions[sample, 8] = [random.integers(classes), round(random.uniform(), 2), 1, 1, 9, 9]
    return predictions.astype(np.float32), labels.astype(np.float32)


def average_precisions(predictions, labels, classes):
    """The same from the definition: every detection of a class against every one above it."""
    found = []
    for kind in range(classes):
        scored, total = [], 0
        for sample, (detections, objects) in enumerate(zip(predictions.tolist(), labels.tolist(), strict=True)):
            total += sum(one[0] == kind for one in objects)
            own = [one for one in detections if one[0] == kind]
            free = [one[1:] for one in objects if one[0] == kind]
            for place, one in sorted(enumerate(own), key=lambda item: (-item[1][1], item[0])):
                best = max(free, key=lambda box: overlap(one[2:], box), default=None)
                every = max((overlap(one[2:], box[1:]) for box in objects if box[0] == kind), default=0)
                hit = best is not None and overlap(one[2:], best) >= 0.5 and overlap(one[2:], best) == every
                if hit:
                    free.remove(best)
                scored.append((-one[1], sample, place, hit))
        hits = [one[3] for one in sorted(scored, key=lambda one: one[:2])]
        curve = [(sum(hits[:k]) / total, sum(hits[:k]) / k) for k in range(1, len(hits) + 1)]
        found.append(sum(max((p for r, p in curve if r >= at / 10), default=0.0) for at in range(11)) / 11)
    return found


def test_the_mean_average_precision_of_voc07_does_not_depend_on_batches_or_ranks():
    predictions, labels = detections_of(np.random.default_rng(9), 67, 3)
    each = average_precisions(predictions, labels, 3)
    expected = {**{f"own.{kind}": value for kind, value in enumerate(each)}, "own.mAP": sum(each) / 3}
    assert 0.2 < expected["own.mAP"] < 0.9, "detections are neither all right nor all wrong"
    for batch in (1, 7, 64):
        for size in (1, 2, 3):
            found = evaluated(own(VOC07(3)), predictions, labels, batch, size)
            del found["loss"]
            assert found == pytest.approx(expected, rel=1e-9)


class Bleu:
    """Of a corpus: Papineni, Roukos, Ward and Zhu, BLEU (ACL 2002), one reference a sentence, n-grams up to 4.

    Sentences of any length are laid end to end, beside their lengths.
    """

    def rows(self, prediction, label):
        found = {}
        for name, sentences in (("said", prediction), ("meant", label)):
            found[name] = sentences[sentences >= 0]
            found[f"{name}_lengths"] = (sentences >= 0).sum(axis=1)
        return found

    def finish(self, rows):
        said, meant = [np.split(rows[name], np.cumsum(rows[f"{name}_lengths"])[:-1]) for name in ("said", "meant")]
        precisions = []
        for n in range(1, 5):
            counts = [[Counter(grams(one.tolist(), n)) for one in sentences] for sentences in (said, meant)]
            right = sum((a & b).total() for a, b in zip(*counts, strict=True))
            precisions.append(right / sum(one.total() for one in counts[0]))
        brevity = min(0.0, 1 - len(rows["meant"]) / len(rows["said"]))
        return float(np.exp(brevity + np.log(precisions).mean()))


def grams(words, n):
    return [tuple(words[first : first + n]) for first in range(len(words) - n + 1)]


def bleu_of(sentences, references):
    """The same, word by word: an n-gram is right as often as its reference has it, at most."""
    logs, said, meant = 0.0, sum(map(len, sentences)), sum(map(len, references))
    for n in range(1, 5):
        right = total = 0
        for words, reference in zip(sentences, references, strict=True):
            left = grams(reference, n)
            for gram in grams(words, n):
                total += 1
                if gram in left:
                    left.remove(gram)
                    right += 1
        logs += math.log(right / total) / 4
    return math.exp(logs) * (1.0 if said > meant else math.exp(1 - meant / said))


@pytest.mark.parametrize("longer", [1.1, 0.9])
def test_bleu_of_a_corpus_is_that_of_all_its_sentences(longer):
    random = np.random.default_rng(4)
    references = [random.integers(0, 6, random.integers(3, 20)).tolist() for _ in range(N)]
    sentences = [
        [int(random.integers(6)) if random.uniform() < 0.2 else word for word in (one * 2)[: round(longer * len(one))]]
        for one in references
    ]
    arrays = [np.array([one + [-1] * (30 - len(one)) for one in texts]) for texts in (sentences, references)]
    expected = bleu_of(sentences, references)
    assert 0.2 < expected < 0.9
    for batch in (1, 7, 64):
        for size in (1, 2, 3):
            assert evaluated(own(Bleu()), *arrays, batch, size)["own"] == pytest.approx(expected, rel=1e-9)


def test_named_metrics_look_at_one_of_several_arrays():
    prediction = {"class": PREDICTION, "depth": PREDICTION[:, 0]}
    label = (LABEL, PREDICTION[:, 1])
    choices = [{"f1": {"output": "class", "label": 0}}, {"mae": {"output": "depth", "label": 1}}]
    for size in (1, 2):
        found = evaluated(build_metrics(choices), prediction, label, 7, size, num_samples=N)
        assert found["f1"] == evaluated(build_metrics(["f1"]), PREDICTION, LABEL)["f1"]
        assert found["mae"] == evaluated(build_metrics(["mae"]), PREDICTION[:, 0], PREDICTION[:, 1])["mae"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, r"there are several arrays, so say which with output: one of \['a', 'b'\]"),
        ({"output": "c"}, r"there is no 'c'; there are several arrays, so say which with output: one of \['a', 'b'\]"),
        ({"output": "a", "label": 0}, "there is one array, so label: 0 has no effect; remove it"),
    ],
)
@pytest.mark.parametrize("name", ["f1", "accuracy"])
def test_which_array_is_meant_has_to_be_said(name, params, message):
    metrics = build_metrics([{name: params}])
    with pytest.raises(ConfigError, match=message):
        try_metrics(metrics, {"a": PREDICTION[:2], "b": PREDICTION[:2]}, LABEL[:2])


def test_predictions_and_labels_may_be_nested():
    metric = Sums(lambda p, t: [(p["a"] > t[0]).sum(), len(t[1])], lambda sums: sums[0] / sums[1])
    prediction, label = {"a": PREDICTION[:, 0], "b": PREDICTION}, (LABEL, LABEL)
    for size in (1, 2):
        found = evaluated(own(metric), prediction, label, 7, size, num_samples=N)["own"]
        assert found == (PREDICTION[:, 0] > LABEL).mean()


# Wrong uses: one message, the same on every rank that can know.


class Longer(Moments):
    def sums(self, prediction, label):
        return np.ones(3 if len(label) == 64 else 4)


class Text:
    def rows(self, prediction, label):
        return label.astype(str)

    def finish(self, rows):
        return 0.0


class Ragged(Text):
    def rows(self, prediction, label):
        return np.zeros((2, len(label)))


class Fresh:
    """Reports other names every time."""

    calls = 0

    def sums(self, prediction, label):
        return [1.0]

    def finish(self, sums):
        self.calls += 1
        return {f"call_{self.calls}": 1.0}


def summing(sums, finish=lambda sums: float(sums[0])):
    return Sums(sums, finish)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (Longer(), "metric 'own': sums gave 4 numbers, and 3 before; give equally many for every batch"),
        (summing(lambda p, t: np.ones((2, 2))), r"metric 'own': sums gave float64 of shape \(2, 2\); numbers in"),
        (summing(lambda p, t: 1.0), r"metric 'own': sums gave float64 of shape \(\); numbers in"),
        (summing(lambda p, t: ["a"]), r"sums gave <U1 of shape \(1,\)"),
        (summing(lambda p, t: [0.0, np.nan]), "metric 'own': sums gave nan at place 1"),
        (summing(lambda p, t: [1.0], lambda sums: float("nan")), "metric 'own': finish gave nan; give a number, also"),
        (summing(lambda p, t: [1.0], lambda sums: {"a": np.nan}), r"metric 'own\.a': finish gave nan"),
        (summing(lambda p, t: [1.0], lambda sums: "high"), "metric 'own': finish gave 'high'; a number, or a mapping"),
        (summing(lambda p, t: [1.0], lambda sums: None), "metric 'own': finish gave None"),
        (summing(lambda p, t: [1.0], lambda sums: {}), "metric 'own': finish gave {}; numbers by name are needed"),
        (summing(lambda p, t: [1.0], lambda sums: {1: 2.0}), "metric 'own': finish gave {1: 2.0}; numbers by name"),
        (summing(lambda p, t: [1.0], lambda sums: 1 / 0), "metric 'own': finish raised ZeroDivisionError: division"),
        (Sums(lambda p, t: [0.5], float, are_counts=True), "metric 'own': says are_counts, but its sums are not whole"),
        (Rows(lambda p, t: 3, len), "metric 'own': rows gave int64 without rows; arrays of numbers"),
        (Rows(lambda p, t: (), len), "metric 'own': rows gave nothing; arrays of numbers"),
        (Text(), "metric 'own': rows gave <U21 without rows; arrays of numbers"),
        (Ragged(), r"metric 'own': rows gave structure, types and shapes \[None, \['<f8', \[9\]\]\] in a batch"),
    ],
)
def test_what_is_no_metric_is_refused(metric, message, size):
    prediction, label = np.concatenate([PREDICTION] * 3), np.concatenate([LABEL] * 3)
    with pytest.raises(ConfigError, match=message):
        evaluated(own(metric), prediction, label, 64, size)


def test_other_lengths_on_one_rank_are_refused_on_all():
    def work(world):
        metric = summing(lambda p, t: np.ones(3 + (world.rank == 1)))
        with pytest.raises(ConfigError, match="sums gave 3 numbers on rank 0, but 4 on rank 1; give equally") as error:
            evaluated_on(world, own(metric), PREDICTION, LABEL, 7)
        return error.value.everywhere

    assert on_ranks(3, work) == [True] * 3


def test_other_rows_on_one_rank_are_refused_on_all():
    def work(world):
        metric = Rows(lambda p, t: t.astype(np.int64 if world.rank else np.int32), len)
        with pytest.raises(ConfigError, match=r"\['<i4', \[\]\]\] on rank 0, and .*'<i8'.* on rank 1; only the number"):
            evaluated_on(world, own(metric), PREDICTION, LABEL, 7)
        return True

    assert on_ranks(2, work) == [True] * 2


def test_a_rank_without_a_batch_takes_part():
    metrics = {**build_metrics(["f1"]), **own(Moments()), "rows": Rows(lambda p, t: p, lambda rows: float(len(rows)))}
    one = evaluated(metrics, PREDICTION, LABEL, 100, 1)
    assert evaluated(metrics, PREDICTION, LABEL, 100, 3) == one
    assert one["rows"] == N


@pytest.mark.parametrize("size", [1, 2])
def test_other_names_than_before_are_refused(size):
    def work(world):
        metrics = own(Fresh())
        assert evaluated_on(world, metrics, PREDICTION, LABEL, 7)["own.call_1"] == 1
        with pytest.raises(ConfigError, match=r"metric 'own': reports \['call_2'\], and reported \['call_1'\] before"):
            evaluated_on(world, metrics, PREDICTION, LABEL, 7)
        return True

    assert on_ranks(size, work) == [True] * size
