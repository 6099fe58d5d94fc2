"""The moving average of weights: as PyTorch and timm have it (`peers_of_average.py`), and part of a learner's state."""

from __future__ import annotations

import json
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from harness.checkpoint import locate
from harness.errors import CheckpointError
from harness.gluon import Averaging, LearnerState
from harness.gluon.average import WeightAverage
from tests.gluon.test_learner import dealt, learner_of

GOLDEN = json.loads((Path(__file__).parent / "averages.json").read_text())
EMA = Averaging(0.8, every=2, after=1)


def averaging_of(case):
    settings = case["settings"]
    if case["peer"] == "torch":
        return Averaging(settings["decay"], averages_statistics=settings["use_buffers"])
    warmup = {"gamma": settings["warmup_gamma"], "power": settings["warmup_power"]} if settings["use_warmup"] else {}
    return Averaging(settings["decay"], after=settings["update_after_step"], **warmup)


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["peer"])
def test_averages_are_those_of_the_peers(case):
    parameters = {}
    for name, numbers in case["weights"][0].items():
        grad_req = "null" if "running" in name else "write"
        parameters[name] = mx.gluon.Parameter(name, shape=(len(numbers),), grad_req=grad_req)
        parameters[name].initialize(mx.init.Zero(), mx.cpu())
    trainable = {name: one for name, one in parameters.items() if one.grad_req == "write"}
    averaging = averaging_of(case)
    average = WeightAverage(averaging, parameters, trainable, [mx.cpu()])
    for t, (weights, expected) in enumerate(zip(case["weights"], case["averages"], strict=True), start=1):
        for name, numbers in weights.items():
            parameters[name].set_data(mx.nd.array(numbers))
        average.update(t)
        if t <= averaging.after:  # until then the weights stand for it
            assert average.arrays == {}
            assert expected == weights
            continue
        for name, numbers in expected.items():
            # float32, in another order of the same operations
            np.testing.assert_allclose(average.arrays[name], numbers, rtol=2e-6, atol=2e-7)


def test_the_golden_cases_are_of_every_kind():
    assert {case["peer"] for case in GOLDEN} == {"torch", "timm"}
    assert {averaging_of(case).averages_statistics for case in GOLDEN} == {True, False}
    assert {averaging_of(case).after for case in GOLDEN} == {0, 4}
    assert {averaging_of(case).gamma for case in GOLDEN} == {None, 1.0, 10.0}


def trained(learner, first, last):
    for t in range(first, last + 1):
        learner.update(dealt(3, 5)(t), 0.1)
    return learner


def test_the_average_is_of_the_weights_after_every_update_that_is_due():
    learner, expected = learner_of(2, average=EMA), {}
    for t in range(1, 8):
        trained(learner, t, t)
        state = learner.snapshot()
        if t == 2:
            expected = {name: array.copy() for name, array in state.parameters.items()}
        elif t in (4, 6):
            share = np.float32(1 - 0.8)
            expected = {name: e + (state.parameters[name] - e) * share for name, e in expected.items()}
        assert state.averages.keys() == expected.keys()
        assert learner.has_average == bool(expected)
        for name, array in expected.items():
            assert (state.averages[name] == array).all()  # the same operations: the same bits
    plain = trained(learner_of(2), 1, 7)
    assert {name: a.tobytes() for name, a in plain.snapshot().parameters.items()} == {
        name: a.tobytes() for name, a in state.parameters.items()
    }


@pytest.mark.parametrize("t", [1, 2, 3, 4, 5])
def test_it_is_saved_restored_and_continued_to_the_bit(tmp_path, t):
    learner = trained(learner_of(2, average=EMA), 1, t)
    path = learner.snapshot().save(tmp_path, t)
    assert (path / "averages.safetensors").exists() == (t > 1)
    state = LearnerState.load(path)
    assert state.digest() == learner.digest() == learner.snapshot().digest()
    other = learner_of(2, average=EMA)
    other.restore(state)
    assert other.digest() == learner.digest()
    assert trained(other, t + 1, 7).digest() == trained(learner, t + 1, 7).digest()
    assert locate(path) == [path]


def test_a_state_that_goes_back_before_the_average_has_none():
    learner = learner_of(2, average=EMA)
    first = learner.snapshot()
    digest = trained(learner, 1, 6).digest()
    learner.restore(first)
    assert not learner.has_average
    assert trained(learner, 1, 6).digest() == digest


def test_digest_and_checksums_see_the_average():
    learner = trained(learner_of(2, average=EMA), 1, 4)
    state, sums = learner.snapshot(), learner.checksums()
    name = next(iter(state.averages))
    state.averages[name].reshape(-1)[0] += 1
    assert state.digest() != learner.digest()
    learner.restore(state)
    different = {key for key, value in learner.checksums().items() if value != sums[key]}
    assert different == {f"average {name}"}


def test_inside_the_block_the_network_has_the_average_and_then_its_own_weights():
    learner = trained(learner_of(2, average=EMA), 1, 4)
    data = np.ones((2, 2, 4, 4), np.float32)
    label, digest = np.zeros(2, np.float32), learner.digest()
    own, _ = learner.predict(data, label)
    averages = learner.snapshot().averages
    with learner.averaged():
        inside, _ = learner.predict(data, label)
        assert all((array == averages[name]).all() for name, array in learner.snapshot().parameters.items())
    assert learner.digest() == digest
    assert not (inside == own).all()
    assert (learner.predict(data, label)[0] == own).all()
    with pytest.raises(ZeroDivisionError), learner.averaged():
        raise ZeroDivisionError
    assert learner.digest() == digest


def test_an_average_of_another_network_is_refused():
    state = trained(learner_of(2, average=EMA), 1, 4).snapshot()
    name = next(iter(state.averages))
    state.averages[name] = state.averages[name][:1]
    learner = learner_of(2, average=EMA)
    with pytest.raises(CheckpointError, match=f"average: {name} is float32 .*, expected float32"):
        learner.restore(state)
    assert not learner.has_average


def test_without_an_average_a_saved_one_is_left_out():
    state = trained(learner_of(2, average=EMA), 1, 4).snapshot()
    learner = learner_of(2)
    learner.restore(state)
    assert learner.snapshot().averages == {}
