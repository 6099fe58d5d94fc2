"""Averages of weights: as PyTorch and timm have them (`peers_of_average.py`), and part of a learner's state."""

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

HERE = Path(__file__).parent
SWA_CASES = json.loads((HERE / "swa.json").read_text())
GOLDEN = json.loads((HERE / "averages.json").read_text()) + [case for case in SWA_CASES if "peer" in case]
EMA = Averaging(0.8, every=2, after=1)
SWA = Averaging(None, every=2, after=1, statistics="recomputed")
BOTH = pytest.mark.parametrize("averaging", [EMA, SWA], ids=["ema", "swa"])


def averaging_of(case):
    settings = case["settings"]
    if case["peer"] == "torch":
        return Averaging(settings["decay"], statistics="averaged" if settings["use_buffers"] else "latest")
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
    assert {averaging_of(case).kind for case in GOLDEN} == {"ema", "swa"}
    assert {averaging_of(case).statistics for case in GOLDEN} == {"averaged", "latest"}
    assert {averaging_of(case).after for case in GOLDEN} == {0, 4}
    assert {averaging_of(case).gamma for case in GOLDEN} == {None, 1.0, 10.0}


def trained(learner, first, last):
    for t in range(first, last + 1):
        learner.update(dealt(3, 5)(t), 0.1)
    return learner


@BOTH
def test_the_average_is_of_the_weights_after_every_update_that_is_due(averaging):
    learner, expected = learner_of(2, average=averaging), {}
    for t in range(1, 8):
        trained(learner, t, t)
        state = learner.snapshot()
        if t == 2:
            expected = {name: array.copy() for name, array in state.parameters.items()}
        elif t in (4, 6):
            share = np.float32(1 - 0.8 if averaging is EMA else 1 / (t // 2))
            own = state.parameters
            expected = {name: e + (own[name] - e) * share for name, e in expected.items()}
            if averaging is SWA:
                expected |= {name: own[name] for name in expected if "running" in name}
        assert state.averages.keys() == expected.keys()
        assert learner.has_average == bool(expected)
        for name, array in expected.items():
            assert (state.averages[name] == array).all()  # the same operations: the same bits
    plain = trained(learner_of(2), 1, 7)
    assert {name: a.tobytes() for name, a in plain.snapshot().parameters.items()} == {
        name: a.tobytes() for name, a in state.parameters.items()
    }


@BOTH
@pytest.mark.parametrize("t", [1, 2, 3, 4, 5])
def test_it_is_saved_restored_and_continued_to_the_bit(tmp_path, t, averaging):
    learner = trained(learner_of(2, average=averaging), 1, t)
    assert learner.recompute_statistics(dealt(3, 5), 2)
    path = learner.snapshot().save(tmp_path, t)
    assert (path / "averages.safetensors").exists() == (t > 1)
    state = LearnerState.load(path)
    assert state.digest() == learner.digest() == learner.snapshot().digest()
    other = learner_of(2, average=averaging)
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


@pytest.mark.parametrize("average", [{"kind": "ema", "num_updates": 3, "statistics": "averaged"}, None])
def test_one_of_the_other_kind_or_of_no_number_of_updates_is_not_continued(average):
    state = trained(learner_of(2, average=SWA), 1, 4).snapshot()
    state.numbers["average"] = average
    learner = learner_of(2, average=SWA)
    if average is None:
        with pytest.raises(CheckpointError, match=r"its arrays and state.average do not belong together, one of them"):
            learner.restore(state)
        return
    learner.restore(state)
    assert not learner.has_average
    assert learner.numbers().keys() == learner_of(2).numbers().keys()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("kind", "mean", "state.average.kind is the text 'mean'; allowed: ema, swa"),
        ("statistics", 1, "state.average.statistics is 1, not text"),
        ("num_updates", 0, "state.average.num_updates is 0"),
    ],
)
def test_what_another_program_has_written_of_it_is_refused(tmp_path, key, value, message):
    state = trained(learner_of(2, average=SWA), 1, 4).snapshot()
    state.numbers["average"][key] = value
    with pytest.raises(CheckpointError, match=message):
        LearnerState.load(state.save(tmp_path, 4))


def test_one_that_is_taken_up_late_is_the_mean_of_what_it_has_seen():
    plain, learner = trained(learner_of(2), 1, 5), learner_of(2, average=SWA)
    learner.restore(plain.snapshot())
    weights = [trained(learner, t, t).snapshot().parameters for t in range(6, 11)][::2]
    for name, array in learner.snapshot().averages.items():
        if "running" not in name:  # float32, in another order
            np.testing.assert_allclose(array, np.mean([one[name] for one in weights], axis=0), rtol=1e-5, atol=1e-7)


def test_without_an_average_a_saved_one_is_left_out():
    state = trained(learner_of(2, average=EMA), 1, 4).snapshot()
    learner = learner_of(2)
    learner.restore(state)
    assert learner.snapshot().averages == {}
