"""AdamW against its formula in float64, in both forms, for one weight and for several in one call."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from harness.errors import ConfigError
from harness.gluon.step import OptimizerStep
from harness.model.adamw import AdamW
from harness.model.optimizers import build_optimizer

SHAPES = {"weight": (30, 7), "bias": (7,), "large": (300, 301)}
RATES = [1e-3, 2e-3, 5e-5, 1e-3, 3e-3] * 4
SAMPLES = 12.0
RANDOM = np.random.default_rng(4)
START = {name: RANDOM.normal(size=shape).astype("f") for name, shape in SHAPES.items()}
SUMS = [{name: SAMPLES * RANDOM.normal(size=shape).astype("f") for name, shape in SHAPES.items()} for _ in RATES]


def by_formula(name, *, lr_mult=1.0, wd_mult=1.0, clip=None, bias_correction=True, epsilon=1e-8, wd=0.1):
    """Loshchilov and Hutter 2019, algorithm 2 with alpha = eta, as PyTorch has it; without correction as BERT's."""
    w = START[name].astype(np.float64)
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, (rate, sums) in enumerate(zip(RATES, SUMS, strict=True), start=1):
        g = sums[name].astype(np.float64) / SAMPLES
        g = g if clip is None else np.clip(g, -clip, clip)
        m, v = 0.9 * m + 0.1 * g, 0.98 * v + 0.02 * g**2
        first, second = (m / (1 - 0.9**t), v / (1 - 0.98**t)) if bias_correction else (m, v)
        w = (1 - rate * lr_mult * wd * wd_mult) * w - rate * lr_mult * first / (np.sqrt(second) + epsilon)
    return w


def stepped(optimizer, kvstore=None):
    parameters = {name: mx.gluon.Parameter(name, shape=shape) for name, shape in SHAPES.items()}
    for name, one in parameters.items():
        one.initialize()
        one.set_data(mx.nd.array(START[name]))
    parameters["bias"].lr_mult, parameters["bias"].wd_mult = 0.3, 0.0
    step = OptimizerStep(optimizer, parameters, kvstore=kvstore)
    for t, (rate, sums) in enumerate(zip(RATES, SUMS, strict=True), start=1):
        for name, one in parameters.items():
            one.grad()[:] = mx.nd.array(sums[name])
        step.step(t, rate, None, SAMPLES)
    return {name: one.data().asnumpy() for name, one in parameters.items()}


@pytest.mark.parametrize("clip", [None, 0.3])
@pytest.mark.parametrize(
    "form",
    [{}, {"bias_correction": False, "epsilon": 1e-6}, {"epsilon": 0.3}, {"bias_correction": False, "epsilon": 0.3}],
    ids=["AdamW", "bertadam", "AdamW with a large epsilon", "bertadam with a large epsilon"],
)
def test_twenty_updates_are_the_formulas(form, clip):
    found = stepped(build_optimizer("adamw", {"wd": 0.1, "beta2": 0.98, **form}, clip_value=clip))
    for name in SHAPES:
        factors = {"lr_mult": 0.3, "wd_mult": 0.0} if name == "bias" else {}
        expected = by_formula(name, clip=clip, **factors, **form)
        np.testing.assert_allclose(found[name], expected, rtol=2e-5, atol=2e-6)


def test_decay_is_no_part_of_the_gradient():
    """Adam's would be scaled by the root of the mean square; where the gradient is large, little of it is left."""
    decoupled, coupled = (
        stepped(build_optimizer(name, {"wd": 0.1, "beta2": 0.98}))["large"] for name in ("adamw", "adam")
    )
    plain = stepped(build_optimizer("adam", {"beta2": 0.98}))["large"]
    np.testing.assert_allclose(decoupled - plain, by_formula("large") - by_formula("large", wd=0.0), atol=5e-6)
    assert np.abs(coupled - decoupled).max() > 1e-3


def test_bits_do_not_depend_on_how_many_weights_a_call_has():
    class OneByOne(AdamW):
        def __init__(self, **params):
            super().__init__(**params)
            self.aggregate_num = 0

    params = {"wd": 0.1, "beta2": 0.98}
    together, alone = stepped(AdamW(**params)), stepped(OneByOne(**params))
    on_store = stepped(AdamW(**params), kvstore="local")
    for name in SHAPES:
        assert together[name].tobytes() == alone[name].tobytes() == on_store[name].tobytes()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"bias_correction": 1}, r"'adamw' cannot make an update with .*bias_correction is 1; allowed: true, false"),
        ({"beta1": 1.0}, r"optimizer\.params\.beta1: found 1\.0; must be a number of at least 0 and below 1"),
        ({"wd": -0.1}, r"optimizer\.params\.wd: found -0\.1; must be a number of at least 0"),
        ({"epsilom": 1e-6}, r"'adamw' has no such parameter; did you mean 'epsilon'\?"),
        (
            {"correct_bias": False},
            r"'adamw' has no such parameter; .*known: beta1, beta2, bias_correction, epsilon, wd",
        ),
    ],
)
def test_wrong_parameters_are_refused(params, message):
    with pytest.raises(ConfigError, match=message):
        build_optimizer("adamw", params)
