"""The optimizer's state in PyTorch: from the middle of a run the same updates, or a refusal with both formulas."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import mxnet as mx
import numpy as np
import pytest

from harness.bridge.counterparts import RunOptimizer
from harness.bridge.of_gluon import factors_of
from harness.bridge.of_torch import arrays_of
from harness.bridge.optimizers import carry_over
from harness.bridge.replaying import Rates, TorchUpdates, in_order, side_by_side
from harness.bridge.torch_calls import TorchCalls, build_loss
from harness.bridge.verdict import ORDERS, Losses, Replayed
from harness.comm import SingleWorld
from harness.data import Batch, GlobalBatch
from harness.errors import ConfigError
from harness.gluon import Learner, UpdateOptions
from harness.model.optimizers import build_optimizer
from tests.bridge import gluon_nets, torch_nets
from tests.bridge.both import both
from tests.conftest import THOROUGH

BEGUN, MORE = 30, 50
RANDOM = np.random.default_rng(5)
DATA = RANDOM.normal(size=(256, 1, 8, 8)).astype(np.float32)
LABEL = RANDOM.normal(size=(256, 10)).astype(np.float32)


def stream(t):
    rows = np.random.default_rng(t).permutation(len(DATA))[:16]
    return GlobalBatch(t, tuple(Batch(s, DATA[rows[s::2]], LABEL[rows[s::2]]) for s in (0, 1)), 16)


def lr(t):
    return 0.001 * (1 + t % 7) if t != 40 else 0.0


def learner_of(name, params, clip_value, correction, mult, clip_norm):
    net, _ = gluon_nets.built("mlp")
    for path, one in net._collect_params_with_prefix().items():
        one.wd_mult = 0.0 if path.endswith("bias") else 1.0
        one.lr_mult = dict(mult).get(path, 1.0)
    optimizer = build_optimizer(name, params, clip_value=clip_value)
    settings = dict(vars(optimizer))  # before a learner takes NAG's decay over
    loss = mx.gluon.loss.L2Loss()
    options = UpdateOptions(momentum_correction=correction, clip_norm=clip_norm)
    return Learner(net, loss, optimizer, SingleWorld(), shards=2, sample=DATA[:2], options=options), net, settings


def carried(name, params, clip_value=None, correction=None, mult=(), others=0, begun=BEGUN, clip_norm=None):
    """Learners after some updates, and what makes PyTorch's updates from there on, as often as it is called."""
    learners = []
    for number in range(1 + others):
        with in_order(number):
            learners.append(learner_of(name, params, clip_value, correction, mult, clip_norm))
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
        clip_norm,
    )
    sides = both("mlp", torch_nets.mlp())
    mapping = sides.propose().mapping

    def updates():
        calls = TorchCalls(torch_nets.mlp(), build_loss("l2", {}, -1))
        one = replace(sides, torch=calls, parameters=state.parameters, updates=begun)
        one.load(mapping)
        return TorchUpdates(calls, carry_over(run, calls.module, mapping)[0])

    def apart(made):
        """How far weights are from those of the first learner."""
        arrays = arrays_of(made.calls.module)
        expected = mapping.convert(learner.snapshot().parameters, sides.module_shapes)
        return max(np.abs(arrays[name].detach().numpy() - one).max() for name, one in expected.items())

    return [one for one, _, _ in learners], updates, apart


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
# as many as `replay` has; a few tell what is another run, and whether PyTorch is near
OTHERS = ORDERS if THOROUGH else 7


@lru_cache
def replayed(way):
    """50 updates, of which one at rate 0; with what makes other ones from the same state."""
    learners, updates, apart = carried(*WAYS[way], mult=[("1.weight", 0.5)], others=OTHERS)
    made = updates()
    rows = list(side_by_side(learners, made, stream, Rates(lr, lambda t: None), BEGUN + 1, BEGUN + MORE))
    return Replayed(rows, 0.0, 0.0), updates, apart(made)


@pytest.mark.parametrize("way", WAYS)
def test_updates_go_on_as_those_of_mxnet(way):
    found, _, apart = replayed(way)
    print(f"{way}: {found.verdict()}, losses {found.rows[0].mxnet:.4f} to {found.rows[-1].mxnet:.4f}")
    # what chance there is depends on the CPU's kernels
    assert found.agrees if THOROUGH else found.is_close, found.verdict()
    assert apart < 1e-5


def at_rate(factor):
    return lambda made: lambda t: made.update(stream(t), lr(t) * factor, None)


def late(made):
    return lambda t: made.update(stream(t), lr(t - 1), None)


def with_another_sample(made):
    """One of 16, in one update."""

    def update(t):
        batch = stream(t)
        if t == BEGUN + 1:
            batch.batches[0].data[0] = DATA[np.random.default_rng(t).permutation(len(DATA))[16]]
        return made.update(batch, lr(t), None)

    return update


def with_setting(name, value):
    def set_it(optimizer, *_):
        for group in optimizer.param_groups:
            group[name] = value

    def change(made):
        made.optimizer.register_step_pre_hook(set_it)  # after the hook that sets it, if there is one
        return lambda t: made.update(stream(t), lr(t), None)

    return change


def with_a_count_too_few(made):
    for state in made.optimizer.state.values():
        state["step"] -= 1
    return lambda t: made.update(stream(t), lr(t), None)


WRONG = [
    ("sgd", at_rate(1 + 2e-6)),
    ("sgd with momentum", at_rate(1 + 2e-6)),
    ("sgd with momentum", late),
    ("sgd with momentum", with_another_sample),
    ("sgd with momentum", with_setting("momentum", 0.90001)),
    ("nag", at_rate(1 + 2e-6)),
    ("nag", with_setting("nesterov", False)),
    ("adam", at_rate(1 + 2e-6)),
    ("adam", late),
    ("adam", with_another_sample),
    ("adam", with_a_count_too_few),
    ("adam", with_setting("eps", 1e-3)),
    ("adam", with_setting("betas", (0.90001, 0.999))),
    ("adam", with_setting("betas", (0.9, 0.99901))),
    ("adamw", at_rate(1 + 4e-6)),
    ("adamw", with_setting("eps", 1.0001e-3)),
    ("adamw", with_setting("weight_decay", 0.1001)),
    ("bertadam", at_rate(1 + 4e-6)),
    ("rmsprop", at_rate(1 + 2e-6)),
    ("rmsprop", with_setting("eps", 1e-6)),
]


@pytest.mark.parametrize(("way", "change"), WRONG)
def test_what_is_not_the_same_run_is_told(way, change):
    found, updates, _ = replayed(way)
    update = change(updates())
    wrong = replace(found, rows=[Losses(row.t, row.lr, row.mxnet, update(row.t), row.reordered) for row in found.rows])
    assert not wrong.agrees, wrong.verdict()


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
        carried(name, params, clip_value, correction, begun=1)[1]()
    assert told in str(error.value)


@pytest.mark.parametrize(("clip_value", "clip_norm"), [(1e-3, None), (None, 0.01), (1e-3, 0.01)])
def test_gradients_are_clipped_as_before(clip_value, clip_norm):
    learners, updates, _ = carried("sgd", {"momentum": 0.9, "wd": 1e-2}, clip_value=clip_value, clip_norm=clip_norm)
    for one in side_by_side(learners, updates(), stream, Rates(lr, lambda t: 0.8), BEGUN + 1, BEGUN + 10):
        assert abs(one.torch - one.mxnet) < 5e-7
