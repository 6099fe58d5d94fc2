"""Steps on the host: the bits of MXNet's own kernels, in the memory that MXNet reads."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from harness.comm import SingleWorld
from harness.data import Batch, GlobalBatch
from harness.errors import ConfigError
from harness.gluon import Learner, UpdateOptions
from harness.gluon.gradient_buffer import GradientBuffer
from harness.gluon.step import OptimizerStep
from harness.gluon.step.memory import as_operators_read
from harness.gluon.step.numpy_step import NumpyStep
from harness.gluon.step.per_device import PerDeviceStep

RANDOM = np.random.default_rng(1)
DATA, LABEL = RANDOM.normal(size=(10, 8, 1100)).astype("f"), RANDOM.integers(0, 3, (10, 8)).astype("f")
SHAPES = {"conv": (20, 3, 5, 5), "bias": (7,), "large": (300, 301), "one": (1,)}
MISREAD = 1 / 10001  # which MXNet's operators read one unit in the last place off
TINY = np.float32(1e-45)  # the smallest number above 0
# every rule but SGD's, with the settings that make it take another way
RULES = {
    "nag": ("nag", {"momentum": 0.9}),
    "nag, low momentum": ("nag", {"momentum": 0.3}),
    "lamb": ("lamb", {}),
    "lamb, bounds": ("lamb", {"lower_bound": 0.5, "upper_bound": 3.0, "beta1": 0.3}),
    "lamb, no correction": ("lamb", {"bias_correction": False, "epsilon": 1e-4}),
    "lamb, late": ("lamb", {"begin_num_update": 5000, "beta2": 0.9999}),
}


def parameters():
    """Weights whose gradients lie in one buffer, as a learner's do."""
    random = np.random.default_rng(3)
    found = {name: mx.gluon.Parameter(name, shape=shape) for name, shape in SHAPES.items()}
    for name, parameter in found.items():
        parameter.initialize()
        parameter.set_data(mx.nd.array(random.normal(size=SHAPES[name])))
    found["bias"].lr_mult, found["large"].wd_mult = 0.3, 0.0
    return found, GradientBuffer(found, [], mx.cpu())


def arrays_of(state):
    """The arrays of one weight's state."""
    return [] if state is None else list(state) if isinstance(state, tuple) else [state]


def history(stepper, trainable, sums, momenta, gradients):
    """Bits of weights and states after every step."""
    updater = stepper.updaters[0]
    found = []
    for i, momentum in enumerate(momenta):
        updater.optimizer.set_learning_rate((0.1 if i % 3 else 1e-5) / (i + 3))
        updater.optimizer.rescale_grad = 1 / (7.3 + i) if i % 2 else MISREAD
        if momentum is not None:
            updater.optimizer.momentum = momentum
        sums.gradients[:] = mx.nd.array(gradients[i])
        stepper.step(None, factor=1.0 if i % 2 or not momenta[0] else 1.1 - i / 9)
        mx.nd.waitall()
        arrays = [p.data() for p in trainable.values()]
        arrays += [array for state in updater.states.values() for array in arrays_of(state)]
        found.append([array.asnumpy().tobytes() for array in arrays])
    return found


@pytest.mark.parametrize("clip", [None, 0.02])
@pytest.mark.parametrize("wd", [0.0, 0.03])
@pytest.mark.parametrize("momentum", [0.0, 0.4, 0.9])
def test_the_host_has_the_bits_of_mxnet(momentum, wd, clip):
    random = np.random.default_rng(1)
    results = []
    momenta = [momentum] * 4 + ([0.0, 0.85, 0.95] if momentum else [])
    total = parameters()[1].gradients.size
    gradients = random.normal(size=(len(momenta), total)).astype("f")
    gradients[:, ::3] = 0
    gradients[:, 1::7] *= np.float32(1e-38)
    for kind in (PerDeviceStep, NumpyStep):
        trainable, sums = parameters()
        optimizer = mx.optimizer.SGD(momentum=momentum, wd=wd, clip_gradient=clip)
        stepper = kind(optimizer, list(trainable.values()))
        for slot in stepper.updaters[0].states.values():
            if slot is not None:  # numbers that a unit without a gradient is left with, and zeros of both signs
                slot[:] = mx.nd.array(np.resize([TINY, -TINY, 3e-39, 0.0, -0.0, 1.0], slot.shape))
        results.append(history(stepper, trainable, sums, momenta, gradients))
        assert optimizer.num_update == len(momenta)
    assert results[0] == results[1]


def histories_of(name, gradients, **more):
    """Of MXNet's kernel and of the rule."""
    kind, params = RULES[name]
    found = []
    for stepper_of in (PerDeviceStep, NumpyStep):
        trainable, sums = parameters()
        trainable["one"].set_data(mx.nd.zeros((1,)))  # a norm of 0
        optimizer = mx.optimizer.create(kind, **params, **more)
        stepper = stepper_of(optimizer, list(trainable.values()))
        for state in stepper.updaters[0].states.values():
            for slot in arrays_of(state):  # no variance is below 0
                smallest = -TINY if kind == "nag" else TINY
                slot[:] = mx.nd.array(
                    np.resize([TINY, smallest, 3e-39, 0.0, np.copysign(0, smallest), 1.0], slot.shape)
                )
        momenta = [params["momentum"]] * len(gradients) if kind == "nag" else [None] * len(gradients)
        found.append(history(stepper, trainable, sums, momenta, gradients))
        assert optimizer.num_update == len(gradients) + params.get("begin_num_update", 0)
    return found


@pytest.mark.parametrize("clip", [None, 0.02])
@pytest.mark.parametrize("wd", [0.0, 0.03])
@pytest.mark.parametrize("name", RULES)
def test_every_rule_has_the_bits_of_mxnet(name, wd, clip):
    gradients = np.random.default_rng(1).normal(size=(6, parameters()[1].gradients.size)).astype("f")
    gradients[:, ::3] = 0
    gradients[:, 1::7] *= np.float32(1e-38)
    gradients[:, 2::11] *= np.float32(-0.0)
    gradients[3:, 4::13] *= np.float32(1e5)
    kernel, rule = histories_of(name, gradients, wd=wd, clip_gradient=clip)
    assert len(set(map(str, kernel))) == len(gradients)  # it moves
    assert kernel == rule


@pytest.mark.parametrize("name", RULES)
def test_every_rule_treats_what_is_not_finite_as_mxnet_does(name):
    gradients = np.random.default_rng(1).normal(size=(4, parameters()[1].gradients.size)).astype("f")
    gradients[1, ::5] = 3e38
    gradients[2, 1::5], gradients[2, 2::5] = np.inf, -np.inf
    gradients[3, 3::5] = np.nan
    kernel, rule = histories_of(name, gradients, wd=0.03)
    assert kernel == rule


def test_a_weight_that_onednn_laid_out_for_itself_is_stepped_all_the_same():
    results = []
    for kind in (PerDeviceStep, NumpyStep):
        net = mx.gluon.nn.Conv2D(32, 3, in_channels=16)
        mx.random.seed(1)
        net.initialize(mx.init.Xavier())
        trainable = {"weight": net.weight, "bias": net.bias}
        sums = GradientBuffer(trainable, [], mx.cpu())
        net(mx.nd.ones((2, 16, 8, 8))).wait_to_read()  # in predict mode, which lays the weight out
        stepper = kind(mx.optimizer.SGD(momentum=0.9), list(trainable.values()))
        results.append(history(stepper, trainable, sums, [0.9], np.ones((1, sums.gradients.size), "f")))
        seen = net(mx.nd.ones((2, 16, 8, 8))).asnumpy()
        results[-1].append(seen.tobytes())
    assert results[0] == results[1]


def test_numbers_are_read_as_operators_read_them():
    def by_an_operator(value):
        read = mx.nd.zeros((1,))
        mx.nd.sgd_update(read, mx.nd.ones((1,)), lr=1.0, wd=0.0, rescale_grad=value, out=read)
        return -read.asnumpy()[0]

    random = np.random.default_rng(1)
    values = [*(10.0 ** random.uniform(-37, 37, 1000)), *random.uniform(-1, 1, 100), *(1 / np.arange(9000, 9100))]
    values += [0.0, 0.1, 1.0, 1e-8, 5e-5, 123456789.125, 9007199254740993.0, 1e22, 3.4e38, float("inf")]
    assert [as_operators_read(float(value)) for value in values] == [by_an_operator(float(value)) for value in values]
    assert as_operators_read(MISREAD) != np.float32(MISREAD)
    assert not np.signbit(as_operators_read(0.0))


def test_a_momentum_without_buffers_and_a_rate_that_is_not_finite_are_refused():
    trainable, _ = parameters()
    plain = OptimizerStep(mx.optimizer.SGD(), trainable, synchronous=True)
    with pytest.raises(ConfigError, match=r"momentum: 0\.9 for an optimizer that was built without"):
        plain.step(1, 0.1, 0.9, 8.0)
    with pytest.raises(ConfigError, match=r"learning rate 1e\+39.*must be finite"):
        plain.step(1, 1e39, None, 8.0)


def test_it_takes_the_place_of_sgd_on_one_cpu_where_that_pays(monkeypatch):
    class Own(mx.optimizer.SGD):
        pass

    def weights(ctx, size):
        parameter = mx.gluon.Parameter("weight", shape=(size,))
        parameter.initialize(ctx=ctx)
        return [parameter]

    small, large = weights(mx.cpu(), 5), weights(mx.cpu(), 3 << 20)
    sgd = mx.optimizer.SGD(momentum=0.9)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert NumpyStep.pays(sgd, small, True)
    assert NumpyStep.pays(sgd, large, True)
    assert NumpyStep.pays(sgd, large, False)
    assert not NumpyStep.pays(sgd, small, False)
    assert not NumpyStep.pays(sgd, weights([mx.cpu(0), mx.cpu(1)], 5), True)
    assert not NumpyStep.pays(sgd, weights(mx.cpu(1), 5), True)
    assert not NumpyStep.pays(Own(momentum=0.9), small, True)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert not NumpyStep.pays(sgd, large, True)


@pytest.mark.parametrize(
    ("optimizer", "threads"),
    [
        (mx.optimizer.NAG(momentum=0.9), 1),
        (mx.optimizer.LAMB(), 2),
        (mx.optimizer.NAG(), 0),  # steps by another kernel
        (mx.optimizer.RMSProp(), 0),
        (mx.optimizer.Adam(), 0),
        (mx.optimizer.SGLD(), 0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_it_takes_the_place_of_what_has_a_rule(monkeypatch, optimizer, threads):
    weight = mx.gluon.Parameter("weight", shape=(5,))
    weight.initialize()
    for number in (1, 2, 3):
        monkeypatch.setenv("OMP_NUM_THREADS", str(number))
        assert NumpyStep.pays(optimizer, [weight], True) == (number <= threads), number
        assert not NumpyStep.pays(optimizer, [weight], False)


def test_lamb_has_other_kernels_for_one_weight_at_a_time(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MXNET_OPTIMIZER_AGGREGATION_SIZE", "1")
    weight = mx.gluon.Parameter("weight", shape=(5,))
    weight.initialize()
    assert not NumpyStep.pays(mx.optimizer.LAMB(), [weight], True)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("kind", ["sgd", "lamb"])
def test_other_dtypes_are_left_to_mxnet(monkeypatch, kind, dtype):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    weight = mx.gluon.Parameter("weight", shape=(5,), dtype=dtype)
    weight.initialize()
    assert not NumpyStep.pays(mx.optimizer.create(kind, multi_precision=True), [weight], True)


@pytest.mark.parametrize(("kind", "params"), [("nag", {"momentum": 0.9}), ("lamb", {})])
def test_a_run_has_the_bits_of_mxnet_and_resumes_with_them(monkeypatch, kind, params):
    """With a rate that changes and touches 0, clipped gradients, decay, and factors on both."""

    def digests(by_numpy):
        monkeypatch.setattr(NumpyStep, "pays", staticmethod(lambda *more: by_numpy))
        net = mx.gluon.nn.HybridSequential()
        net.add(mx.gluon.nn.Dense(64, in_units=1100, activation="relu"), mx.gluon.nn.Dense(3, in_units=64))
        mx.random.seed(1)
        net.initialize(mx.init.Xavier())
        net[0].bias.lr_mult, net[1].weight.wd_mult, net[1].bias.lr_mult = 0.3, 0.0, 0.0
        loss, optimizer = mx.gluon.loss.SoftmaxCrossEntropyLoss(), mx.optimizer.create(kind, wd=1e-3, **params)
        options = UpdateOptions(clip_norm=0.4)
        learner = Learner(net, loss, optimizer, SingleWorld(), shards=1, sample=DATA[0, :1], options=options)
        found = []
        for t in [1, 2, 3, 4, 5, 6, 3, 4, 5, 6]:
            if t == 3 and len(found) == 2:
                state = learner.snapshot()
            elif t == 3:
                learner.restore(state)
            learner.update(GlobalBatch(t, (Batch(0, DATA[t], LABEL[t]),), 8), 0.0 if t == 4 else 0.01 * t)
            found.append(learner.digest())
        assert found[2:6] == found[6:]
        return found

    assert digests(by_numpy=False) == digests(by_numpy=True)


def test_a_large_network_on_one_process_has_the_bits_of_mxnet(monkeypatch):
    pays, found = NumpyStep.pays, []
    monkeypatch.setattr(NumpyStep, "pays", staticmethod(lambda *more: found.append(pays(*more)) or found[-1]))

    def digest(threads):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)  # MXNet was told when it was imported
        net = mx.gluon.nn.HybridSequential()
        net.add(mx.gluon.nn.Dense(2048, in_units=1100), mx.gluon.nn.Dense(3, in_units=2048))
        mx.random.seed(1)
        net.initialize(mx.init.Xavier())
        learner = Learner(
            net,
            mx.gluon.loss.SoftmaxCrossEntropyLoss(),
            mx.optimizer.SGD(momentum=0.9, wd=1e-4),
            SingleWorld(),
            shards=1,
            sample=DATA[0, :1],
        )
        for t in range(1, 9):
            learner.update(GlobalBatch(t, (Batch(0, DATA[t], LABEL[t]),), 8), 0.0 if t == 5 else 0.01 * t)
            if t == 3:
                learner.predict(DATA[0], LABEL[0])
        return learner.digest()

    assert digest("1") == digest("3")
    assert found == [True, False]
