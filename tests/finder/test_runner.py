"""A sweep on real learners: the curve that theory gives, and a learner that nothing has happened to."""

from __future__ import annotations

import math
from contextlib import nullcontext

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

from harness.comm import SingleWorld
from harness.data import Batch, GlobalBatch
from harness.errors import DisagreementError
from harness.finder import FinderSettings, Stop, StopRule, Sweep, find_lr
from harness.gluon import Learner, UpdateOptions
from harness.model.optimizers import build_optimizer
from tests.conftest import THOROUGH

RANDOM = np.random.default_rng(4)
IMAGES = RANDOM.normal(size=(64, 1, 6, 6)).astype(np.float32)
LABELS = RANDOM.integers(0, 3, 64).astype(np.float32)
OPTIMIZERS = {
    "sgd": {"momentum": 0.9, "wd": 1e-3},
    "nag": {"momentum": 0.9},
    "adam": {},
    "lamb": {},
    "lars": {"momentum": 0.9},
    "rmsprop": {},
}


class Stream:
    """The same few samples, dealt to shards, as a context."""

    def __init__(self, shards=1, broken_at=None, error=RuntimeError, nan_at=None):
        self.shards, self.broken_at, self.error, self.nan_at = shards, broken_at, error, nan_at

    def __call__(self, t):
        if t == self.broken_at:
            raise self.error("in the middle")
        size = 16 // self.shards
        batches = []
        for shard in range(self.shards):
            begin = (t * 16 + shard * size) % 48
            data = IMAGES[begin : begin + size].copy()
            if t == self.nan_at:
                data[0, 0, 0, 0] = np.nan
            batches.append(Batch(shard, data, LABELS[begin : begin + size]))
        return GlobalBatch(t, tuple(batches), 16)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def image_learner(name="sgd", **options):
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 3), nn.BatchNorm(), nn.Activation("relu"), nn.Dropout(0.3), nn.Dense(3))
    mx.random.seed(1)
    net.initialize(mx.init.Xavier())
    optimizer = build_optimizer(name, OPTIMIZERS[name])
    loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    options = UpdateOptions(**options)
    return Learner(net, loss, optimizer, SingleWorld(), shards=2, sample=IMAGES[:1], options=options)


def quadratic_learner(curvatures):
    """Full-batch least squares whose loss is `sum(curvature * weight**2) / 2`, all weights 1 at first.

    Four samples, so that curvatures which are squares are exact in float32: where a learning rate times a curvature is
    near 1, the last bit of either decides what is left of the weight for good.
    """
    count = 4
    net = nn.Dense(1, in_units=len(curvatures), use_bias=False)
    net.initialize(mx.init.One())
    data = np.zeros((count, len(curvatures)), np.float32)
    np.fill_diagonal(data, np.sqrt(np.array(curvatures) * count))
    label = np.zeros((count, 1), np.float32)

    def stream(t):
        return GlobalBatch(t, (Batch(0, data, label),), count)

    learner = Learner(net, mx.gluon.loss.L2Loss(), mx.optimizer.SGD(), SingleWorld(), shards=1, sample=data[:1])
    return learner, stream


@pytest.mark.parametrize(("ratio", "between"), [(1, None), (16, 4), (100, 25), (1024, 64)])
def test_on_a_quadratic_the_curve_is_the_closed_form(ratio, between):
    curvatures = [1.0] if between is None else [1.0, float(between), float(ratio)]
    learner, stream = quadratic_learner(curvatures)
    sweep = Sweep(lr_start=1e-4 / ratio, lr_end=1e3, lr_multiplier=1.1)
    settings = FinderSettings(sweep, StopRule(min_iter=20))
    (result,) = find_lr(learner, settings, lambda repeat: nullcontext(stream)).sweeps
    assert result.stop == Stop.UNSTABLE
    weights = np.ones(len(curvatures))
    expected = []
    for k in range(len(result.points)):
        expected.append(0.5 * float((np.array(curvatures) * weights**2).sum()))
        weights *= 1 - float(np.float32(sweep.lr(k))) * np.array(curvatures)  # as MXNet takes it
    found = np.array([point.loss for point in result.points])
    # relative to the first loss: near its minimum the loss is a difference of float32 weights from 0
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * expected[0])
    if ratio == 1:
        rises = 1 + int(np.argmax(np.diff(found) > 0))  # the loss after the update before it is larger
        assert abs(math.log(result.points[rises - 1].lr / 2.0) / math.log(1.1)) <= 1


SETTINGS = FinderSettings(Sweep(lr_start=1e-4, lr_end=10, lr_multiplier=1.3), repeats=2)
SHORT = FinderSettings(Sweep(lr_start=1e-3, lr_end=10, lr_multiplier=2.0), repeats=2)


@pytest.mark.parametrize("begin", [0, 137 if THOROUGH else 7])
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_the_state_is_restored(name, begin):
    learner, other = image_learner(name), image_learner(name)
    for t in range(1, begin + 1):
        for each in (learner, other):
            each.update(Stream(2)(t), 0.01)
    before = learner.digest()
    finding = find_lr(learner, SETTINGS if THOROUGH else SHORT, lambda repeat: Stream(2))
    assert learner.digest() == finding.digest == before
    losses = [[point.loss for point in result.points] for result in finding.sweeps]
    np.testing.assert_equal(losses[1], losses[0])  # of the same batches: each sweep begins with the same state
    for each in (learner, other):
        for t in range(begin + 1, begin + 6):
            each.update(Stream(2)(t), 0.02)
    assert learner.digest() == other.digest() != before


def test_clipping_and_accumulation():
    learner = image_learner(clip_norm=0.5)
    before = learner.digest()
    finding = find_lr(learner, SETTINGS, lambda repeat: Stream(2))
    assert learner.digest() == before
    assert len(finding.sweeps[0].points) > 20


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, MemoryError])
def test_the_state_is_restored_when_the_sweep_raises(error):
    learner = image_learner()
    before = learner.digest()
    with pytest.raises(error, match="in the middle"):
        find_lr(learner, SETTINGS, lambda repeat: Stream(2, broken_at=9, error=error))
    assert learner.digest() == before


def test_a_nan_stops_the_sweep_on_its_iteration():
    learner = image_learner()
    finding = find_lr(learner, SETTINGS, lambda repeat: Stream(2, nan_at=25))
    for result in finding.sweeps:
        assert result.stop == Stop.NOT_FINITE
        assert len(result.points) == 25
        assert math.isnan(result.points[-1].loss)
    assert learner.digest() == finding.digest


def test_bounds_and_probes():
    learner = image_learner()
    sweep = Sweep(lr_start=1e-4, lr_end=2e-4, lr_multiplier=None, num_iterations=12, spacing="linear")
    (result,) = find_lr(learner, FinderSettings(sweep, probes=4), lambda repeat: Stream(2)).sweeps
    assert (result.stop, len(result.points), len(result.probes)) == (Stop.LAST_LR, 12, 4)
    assert result.limit == StopRule().limit(0, result.probes)
    sweep = Sweep(lr_start=1e-4, max_iterations=7)
    (result,) = find_lr(learner, FinderSettings(sweep), lambda repeat: Stream(2)).sweeps
    assert (result.stop, len(result.points)) == (Stop.LAST_ITERATION, 7)


def test_probes_are_losses_at_the_first_learning_rate():
    learner, stream = quadratic_learner([1.0])
    settings = FinderSettings(Sweep(lr_start=0.1, lr_end=1, lr_multiplier=2.0), probes=3)
    (result,) = find_lr(learner, settings, lambda repeat: nullcontext(stream)).sweeps
    losses = [*result.probes, result.points[0].loss]  # each update makes the weight smaller by a tenth
    assert losses == pytest.approx([0.5 * 0.9 ** (2 * k) for k in range(4)], rel=1e-5)


@pytest.mark.parametrize("min_iter", [2, 7])
def test_a_sweep_that_is_unstable_from_the_start_ends_after_min_iter_iterations(min_iter):
    learner, stream = quadratic_learner([1.0])
    settings = FinderSettings(Sweep(lr_start=4.0, lr_end=1e3, lr_multiplier=1.1), StopRule(min_iter=min_iter))
    (result,) = find_lr(learner, settings, lambda repeat: nullcontext(stream)).sweeps
    assert (result.stop, len(result.points)) == (Stop.UNSTABLE, min_iter)


def test_a_state_that_cannot_be_put_back_is_noticed(monkeypatch):
    learner = image_learner()

    class Disturbing(Stream):
        def __exit__(self, *_):
            monkeypatch.setattr(learner, "restore", lambda state: None)

    with pytest.raises(DisagreementError, match="the state was not restored on rank 0"):
        find_lr(learner, SETTINGS, lambda repeat: Disturbing(2))


def test_the_curve_of_held_out_samples_is_taken_after_each_update():
    learner, stream = quadratic_learner([1.0])
    settings = FinderSettings(Sweep(lr_start=0.1, lr_end=1, lr_multiplier=2.0), probes=1)
    before = learner.digest()

    def held_out():
        return 2 * float(
            learner.predict(*(getattr(stream(1).batches[0], part) for part in ("data", "label")))[1].mean()
        )

    (result,) = find_lr(learner, settings, lambda repeat: nullcontext(stream), held_out=held_out).sweeps
    weights = np.cumprod([1 - 0.1, 1 - 0.1, 1 - 0.2, 1 - 0.4, 1 - 0.8])
    losses = [*result.probes, *(point.loss for point in result.points)]
    assert losses == pytest.approx(weights**2, rel=1e-4)
    assert learner.digest() == before


def test_held_out_samples_whose_loss_is_not_finite_stop_the_sweep():
    learner, stream = quadratic_learner([1.0])
    losses = iter([1.0, 0.9, math.inf])
    sweep = Sweep(lr_start=0.1, lr_end=1, lr_multiplier=1.1)
    finding = find_lr(learner, FinderSettings(sweep), lambda repeat: nullcontext(stream), held_out=lambda: next(losses))
    (result,) = finding.sweeps
    assert (result.stop, len(result.points)) == (Stop.NOT_FINITE, 3)
    assert learner.digest() == finding.digest
