"""Twenty ways to be wrong, and a few more: each is found by `verify`, and named."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
from mxnet.gluon import rnn
from torch import nn

from harness.bridge.mapping import ArrayMap, Source
from harness.bridge.sides import TorchNames, both_sides
from harness.errors import ConfigError
from tests.bridge import gluon_nets, torch_nets
from tests.bridge.both import both, found_in


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("no bias", ["conv1.bias: the run has this array, and it goes nowhere"]),
        ("dense without bias", ["fc2.bias: the run has this array, and it goes nowhere"]),
        ("eps", ["norm1 (BatchNorm2d): eps is 0.001, and 1e-05 in the run's norm1 (BatchNorm)"]),
        ("momentum", ["norm2 (BatchNorm2d): momentum is 0.9, and 0.1 in the run's norm2 (BatchNorm)"]),
        ("other norm", ["the run's norm2 (BatchNorm) with", "the module's norm2 (GroupNorm) with", "no counterpart"]),
        ("padding mode", ["conv2 (Conv2d) for the run's conv2 (Conv2D) gives something else"]),
        ("dilation", ["conv2 (Conv2d): dilation is (2, 2), and (1, 1)", "padding is (2, 2), and (1, 1)"]),
        ("tanh", ["conv2 (Conv2d) for the run's conv2 (Conv2D) is given something else", "norm1 (BatchNorm) differs"]),
        ("no activation", ["conv2 (Conv2d) for the run's conv2 (Conv2D) is given something else"]),
        ("slope", ["conv3 (Conv2d) for the run's conv3 (Conv2D) is given something else", "norm2 (BatchNorm) differs"]),
        (
            "pool",
            ["fc1 (Linear) for the run's fc1 (Dense) is given something else", "pool (MaxPool2D)", "pool (AvgPool2d)"],
        ),
        ("flatten", ["fc1 (Linear) for the run's fc1 (Dense) is given something else", "conv3 (Conv2D) differs"]),
        (
            "input",
            ["conv1 (Conv2d) for the run's conv1 (Conv2D) is given something else", "between it and the samples"],
        ),
        ("softmax", ["every layer that both call agrees, and the predictions differ", "what follows the last layer"]),
        ("dropout", ["dropout: the run has drop 0.25; the module has drop 0.5"]),
        ("frozen", ["fc1.weight: is trained in the run (fc1.weight), and not in the module (requires_grad)"]),
    ],
)
def test_a_module_that_is_another_network(wrong, named):
    sides = both("pictures", torch_nets.Pictures(wrong))
    proposal = sides.propose()
    found = "\n".join([*proposal.problems, found_in(sides, proposal.mapping)])
    for words in named:
        assert words in found


def exchanged(mapping, *pairs):
    sources = dict(mapping.sources)
    for one, other in pairs:
        sources[one], sources[other] = sources[other], sources[one]
    return replace(mapping, sources=sources)


def both_of(one, other):
    return [(f"{one}.{role}", f"{other}.{role}") for role in ("weight", "bias")]


@pytest.mark.parametrize(
    ("network", "pairs", "named"),
    [
        ("pictures", both_of("conv2", "conv3"), "exchange conv3 and conv2 (the run's conv3 and conv2)"),
        (
            "pictures",
            [("norm1.running_mean", "norm1.bias")],
            "exchange norm1.bias and norm1.running_mean (the run's norm1.beta and norm1.running_mean)",
        ),
        (
            "transformer",
            [
                (f"layers.layers.0.self_attn.in_proj_{role}[{a}]", f"layers.layers.0.self_attn.in_proj_{role}[{b}]")
                for role in ("weight", "bias")
                for a, b in [("0:12", "24:36")]
            ],
            "exchange layers.layers.0.self_attn.query and layers.layers.0.self_attn.value",
        ),
        ("mlp", both_of("3", "3"), ""),
        (
            "pictures",
            [(f"norm1.{role}", f"norm2.{role}") for role in ("weight", "bias", "running_mean", "running_var")],
            "exchange norm2 and norm1 (the run's norm2 and norm1)",
        ),
        (
            "lstm",
            [(f"rnn.{role}_l0", f"rnn.{role}_l0_reverse") for role in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")],
            "exchange the directions of layer 0 of rnn",
        ),
        ("gru", [("rnn.weight_hh_l0", "rnn.weight_hh_l1")], "exchange rnn.weight_hh_l0 and rnn.weight_hh_l1"),
    ],
)
def test_arrays_of_one_shape_that_are_exchanged(network, pairs, named):
    sides = both(network)
    found = found_in(sides, exchanged(sides.propose().mapping, *pairs))
    assert named in found
    assert bool(found) == bool(named), "exchanged with itself nothing is wrong"
    assert not found or "then the predictions agree, so the mapping is wrong there" in found
    assert "gives something else" not in found
    assert "is given something else" not in found, "which would follow from it"


def test_a_matrix_on_its_side():
    sides = both("mlp")
    mapping = sides.propose().mapping
    turned = replace(mapping, sources={**mapping.sources, "3.weight": Source("1.weight", axes=(1, 0))})
    assert "transpose 3.weight: then the predictions agree" in found_in(sides, turned)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_gates_in_another_order(kind):
    sides = both(kind)
    mapping = sides.propose().mapping
    order = (0, 2, 1, 3) if kind == "lstm" else (1, 0, 2)
    changed = {
        target: replace(source, blocks=order) if target.startswith("rnn.") else source
        for target, source in mapping.sources.items()
    }
    found = found_in(sides, replace(mapping, sources=changed))
    assert "rnn" in found
    assert "gives something else" in found


def test_an_lstm_of_ones_own_with_other_gates(monkeypatch):
    """A module that has the gates in another order is found, and the order that makes them agree is told."""
    one = partial(gluon_nets.Recurrent, rnn.LSTM, 1, False)
    monkeypatch.setitem(gluon_nets.NETWORKS, "one", (one, gluon_nets.TOKENS))
    sides = both("one", torch_nets.OwnLSTM())
    names = {"embed.weight": "embed.weight", "out.weight": "out.weight", "out.bias": "out.bias"}
    own = {
        f"{what}_{where}": f"rnn._unfused.0.{'i2h' if where == 'ih' else 'h2h'}_{what}"
        for what in ("weight", "bias")
        for where in ("ih", "hh")
    }
    as_they_are = ArrayMap({target: Source(name) for target, name in {**names, **own}.items()})
    found = found_in(sides, as_they_are)
    assert "give the gates of" in found
    assert "in the order blocks: [0, 2, 1, 3]: then the predictions agree" in found
    given = {target: Source(name, blocks=(0, 2, 1, 3)) for target, name in own.items()}
    assert not found_in(sides, replace(as_they_are, sources={**as_they_are.sources, **given}))


@pytest.mark.parametrize(
    ("network", "module", "named"),
    [
        (
            "transformer",
            lambda: torch_nets.Transformer("gelu"),
            "layers.layers.0.linear2 (Linear) for the run's layers.0.down",
        ),
        ("transformer", lambda: torch_nets.Transformer("norm first"), "is given something else"),
        ("mlp", lambda: torch_nets.mlp("GELU"), "2 (GELU) is another function than the run's 0.act (relu)"),
        ("tied", lambda: torch_nets.Tied("not tied"), "embed.weight: is one array in the run, which two layers share"),
        ("tied", lambda: torch_nets.Tied("padding"), "gradients: 4 DIFFER"),
        (
            "rnn",
            lambda: torch_nets.Recurrent(partial(nn.RNN, nonlinearity="relu"), 1, True),
            "rnn (RNN): nonlinearity is relu, and tanh in the run's rnn (RNN)",
        ),
    ],
)
def test_other_networks(network, module, named):
    sides = both(network, module())
    proposal = sides.propose()
    found = "\n".join([*proposal.problems, found_in(sides, proposal.mapping)])
    assert named in found


def test_a_network_that_carries_state_is_refused():
    config = SimpleNamespace(network=SimpleNamespace(state="streams:zeros"))
    opened = SimpleNamespace(run=SimpleNamespace(config=config, data=SimpleNamespace(splits=None)))
    with pytest.raises(ConfigError) as error:
        both_sides(opened, TorchNames("nets:net"), 2)
    assert str(error.value) == (
        "network.state: the network carries state from one update to the next (streams:zeros), which no command of "
        "bridge can; move its weights by hand, and train on with open_run and TrainingBatches (docs/leaving.md), whose "
        "updates tell where state begins"
    )
