"""Weighted losses: the update is the sum of the numerators' gradients over the sum of weights, wherever shards are."""

from __future__ import annotations

import json
import math
import re

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

from harness.comm import SingleWorld
from harness.data import ArrayDataset, Augmentation, Batch, GlobalBatch
from harness.errors import ConfigError, DivergedError
from harness.finder import FinderSettings, Sweep, find_lr
from harness.gluon import Learner, Placement, UpdateOptions, evaluate, shards_of_rank
from harness.gluon.weighing import MOST_SHARDS, Weighing, check_weighted, weight_of
from harness.model.metrics import as_metric
from tests.programs import tokens, two_means

RANDOM = np.random.default_rng(0)
DATA = RANDOM.normal(size=(64, 6)).astype(np.float32)
CLASSES = RANDOM.integers(0, 3, 64).astype(np.float32)
ONES = np.ones(64, np.float32)
PICK = mx.gluon.loss.SoftmaxCrossEntropyLoss()


def weighted(prediction, label):
    """Labels are classes and the samples' weights."""
    classes, weights = label
    return PICK(prediction, classes) * weights, weights


def unweighted(prediction, label):
    return PICK(prediction, label[0])


def small_net():
    net = nn.HybridSequential()
    net.add(nn.Dense(8, activation="relu"), nn.BatchNorm(), nn.Dropout(0.2), nn.Dense(3))
    mx.random.seed(3)
    net.initialize(mx.init.Xavier())
    return net


def batch_of(t, sizes, weights=ONES, devices=1):
    ends = np.cumsum(sizes)
    order = shards_of_rank(len(sizes), SingleWorld(), devices)
    rows = [slice(ends[s] - sizes[s], ends[s]) for s in order]
    batches = tuple(Batch(s, DATA[r], (CLASSES[r], weights[r])) for s, r in zip(order, rows, strict=True))
    return GlobalBatch(t, batches, sum(sizes))


def learner_of(shards, loss=weighted, sample=None, contexts=(), optimizer=None, **options):
    return Learner(
        small_net_on(contexts),
        loss,
        optimizer or mx.optimizer.Adam(),
        SingleWorld(),
        shards=shards,
        sample=batch_of(1, (4,)) if sample is None else sample,
        placement=Placement(contexts),
        options=UpdateOptions(**options),
    )


def small_net_on(contexts):
    net = small_net()
    if contexts:
        net.collect_params().reset_ctx(list(contexts))
    return net


@pytest.mark.parametrize("options", [{}, {"compression": "fp16"}, {"clip_norm": 0.1}, {"skip_nonfinite": True}])
@pytest.mark.parametrize("sizes", [(16,), (8, 8, 8, 8), (5, 7, 0, 3)])
def test_weights_of_1_give_the_bits_of_no_weights(sizes, options):
    found = []
    for loss in (weighted, unweighted):
        learner = learner_of(len(sizes), loss, **options)
        losses = [float(learner.update(batch_of(t, sizes), 0.01)) for t in range(1, 5)]
        found.append((learner.digest(), losses, learner.loss, learner.gradient_norm))
    assert found[0] == found[1]


def test_several_devices_of_one_process():
    weights, digests = RANDOM.uniform(0, 2, 64).astype(np.float32), set()
    for contexts in ((), (mx.cpu(0), mx.cpu(1))):
        learner = learner_of(4, contexts=contexts)
        for t in range(1, 5):
            learner.update(batch_of(t, (5, 7, 0, 3), weights, max(1, len(contexts))), 0.01)
        digests.add(learner.digest())
    assert len(digests) == 1


def test_the_mean_is_over_weights():
    """Twice the weight is as a sample that is there twice, and no weight as one that is not there."""
    twice = np.array([2, 2, 0, 1, 1, 0, 0, 0], np.float32)
    found = []
    for rows, weights in (([0, 1, 2, 3, 4, 5, 6, 7], twice), ([0, 0, 1, 1, 3, 4], ONES)):
        net = nn.Dense(3)
        mx.random.seed(3)
        net.initialize(mx.init.Xavier())
        sample = Batch(0, DATA[:2], (CLASSES[:2], ONES[:2]))
        learner = Learner(net, weighted, mx.optimizer.SGD(), SingleWorld(), shards=2, sample=sample)
        half = len(rows) // 2
        parts = [(rows[:half], weights[:half]), (rows[half:], weights[half : len(rows)])]
        batches = tuple(Batch(s, DATA[r], (CLASSES[r], w)) for s, (r, w) in enumerate(parts))
        loss = float(learner.update(GlobalBatch(1, batches, len(rows)), 0.1))
        found.append((loss, learner.gradient_norm, net.weight.data().asnumpy()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-6)
    np.testing.assert_allclose(found[0][2], found[1][2], rtol=1e-5)


@pytest.mark.parametrize("sizes", [(4, 4, 4), (12,)])
def test_an_update_without_any_weight_changes_nothing(sizes):
    learner = learner_of(len(sizes))
    learner.update(batch_of(1, sizes), 0.01)
    before, numbers = learner.digest(), learner.numbers()
    assert math.isnan(float(learner.update(batch_of(2, sizes, 0 * ONES), 0.01)))
    assert (learner.digest(), learner.numbers(), learner.weightless) == (before, numbers, 1)
    learner.update(batch_of(3, sizes), 0.01)
    assert learner.digest() != before
    assert learner.weightless == 1


def test_a_shard_without_weight_and_an_empty_one():
    weights = ONES.copy()
    weights[4:8] = 0
    learner, other = learner_of(3), learner_of(1)
    loss = learner.update(batch_of(1, (4, 4, 0), weights), 0.01)
    assert float(loss) == float(other.update(batch_of(1, (4,)), 0.01))
    assert learner.weightless == 0
    fresh = learner_of(3)
    fresh.restore(learner.snapshot())
    found = [one.update(batch_of(2, (0, 4, 0)), 0.01) for one in (learner, fresh)]
    assert float(found[0]) == float(found[1])  # the weights of the update before are not counted again
    assert learner.digest() == fresh.digest()


@pytest.mark.parametrize(
    "weights",
    [[1.0] * 5, [0.0], [2.0**24, 1.0], [2.0**40 + 1, 3.0], [0.1, 0.2, 1e-5], [2.0**-50], [1e18]],
)
def test_sums_of_weights_are_exact(weights):
    weigh = Weighing(mx.cpu())
    shards = [mx.nd.array(part, dtype="float64") for part in (weights, weights[:1], [1.0])]
    values = np.sum([weigh(shard).asnumpy() for shard in shards], axis=0, dtype=np.float32)
    exact = math.fsum([*weights, weights[0], 1.0])
    assert values[-1] == 0
    assert weight_of(values[:-1].tolist()) == pytest.approx(exact, rel=1e-15, abs=2.0**-58)
    if all(weight == int(weight) for weight in weights):
        assert weight_of(values[:-1].tolist()) == exact


def test_more_shards_than_float32_can_count():
    weigh, total = Weighing(mx.cpu()), np.zeros(10, np.float32)
    values = weigh(mx.nd.array([4095.0 + 4095 / 4096 + 2.0**30], dtype="float64")).asnumpy()
    for _ in range(MOST_SHARDS):
        total += values
    assert weight_of(total[:-1].tolist()) == MOST_SHARDS * (4095.0 + 4095 / 4096 + 2.0**30)


def test_weights_beyond_2_to_the_24_reach_the_update():
    label = np.array([3.0, 4.0], np.float32), np.array([2.0**24, 1.0], np.float32)
    batches = tuple(Batch(s, DATA[s : s + 1], tuple(part[s : s + 1] for part in label)) for s in range(2))
    learner = learner_of(2, lambda p, y: (0 * p.sum(axis=1) + y[0], y[1]), sample=Batch(0, DATA[:2], label))
    assert float(learner.update(GlobalBatch(1, batches, 2), 0.0)) == 7 / (2**24 + 1)


def test_only_a_weighted_loss_is_waited_for():
    plain, weighed = learner_of(1, unweighted), learner_of(1)
    for learner in (plain, weighed):
        learner.update(batch_of(1, (8,)), 0.01)
    assert plain.loss is None
    assert weighed.loss is not None
    plain.check_pending()
    assert plain.loss == weighed.loss


def test_evaluation_is_over_weights():
    learner, dataset = learner_of(1), ArrayDataset(DATA, (CLASSES, np.where(np.arange(64) < 40, ONES, 0)))
    _, (numerators, weights) = learner.predict(DATA, (CLASSES, ONES))
    assert weights.sum() == 64
    expected = numerators[:40].astype(np.float64).sum() / 40
    for size in (1, 7, 64):
        assert evaluate(learner, dataset, size, Augmentation(), {})["loss"] == pytest.approx(expected, rel=1e-6)
    nothing = ArrayDataset(DATA, (CLASSES, 0 * ONES))
    assert math.isnan(evaluate(learner, nothing, 7, Augmentation(), {})["loss"])


def test_a_function_may_give_no_losses_outside_of_training():
    def forward(net, loss, data, label):
        prediction = net(data)
        return prediction, loss(prediction, label) if mx.autograd.is_training() else None

    sample, dataset = batch_of(1, (4, 4)), ArrayDataset(DATA, (CLASSES, ONES))
    learners = [
        Learner(small_net(), weighted, mx.optimizer.Adam(), SingleWorld(), shards=2, sample=sample, forward=one)
        for one in (forward, None)
    ]
    losses = [float(learner.update(batch_of(1, (4, 4)), 0.01)) for learner in learners]
    assert losses[0] == losses[1]
    assert learners[0].digest() == learners[1].digest()
    first = {"first": as_metric(lambda prediction, label: prediction[:, 0], "first", "metrics")}
    found = [evaluate(learner, dataset, 7, Augmentation(), first) for learner in learners]
    assert math.isnan(found[0]["loss"])
    assert found[0]["first"] == found[1]["first"]


def test_the_finder_passes_over_batches_without_weight():
    learner = learner_of(2, optimizer=mx.optimizer.SGD())
    learner.update(batch_of(1, (8, 8)), 0.01)
    before = learner.digest()

    class Stream:
        def __enter__(self):
            return lambda t: batch_of(t, (8, 8), ONES * (t % 3 > 0))

        def __exit__(self, *_):
            return None

    finding = find_lr(learner, FinderSettings(Sweep(1e-4, 1.0, None, 30), probes=3), lambda _: Stream())
    (sweep,) = finding.sweeps
    assert (len(sweep.points), len(sweep.probes)) == (20, 2)
    assert all(math.isfinite(point.loss) for point in sweep.points)
    assert learner.digest() == before == finding.digest


def test_a_loss_that_is_not_finite_is_still_one():
    learner = learner_of(1, lambda p, y: (PICK(p, y[0]) * (y[1] - 1) / (y[1] - 1), y[1]), batch_of(1, (4,), 2 * ONES))
    learner.update(batch_of(1, (8,), 2 * ONES), 0.01)
    with pytest.raises(DivergedError, match="iteration 2: the loss is nan"):
        learner.update(batch_of(2, (8,)), 0.01)


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (
            lambda p, y: (PICK(p, y[0]), y[1][:1]),
            r"gave \(float32 \(2,\), float32 \(1,\)\); give \(numerators, weights\)",
        ),
        (lambda p, y: (PICK(p, y[0]), y[1], y[1]), r"two arrays of one shape"),
        (lambda p, y: (PICK(p, y[0]), -y[1]), r"gave the weight -1; weights are finite and at least 0"),
        (lambda p, y: (PICK(p, y[0]), y[1] / 0), r"gave the weight inf; weights are finite"),
        (lambda p, y: (PICK(p, y[0]), 1.0), r"gave \(float32 \(2,\), float\); give \(numerators, weights\)"),
    ],
)
def test_weights_that_cannot_be_used(loss, said):
    with pytest.raises(ConfigError, match=f"^network.loss: .*{said}"):
        learner_of(1, loss)


@pytest.mark.parametrize(("weight", "said"), [(-1.0, "below 0"), (math.nan, "not finite"), (math.inf, "not finite")])
def test_weights_that_go_wrong_later(weight, said):
    learner, weights = learner_of(2, lambda p, y: (PICK(p, y[0]), y[1])), ONES.copy()
    learner.update(batch_of(1, (8, 8), weights), 0.01)
    weights[9] = weight
    with pytest.raises(
        ConfigError, match=f"^iteration 2: network.loss: a weight is {said}; weights are finite and at"
    ) as e:
        learner.update(batch_of(2, (8, 8), weights), 0.01)
    assert e.value.everywhere


def test_a_loss_that_changes_its_form():
    def loss(prediction, label):
        return weighted(prediction, label) if len(label[0]) < 8 else unweighted(prediction, label)

    with pytest.raises(ConfigError, match=r"^network.loss: gave float32 \(8,\); give \(numerators, weights\)"):
        learner_of(1, loss).update(batch_of(1, (8,)), 0.01)
    with pytest.raises(ConfigError, match=r"numerators and weights, which nobody expected: .* sample=stream\(1\)"):
        learner_of(1, weighted, sample=DATA[:2]).update(batch_of(1, (8,)), 0.01)
    with pytest.raises(
        ConfigError, match=f"batch.shards: {MOST_SHARDS + 1} are too many for a loss that gives weights"
    ):
        learner_of(MOST_SHARDS + 1)
    with pytest.raises(ConfigError, match="two arrays of one shape"):
        check_weighted((mx.nd.ones(3), mx.nd.ones(4)))


def test_compression_leaves_room_for_the_terms_of_a_sample():
    """A sum over 64 terms a sample is scaled as one over 64 samples a sample."""

    def loss(prediction, label):
        terms = (prediction.sum(axis=1) * label[1]).expand_dims(1).broadcast_to((len(label[1]), 64)) * 40
        return terms, mx.nd.ones_like(terms)

    learner = learner_of(1, loss, optimizer=mx.optimizer.SGD(), compression="fp16")
    assert math.isfinite(float(learner.update(batch_of(1, (8,)), 1e-6)))
    assert math.isfinite(learner.gradient_norm)


PROGRAMS = {"tests/programs/tokens.py": tokens.UPDATES, "tests/programs/two_means.py": two_means.UPDATES}


@pytest.fixture(scope="module", params=PROGRAMS)
def alone(request, start):
    return request.param, found(start(request.param))


def found(done):
    return json.loads(re.search("FOUND (.*)$", done.stdout, re.MULTILINE)[1])


def test_a_mean_is_that_of_one_process_of_plain_gluon(alone):
    program, (losses, _, away) = alone
    assert len(losses) == PROGRAMS[program]
    assert away < 1e-6


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_mean_over_ranks(start, alone, ranks):
    program, one = alone
    assert found(start(program, np=ranks, launcher="mpirun")) == one


def told(prediction, label, totals):
    """The mean of `weighted`, by totals."""
    return weighted(prediction, label)[0] / totals["samples"]


told.weights = lambda label: {"samples": label[1]}


def test_a_total_gives_what_weights_give():
    weights = RANDOM.uniform(0, 2, 64).astype(np.float32)
    weights[:5] = 0
    found = []
    for loss in (weighted, told):
        learner = learner_of(4, loss, clip_norm=0.5)
        losses = [float(learner.update(batch_of(t, (5, 7, 0, 3), weights), 0.01)) for t in range(1, 5)]
        found.append((losses, learner.gradient_norm, learner.snapshot().parameters))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-6)
    for name, array in found[0][2].items():
        np.testing.assert_allclose(array, found[1][2][name], rtol=1e-5, atol=1e-7)


def test_totals_of_0():
    learner = learner_of(3, told, compression="fp16")
    learner.update(batch_of(1, (4, 4, 4)), 0.01)
    before = learner.digest()
    assert math.isnan(float(learner.update(batch_of(2, (4, 4, 4), 0 * ONES), 0.01)))
    assert (learner.digest(), learner.weightless) == (before, 1)


def test_evaluation_is_told_the_totals_of_the_data():
    weights = RANDOM.uniform(0, 2, 64).astype(np.float32)
    learner, dataset = learner_of(1, told), ArrayDataset(DATA, (CLASSES, weights))
    numerators = learner_of(1).predict(DATA, (CLASSES, weights))[1][0]
    expected = numerators.astype(np.float64).sum() / weights.astype(np.float64).sum()
    for size in (1, 7, 64):
        assert evaluate(learner, dataset, size, Augmentation(), {})["loss"] == pytest.approx(expected, rel=1e-6)
    nothing = ArrayDataset(DATA, (CLASSES, 0 * ONES))
    assert math.isnan(evaluate(learner, nothing, 7, Augmentation(), {})["loss"])


class Told:
    """A loss whose weights and losses a test chooses."""

    def __init__(self, weights, loss=told):
        self.weights, self.loss = weights, loss

    def __call__(self, prediction, label, totals):
        return self.loss(prediction, label, totals)


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (Told(lambda y: y[1]), r"weights\(label\) gave float32 \(2,\); give a dict of arrays by name"),
        (Told(lambda y: {}), r"weights\(label\) gave {}; give a dict"),
        (Told(lambda y: {"samples": 2.0}), r"weights\(label\) gave {'samples': float}; give a dict"),
        (Told(told.weights, lambda p, y, t: weighted(p, y)), r"divides by the totals itself, and gives one array"),
    ],
)
def test_totals_that_cannot_be_used(loss, said):
    with pytest.raises(ConfigError, match=f"^network.loss: .*{said}"):
        learner_of(1, loss)


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_weights_before_the_forward_that_go_wrong_later(weight):
    learner, weights = learner_of(2, Told(told.weights)), ONES.copy()
    learner.update(batch_of(1, (8, 8), weights), 0.01)
    weights[9] = weight
    said = r"^iteration 2, shard 1: network.loss: weights\(label\) gave 'samples' below 0 or not finite"
    with pytest.raises(ConfigError, match=said) as raised:
        learner.update(batch_of(2, (8, 8), weights), 0.01)
    assert raised.value.everywhere


def test_names_of_totals_stay():
    loss = Told(lambda y: {"samples" if len(y[1]) < 8 else "rows": y[1]})
    with pytest.raises(ConfigError, match=r"weights\(label\) gave rows, and samples for the first samples"):
        learner_of(1, loss).update(batch_of(1, (8,)), 0.01)
