"""Every optimizer of MXNet: usable and exactly restorable, or refused by name; factors by parameter."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

from harness.checkpoint import read_arrays, verify, write_checkpoint
from harness.comm import SingleWorld
from harness.data import Batch, GlobalBatch
from harness.errors import CheckpointError, ConfigError
from harness.gluon import Learner, LearnerState, UpdateOptions
from harness.gluon.state_keeper import StateKeeper
from harness.gluon.step import OptimizerStep
from harness.model.optimizers import NOT_UPDATED_AT_0, OWN, REFUSED, build_optimizer, known_optimizers, set_multipliers

RANDOM = np.random.default_rng(1)
DATA, LABEL = RANDOM.normal(size=(100, 8, 6)).astype("f"), RANDOM.integers(0, 3, (100, 8)).astype("f")
MOMENTUM = {name: {"momentum": 0.9} for name in ("sgd", "nag", "lars", "signum")}


def make_learner(name, seed=2, options=None, **params):
    net = nn.HybridSequential()
    net.add(nn.Dense(5, in_units=6), nn.BatchNorm(in_channels=5), nn.Dense(3, in_units=5))
    mx.random.seed(seed)
    net.initialize(mx.init.Xavier())
    trainable = [name for name, p in net._collect_params_with_prefix().items() if p.grad_req != "null"]
    optimizer = build_optimizer(name, params or MOMENTUM.get(name, {}), param_names=dict(enumerate(trainable)))
    return Learner(
        net,
        mx.gluon.loss.SoftmaxCrossEntropyLoss(),
        optimizer,
        SingleWorld(),
        shards=1,
        sample=DATA[0, :1],
        options=options or UpdateOptions(),
    )


def stream(t):
    return GlobalBatch(t, (Batch(0, DATA[t], LABEL[t]),), 8)


def train(learner, first, last):
    for t in range(first, last + 1):
        learner.update(stream(t), 0.01 + 0.001 * (t % 3))
    return learner.digest()


def through_the_disk(state, folder):
    path = write_checkpoint(
        folder,
        5,
        {"parameters": state.parameters, "slots": state.optimizer_state},
        {"state": state.numbers, "other": 1},
    )
    arrays = read_arrays(path)
    return LearnerState(arrays["parameters"], arrays["slots"], verify(path)["state"])


def test_every_registered_optimizer_is_known_or_refused():
    registered = set(mx.optimizer.Optimizer.opt_registry)
    assert set(known_optimizers()) | set(REFUSED) == registered | set(OWN)
    assert not set(known_optimizers()) & set(REFUSED)


@pytest.mark.parametrize("name", sorted(known_optimizers()))
def test_a_restored_state_goes_on_as_the_unbroken_run(name, tmp_path):
    learner = make_learner(name)
    start = learner.digest()
    train(learner, 1, 5)
    state = learner.snapshot()
    end = train(learner, 6, 10)
    assert len({start, state.digest(), end}) == 3
    learner.restore(state)
    assert learner.digest() == state.digest()
    assert train(learner, 6, 10) == end
    other = make_learner(name, seed=9)  # another start, as another process would have
    other.restore(through_the_disk(state, tmp_path))
    assert other.digest() == state.digest()
    assert train(other, 6, 10) == end


@pytest.mark.parametrize("name", sorted(known_optimizers()))
def test_restoring_the_start_undoes_everything(name):
    learner = make_learner(name)
    state = learner.snapshot()
    end = train(learner, 1, 5)
    learner.restore(state)
    assert learner.digest() == state.digest()
    assert train(learner, 1, 5) == end


ZERO_FIRST, ZERO_INSIDE, ZERO_LAST = (0, 0.01, 0.02), (0.01, 0, 0, 0.02), (0.01, 0.02, 0)
VARIANTS = {name: [{}] for name in sorted(known_optimizers())}
for kind in MOMENTUM:
    VARIANTS[kind] = [{}, {"momentum": 0.9, "wd": 0.01}]
VARIANTS["rmsprop"] += [{"centered": True, "gamma2": 0.9}, {"clip_weights": 0.05}]
VARIANTS["adam"] += [{"wd": 0.01}]
VARIANTS["ftrl"] += [{"wd": 0.01, "lamda1": 0.1}]


def bits(learner):
    return {name: array.tobytes() for name, array in learner.snapshot().parameters.items() if "running" not in name}


@pytest.mark.parametrize("rates", [ZERO_FIRST, ZERO_INSIDE, ZERO_LAST], ids=["first", "inside", "last"])
@pytest.mark.parametrize(("name", "params"), [(name, one) for name, many in VARIANTS.items() for one in many], ids=str)
def test_an_update_at_rate_0_changes_no_weight(name, params, rates):
    learner = make_learner(name, **params)
    for t, rate in enumerate(rates, start=1):
        before = bits(learner)
        learner.update(stream(t), rate)
        after = bits(learner)
        assert (after == before) == (rate == 0), rate
    assert all(np.isfinite(slot).all() for slot in learner.snapshot().optimizer_state.values())
    learner.check_weights(len(rates))


@pytest.mark.parametrize("name", NOT_UPDATED_AT_0)
def test_some_are_not_updated_at_0(name):
    """The same state as if the iteration had not been; the batch of iteration 2 is seen by neither."""
    learner, other = make_learner(name), make_learner(name)
    for t, rate in ((1, 0.01), (2, 0.0), (3, 0.02)):
        learner.update(stream(t), rate)
    for t, rate in ((1, 0.01), (3, 0.02)):
        other.update(stream(t), rate)
    for kind in ("optimizer_state", "numbers"):
        np.testing.assert_equal(getattr(learner.snapshot(), kind), getattr(other.snapshot(), kind))
    assert bits(learner) == bits(other)


def test_an_optimizer_that_adds_noise_draws_it_anew_in_every_iteration():
    def weights_after(t):
        learner = make_learner("sgld")
        learner.update(GlobalBatch(t, stream(1).batches, 8), 0.01)
        return bits(learner)

    assert weights_after(1) == weights_after(1) != weights_after(2)


@pytest.mark.parametrize("name", ["adam", "nadam", "lamb", "signum", "adagrad"])
def test_elsewhere_the_history_takes_the_gradient(name):
    learner = make_learner(name)
    before = learner.snapshot()
    learner.update(stream(1), 0.0)
    after = learner.snapshot()
    assert any(after.optimizer_state[key].tobytes() != array.tobytes() for key, array in before.optimizer_state.items())
    assert after.numbers["num_update"] == 1


@pytest.mark.parametrize("correction", [True, False])
def test_a_momentum_moves_no_weight_at_rate_0_whether_corrected_or_not(correction):
    learner = make_learner("sgd", options=UpdateOptions(momentum_correction=correction), momentum=0.9)
    learner.update(stream(1), 0.1)
    before = bits(learner)
    learner.update(stream(2), 0.0)
    assert bits(learner) == before


@pytest.mark.parametrize("name", [*NOT_UPDATED_AT_0, "adam", "rmsprop"])
@pytest.mark.parametrize("kvstore", [None, "local"])
def test_a_weight_whose_own_rate_is_0_stays(name, kvstore):
    found, params = [], {"gamma2": 0.9, "centered": True} if name == "rmsprop" else {}
    weight, other = (mx.gluon.Parameter(key, shape=(4,), init=mx.init.One()) for key in ("weight", "other"))
    for one in (weight, other):
        one.initialize()
    weight.lr_mult = 0.0
    step = OptimizerStep(build_optimizer(name, params), {"weight": weight, "other": other}, kvstore=kvstore)
    for t in (1, 2):
        for one in (weight, other):
            one.grad()[:] = mx.nd.array([1.0, -2, 0.5, t])
        step.step(t, 0.01, None, 1.0)
        found.append(weight.data().asnumpy())
    np.testing.assert_array_equal(found, np.ones((2, 4)))
    assert (other.data().asnumpy() != 1).all()


@pytest.mark.parametrize("name", ["ftml", "ftrl", "adadelta", "sgd", "rmsprop"])
def test_a_run_that_touches_0_goes_on_with_the_same_bits(name, tmp_path):
    def train_cycles(learner, first, last):
        for t in range(first, last + 1):
            learner.update(stream(t), 0.02 * (t % 3))  # 0 at 3, 6 and 9
        return learner.digest()

    learner = make_learner(name)
    train_cycles(learner, 1, 6)
    state = learner.snapshot()
    end = train_cycles(learner, 7, 10)
    other = make_learner(name, seed=9)
    other.restore(through_the_disk(state, tmp_path))
    assert train_cycles(other, 7, 10) == end


@pytest.mark.parametrize("rate", [1e39, 1e-39, 1e-50, -0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_rate_that_float32_has_not_is_refused(name, rate):
    learner = make_learner(name)
    before = bits(learner)
    with pytest.raises(ConfigError, match=r"iteration 1: learning rate .*: must be finite in float32 and at least"):
        learner.update(stream(1), rate)
    assert bits(learner) == before


def test_a_factor_that_makes_it_one_is_named():
    learner = make_learner("adam")
    learner.parameters["0.weight"].lr_mult = 1e-38
    with pytest.raises(ConfigError, match=r"learning rate 0\.01 x lr_mult 1e-38: must be finite"):
        learner.update(stream(1), 0.01)


@pytest.mark.parametrize("name", ["sgd", "nag", "lars", "adam", "lamb"])
def test_the_master_copies_of_half_precision_are_part_of_the_state(name, tmp_path):
    """The learner refuses half precision; the state does not depend on that."""

    def keeper_of(value):
        parameter = mx.gluon.Parameter("w", shape=(6,), dtype="float16", init=mx.init.Constant(value))
        parameter.initialize()
        optimizer = mx.optimizer.create(name, multi_precision=True, **MOMENTUM.get(name, {}))
        step = OptimizerStep(optimizer, {"w": parameter})
        return parameter, step, StateKeeper({"w": parameter}, {"w": parameter}, step, [mx.cpu()])

    def step_through(parameter, step, first, last):
        for t in range(first, last + 1):
            parameter.grad()[:] = mx.nd.array(np.arange(6) - 0.3 * t, dtype="float16")
            step.step(t, 0.001, None, 1.0)

    parameter, step, keeper = keeper_of(1.0)
    step_through(parameter, step, 1, 5)
    state = keeper.snapshot()
    assert {array.dtype.name for array in state.optimizer_state.values()} >= {"float32"}
    step_through(parameter, step, 6, 10)
    other, other_step, other_keeper = keeper_of(0.0)
    other_keeper.restore(through_the_disk(state, tmp_path))
    step_through(other, other_step, 6, 10)
    assert other_keeper.snapshot().digest() == keeper.snapshot().digest() != state.digest()


def test_a_snapshot_written_over_an_older_one_is_a_new_one():
    learner = make_learner("adam")
    old = learner.snapshot()
    first = old.digest()
    train(learner, 1, 3)
    fresh, reused = learner.snapshot(), learner.snapshot(old)
    assert reused.digest() == fresh.digest() != first
    assert all(reused.parameters[name] is old.parameters[name] for name in old.parameters)
    assert all(reused.optimizer_state[name] is old.optimizer_state[name] for name in old.optimizer_state)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_refused_optimizer_says_why(name):
    with pytest.raises(ConfigError, match=rf"optimizer\.name: '{name}' is not supported: "):
        build_optimizer(name, {})


def test_unknown_names_come_with_a_guess():
    with pytest.raises(ConfigError, match=r"optimizer\.name: unknown name 'adamm'; did you mean 'adam'\?"):
        build_optimizer("adamm", {})
    with pytest.raises(
        ConfigError, match=r"optimizer\.params\.momentun: 'sgd' has no such parameter; did you mean 'momentum'"
    ):
        build_optimizer("sgd", {"momentun": 0.9})
    with pytest.raises(ConfigError, match=r"optimizer\.params\.beta1: 'sgd' has no such parameter"):
        build_optimizer("sgd", {"beta1": 0.9})


def test_a_state_of_another_network_or_optimizer_is_refused_and_changes_nothing():
    learner, other = make_learner("sgd", momentum=0.9), make_learner("adam")
    before = learner.digest()
    with pytest.raises(CheckpointError, match=r"0\.weight/1 is not expected"):
        learner.restore(other.snapshot())
    assert learner.digest() == before


def test_lars_leaves_biases_and_norms_to_plain_momentum():
    learner = make_learner("lars", momentum=0.0, eta=1e-6)
    before = learner.snapshot().parameters
    learner.update(stream(1), 1.0)
    after = learner.snapshot().parameters
    assert np.abs(before["0.weight"] - after["0.weight"]).max() < 1e-4  # trust ratio of about 1e-6
    assert np.abs(before["2.bias"] - after["2.bias"]).max() > 1e-2


@pytest.mark.parametrize("factor", [0.0, 0.5])
def test_factors_by_name_pattern(factor):
    def moved(**patterns):
        learner = make_learner("sgd", momentum=0.0, wd=0.1)
        trainable = {name: p for name, p in learner.parameters.items() if p.grad_req != "null"}
        options = {"lr_mult": {}, "wd_mult": {}, "decay_bias_and_norm": True, **patterns}
        set_multipliers(trainable, **options)
        before = learner.snapshot().parameters
        learner.update(stream(1), 0.1)
        after = learner.snapshot().parameters
        return {name: before[name] - after[name] for name in trainable}

    plain, slowed, undecayed = moved(), moved(lr_mult={"2.*": factor}), moved(wd_mult={"*": 0.0})
    np.testing.assert_allclose(slowed["2.weight"], factor * plain["2.weight"], rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(slowed["0.weight"], plain["0.weight"])
    assert np.abs(undecayed["0.weight"] - plain["0.weight"]).max() > 1e-3
    no_bias = moved(decay_bias_and_norm=False)
    np.testing.assert_array_equal(no_bias["0.weight"], plain["0.weight"])
    np.testing.assert_array_equal(no_bias["1.gamma"], undecayed["1.gamma"])
    assert np.abs(no_bias["1.gamma"] - plain["1.gamma"]).max() > 1e-3


def test_weight_decay_leaves_biases_and_norms_alone_unless_it_is_told_not_to():
    def factors(decay_bias_and_norm):
        parameters = {name: mx.gluon.Parameter(name) for name in ("0.weight", "0.bias", "1.gamma", "1.beta")}
        set_multipliers(parameters, lr_mult={}, wd_mult={}, decay_bias_and_norm=decay_bias_and_norm)
        return [parameter.wd_mult for parameter in parameters.values()]

    assert factors(decay_bias_and_norm=False) == [1, 0, 0, 0]
    assert factors(decay_bias_and_norm=True) == [1, 1, 1, 1]


def test_a_pattern_without_a_parameter_is_refused():
    with pytest.raises(
        ConfigError, match=r"optimizer\.lr_mult: the pattern '2\.wieght' .* matches no parameter; did you mean"
    ):
        set_multipliers(
            {"2.weight": mx.gluon.Parameter("w")}, lr_mult={"2.wieght": 1.0}, wd_mult={}, decay_bias_and_norm=True
        )
