"""The optimizer's state in PyTorch: from the middle of a run the same updates, or a refusal with both formulas."""

from __future__ import annotations

from dataclasses import replace

import mxnet as mx
import numpy as np
import pytest

from harness.bridge.of_gluon import factors_of
from harness.bridge.of_torch import arrays_of
from harness.bridge.optimizers import RunOptimizer, carry_over
from harness.bridge.replaying import Rates, TorchUpdates, side_by_side
from harness.bridge.torch_calls import TorchCalls, build_loss
from harness.comm import SingleWorld
from harness.data import Batch, GlobalBatch
from harness.errors import ConfigError
from harness.gluon import Learner, UpdateOptions
from harness.model.optimizers import build_optimizer
from tests.bridge import gluon_nets, torch_nets
from tests.bridge.both import both

BEGUN, MORE = 30, 50
RANDOM = np.random.default_rng(5)
DATA = RANDOM.normal(size=(256, 1, 8, 8)).astype(np.float32)
# L2, because the logarithm of oneDNN's log_softmax is wrong by 3e-6, and so not as PyTorch's
LABEL = RANDOM.normal(size=(256, 10)).astype(np.float32)


def stream(t):
    rows = np.random.default_rng(t).permutation(len(DATA))[:16]
    return GlobalBatch(t, tuple(Batch(s, DATA[rows[s::2]], LABEL[rows[s::2]]) for s in (0, 1)), 16)


def lr(t):
    return 0.001 * (1 + t % 7) if t != 40 else 0.0


def learner_of(name, params, clip_value=None, correction=None, mult=()):
    net, _ = gluon_nets.built("mlp")
    for path, one in net._collect_params_with_prefix().items():
        one.wd_mult = 0.0 if path.endswith("bias") else 1.0
        one.lr_mult = dict(mult).get(path, 1.0)
    optimizer = build_optimizer(name, params, clip_value=clip_value)
    settings = dict(vars(optimizer))  # before a learner takes NAG's decay over
    loss = mx.gluon.loss.L2Loss()
    options = UpdateOptions(momentum_correction=correction, clip_norm=None)
    return Learner(net, loss, optimizer, SingleWorld(), shards=2, sample=DATA[:2], options=options), net, settings


def carried(name, params, clip_value=None, correction=None, mult=(), others=1, begun=BEGUN):
    learners = [learner_of(name, params, clip_value, correction, mult) for _ in range(1 + others)]
    for learner, _, _ in learners:
        for t in range(1, begun + 1):
            learner.update(stream(t), lr(t))
    learner, net, settings = learners[0]
    state = learner.snapshot()
    factors = factors_of(net)
    run = RunOptimizer(
        name,
        settings,
        factors,
        state.optimizer_state,
        dict(zip(factors, state.numbers["update_counts"], strict=True)),
        state.numbers["applied_lr"],
        correction is not False and name in ("sgd", "nag"),
        False,
    )
    sides = both("mlp", torch_nets.mlp())
    mapping = sides.propose().mapping
    calls = TorchCalls(sides.torch.module, build_loss("l2", {}, -1))
    sides = replace(sides, torch=calls, parameters=state.parameters, updates=begun)
    sides.load(mapping)
    optimizer, _ = carry_over(run, sides.torch.module, mapping)
    return [one for one, _, _ in learners], TorchUpdates(sides.torch, optimizer, None, clip_value), mapping, sides


WAYS = {
    "sgd": ("sgd", {}),
    "sgd with momentum": ("sgd", {"momentum": 0.9, "wd": 1e-2}),
    "nag": ("nag", {"momentum": 0.9, "wd": 1e-2}),
    "adam": ("adam", {"wd": 1e-2, "epsilon": 1e-3}),
    "adamw": ("adamw", {"wd": 0.1, "epsilon": 1e-3}),
    "bertadam": ("adamw", {"wd": 0.1, "bias_correction": False, "epsilon": 1e-6}),
    "rmsprop": ("rmsprop", {"wd": 1e-2, "epsilon": 1e-4}),
    "adagrad": ("adagrad", {"eps": 1e-3}),
}


@pytest.mark.parametrize("way", WAYS)
def test_updates_go_on_as_those_of_mxnet(way):
    """50 updates, of which one at rate 0: losses differ by no more than those of MXNet that adds in another order."""
    learners, updates, mapping, sides = carried(*WAYS[way], mult=[("1.weight", 0.5)])
    found = list(side_by_side(learners, updates, stream, Rates(lr, lambda t: None), BEGUN + 1, BEGUN + MORE))
    ours = max(abs(one.torch - one.mxnet) for one in found)
    rounding = max(abs(other - one.mxnet) for one in found for other in one.reordered)
    told = f"PyTorch {ours:.3g}, MXNet in another order {rounding:.3g}"
    print(f"{way}: {told}, losses {found[0].mxnet:.4f} to {found[-1].mxnet:.4f}")
    assert ours <= 4 * rounding, told
    expected = mapping.convert(learners[0].snapshot().parameters, sides.module_shapes)
    for name, one in arrays_of(sides.torch.module).items():
        assert np.abs(one.detach().numpy() - expected[name]).max() < 1e-5


REFUSED = {
    "rates in the buffer": (
        "sgd",
        {"momentum": 0.9},
        None,
        False,
        "MXNet's sgd moves by gradients at the rates of their own updates (v = m v - h g; w = w + v)",
    ),
    "centered": (
        "rmsprop",
        {"centered": True},
        None,
        None,
        "MXNet's buffer holds the rates of its updates (d = m d - h g / sqrt(n - g'^2 + epsilon)",
    ),
    "weights clipped": (
        "rmsprop",
        {"clip_weights": 1.0},
        None,
        None,
        "MXNet clips weights after a step, and PyTorch never does",
    ),
    "decay beside the step": (
        "adagrad",
        {"wd": 0.1},
        None,
        None,
        "(w = w - h (g / sqrt(s + eps) + wd w)), PyTorch's within the gradient (g = g + wd w)",
    ),
    "decay clipped": (
        "adam",
        {"wd": 0.1},
        0.5,
        None,
        "MXNet's adam clips g + wd w, and PyTorch's adds wd w to the clipped g",
    ),
    "lamb": (
        "lamb",
        {},
        None,
        None,
        "lamb (d = m' / (sqrt(v') + epsilon) + wd w; w = w - h |w| / |d| d) has no counterpart",
    ),
    "ftrl": ("ftrl", {}, None, None, "ftrl (an update of its own) has no counterpart in torch.optim"),
}


@pytest.mark.parametrize("way", REFUSED)
def test_what_has_no_counterpart_is_refused_with_both_formulas(way):
    name, params, clip_value, correction, told = REFUSED[way]
    with pytest.raises(ConfigError) as error:
        carried(name, params, clip_value, correction, others=0, begun=1)
    assert told in str(error.value)


def test_gradients_are_clipped_as_before():
    learners, updates, *_ = carried("sgd", {"momentum": 0.9, "wd": 1e-2}, clip_value=1e-3)
    for one in side_by_side(learners, updates, stream, Rates(lr, lambda t: 0.8), BEGUN + 1, BEGUN + 10):
        assert abs(one.torch - one.mxnet) < 5e-7
