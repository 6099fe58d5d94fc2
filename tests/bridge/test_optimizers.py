"""The optimizer's state in PyTorch: from the middle of a run the same updates, or a refusal with both formulas."""

from __future__ import annotations

import copy
from dataclasses import replace

import mxnet as mx
import numpy as np
import pytest

from harness.bridge.of_gluon import factors_of
from harness.bridge.of_torch import arrays_of
from harness.bridge.optimizers import RunOptimizer, carry_over
from harness.bridge.replay import ORDERS, Replayed
from harness.bridge.replaying import Rates, TorchUpdates, in_order, side_by_side
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
    learners = []
    for number in range(1 + others):
        with in_order(number):
            learners.append(learner_of(name, params, clip_value, correction, mult))
    learner, net, settings = learners[0]
    for t in range(1, begun + 1):
        learner.update(stream(t), lr(t))
    state = learner.snapshot()
    for other, _, _ in learners[1:]:
        other.restore(state)
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
    exact = replace(calls, module=copy.deepcopy(calls.module))
    updates = [TorchUpdates(one, carry_over(run, one.module, mapping)[0], None, clip_value) for one in (calls, exact)]
    updates[1].in_float64()
    return [one for one, _, _ in learners], updates, mapping, sides


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
    learners, updates, mapping, sides = carried(*WAYS[way], mult=[("1.weight", 0.5)], others=ORDERS)
    rows = list(side_by_side(learners, *updates, stream, Rates(lr, lambda t: None), BEGUN + 1, BEGUN + MORE))
    found = Replayed(rows, 0.0, 0.0)
    print(f"{way}: {found.verdict()}, losses {rows[0].mxnet:.4f} to {rows[-1].mxnet:.4f}")
    assert found.agrees, found.verdict()
    expected = mapping.convert(learners[0].snapshot().parameters, sides.module_shapes)
    for name, one in arrays_of(sides.torch.module).items():
        assert np.abs(one.detach().numpy() - expected[name]).max() < 1e-5


@pytest.mark.parametrize(
    ("name", "params", "way"),
    [
        ("adam", {"epsilon": 1e-3}, "epsilon outside the root"),
        ("adam", {"epsilon": 1e-8}, "a count too few"),
        ("rmsprop", {"epsilon": 1e-4}, "epsilon outside the root"),
    ],
)
def test_another_optimizer_is_told_as_another_run(name, params, way):
    learners, updates, *_ = carried(name, params, others=ORDERS)

    def plain_epsilon(optimizer, *_):
        for group in optimizer.param_groups:
            group["eps"] = params["epsilon"]

    for one in updates:
        optimizer = one.optimizer
        if way == "a count too few":
            for state in optimizer.state.values():
                state["step"] -= 1
        else:
            optimizer.register_step_pre_hook(plain_epsilon)
    rows = list(side_by_side(learners, *updates, stream, Rates(lr, lambda t: None), BEGUN + 1, BEGUN + 20))
    assert not Replayed(rows, 0.0, 0.0).agrees


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_rate_that_is_one_iteration_late_is_told_as_another_run(name):
    learners, updates, *_ = carried(name, {"momentum": 0.9} if name == "sgd" else {}, others=ORDERS)
    late = [Late(one) for one in updates]
    rows = list(side_by_side(learners, *late, stream, Rates(lr, lambda t: None), BEGUN + 1, BEGUN + 20))
    assert not Replayed(rows, 0.0, 0.0).agrees


class Late:
    """Updates at the rate of the iteration before."""

    def __init__(self, updates):
        self.updates = updates

    def update(self, batch, _, momentum):
        return self.updates.update(batch, lr(batch.t - 1), momentum)


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
    for one in side_by_side(learners, *updates, stream, Rates(lr, lambda t: 0.8), BEGUN + 1, BEGUN + 10):
        assert abs(one.torch - one.mxnet) < 5e-7
