"""SGD on the host: the bits of MXNet's own kernels, in the memory that MXNet reads."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from harness.comm import SingleWorld
from harness.data import Batch, GlobalBatch
from harness.errors import ConfigError
from harness.gluon import Learner
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


def parameters():
    """Weights whose gradients lie in one buffer, as a learner's do."""
    random = np.random.default_rng(3)
    found = {name: mx.gluon.Parameter(name, shape=shape) for name, shape in SHAPES.items()}
    for name, parameter in found.items():
        parameter.initialize()
        parameter.set_data(mx.nd.array(random.normal(size=SHAPES[name])))
    found["bias"].lr_mult, found["large"].wd_mult = 0.3, 0.0
    return found, GradientBuffer(found, [], mx.cpu())


def history(stepper, trainable, sums, momenta, gradients):
    """Bits of weights and momenta after every step."""
    updater = stepper.updaters[0]
    found = []
    for i, momentum in enumerate(momenta):
        updater.optimizer.set_learning_rate(0.1 / (i + 3))
        updater.optimizer.rescale_grad = 1 / (7.3 + i) if i % 2 else MISREAD
        updater.optimizer.momentum = momentum
        sums.gradients[:] = mx.nd.array(gradients[i])
        stepper.step(None, factor=1.0 if i % 2 or not momenta[0] else 1.1 - i / 9)
        mx.nd.waitall()
        arrays = [p.data() for p in trainable.values()] + [s for s in updater.states.values() if s is not None]
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
    assert as_operators_read(0.125) == 0.125
    assert as_operators_read(MISREAD) != np.float32(MISREAD)


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
    assert not NumpyStep.pays(mx.optimizer.NAG(momentum=0.9), small, True)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert not NumpyStep.pays(sgd, large, True)


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
