"""Layers are paired, their arrays carried over, both networks found to be the same; what is ambiguous is told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from mxnet.gluon import nn

from harness.bridge.mapping import Source
from harness.bridge.mapping_file import read_mapping, write_mapping
from harness.bridge.of_gluon import axes_of, layers_of
from harness.bridge.verification import verified
from harness.errors import ConfigError
from tests.bridge import gluon_nets
from tests.bridge.both import both

ARRAYS = {"mlp": 6, "resnet18_v2": 92, "mobilenet_v2": 266, "transformer": 36, "cells": 15, "tied": 4, "rest": 13}


@pytest.mark.parametrize("name", [name for name in gluon_nets.NETWORKS if name != "pictures"])
def test_arrays_are_matched_and_networks_are_the_same(name, tmp_path):
    sides = both(name)
    proposal = sides.propose()
    assert not proposal.problems
    assert not proposal.mapping.problems(sides.run_shapes, sides.module_shapes)
    assert len(proposal.mapping.sources) == ARRAYS.get(name, len(proposal.mapping.sources))
    write_mapping(tmp_path / "mapping.yaml", proposal.mapping, proposal.pairs, f"nets:{name}")
    mapping, module = read_mapping(tmp_path / "mapping.yaml")
    assert (mapping, module) == (proposal.mapping, f"nets:{name}"), "what is written is what is read"
    found = verified(sides, mapping)
    assert not found.differences
    predictions, *others = found.compared
    assert 0 < predictions.distance <= 1e-5
    # in float64 the same formulas differ by rounding alone; MXNet has some operators in float32 alone, and gradients of
    # several recurrent layers right only there
    is_float32 = name in ("rest", "cells", "lstm", "gru")
    assert [one.what for one in others if one.distance > (one.threshold if is_float32 else 1e-6)] == []
    assert len(found.remarks) == is_float32


class Twins(nn.HybridBlock):
    def __init__(self, *names):
        super().__init__()
        self._twins = names
        with self.name_scope():
            for name in names:
                setattr(self, name, nn.Dense(5))

    def hybrid_forward(self, F, x):
        one, other = (getattr(self, name)(x) for name in self._twins)
        return one - F.sigmoid(other)


class TorchTwins(torch.nn.Module):
    def __init__(self, *names):
        super().__init__()
        self.names = names
        for name in reversed(names):
            setattr(self, name, torch.nn.Linear(64, 5))

    def forward(self, x):
        one, other = (getattr(self, name)(x.flatten(1)) for name in self.names)
        return one - other.sigmoid()


@pytest.fixture
def twins(monkeypatch):
    def make(ours, theirs):
        monkeypatch.setitem(gluon_nets.NETWORKS, "twins", (lambda: Twins(*ours), gluon_nets.pictures(1, 8)))
        return both("twins", TorchTwins(*theirs))

    return make


def test_layers_that_are_given_the_same_are_told_apart_by_name_or_not_at_all(twins):
    proposal = twins(("value", "gate"), ("gate_proj", "v")).propose()
    assert {target: source.name for target, source in proposal.mapping.sources.items()} == {
        "v.weight": "value.weight",
        "v.bias": "value.bias",
        "gate_proj.weight": "gate.weight",
        "gate_proj.bias": "gate.bias",
    }
    sides = twins(("a", "b"), ("x", "y"))
    proposal = sides.propose()
    assert not proposal.mapping.sources
    assert proposal.mapping.open["x.weight"] == ["a.weight", "b.weight"]
    told = proposal.mapping.problems(sides.run_shapes, sides.module_shapes)
    assert told[0].startswith("x.weight: is ?; it is one of a.weight, b.weight")
    assert len(told) == 4


def test_layers_without_a_counterpart_are_named():
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.Linear(32, 9))
    sides = both("mlp", module)
    proposal = sides.propose()
    told = "\n".join(proposal.problems)
    assert proposal.all_problems(sides.run_shapes, sides.module_shapes) == proposal.problems, "not array by array again"
    assert "the run's 1 (Dense) with weight (32, 32), bias (32,) has no counterpart" in told
    assert "the module's 2 (Linear) with weight (9, 32), bias (9,) has no counterpart" in told


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("[1]", "arrays.a: found [1]; give the name of an array, a number, or {from: name, ...}"),
        (
            "{axes: [0]}",
            "arrays.a: found {'axes': [0]}; it must have `from`, and may have axes, blocks, repeat and flat",
        ),
        ("{from: x, axes: [0, 2]}", "arrays.a: axes is [0, 2]; give each of 0 to 1 once"),
        ("{from: x, blocks: 3}", "arrays.a: blocks is 3; give a list of whole numbers"),
        ("{from: x, repeat: 0}", "arrays.a: repeat is 0; give a whole number from 1"),
        ("x}\nunusd: {b", "unusd: unknown key; known: module, arrays, unused"),
        ("x}\nunused: {b", "unused: found {'b': None}; give a list of the run's arrays"),
    ],
)
def test_an_entry_that_is_none_is_refused(entry, told, tmp_path):
    (tmp_path / "mapping.yaml").write_text(f"arrays: {{a: {entry}}}\n")
    with pytest.raises(ConfigError) as error:
        read_mapping(tmp_path / "mapping.yaml")
    assert str(error.value) == f"{tmp_path}/mapping.yaml:\n  {told}"


def test_a_source_that_does_not_fit_is_named():
    sides = both("mlp")
    mapping = sides.propose().mapping
    mapping.sources["1.weight"] = Source("0.weight", axes=(1, 0))
    with pytest.raises(
        ConfigError, match=r"arrays\.1\.weight: 0\.weight becomes \(64, 32\), and \(32, 64\) are wanted"
    ):
        sides.load(mapping)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (
            Source("0.wieght"),
            "1.weight: the run has no array '0.wieght'; did you mean '0.weight'? run match to see its",
        ),
        (Source("1.weight"), "1.weight: 1.weight becomes (32, 32), and (32, 64) are wanted"),
        (Source("0.weight[0:16]"), "1.weight: 0.weight[0:16] becomes (16, 64), and (32, 64) are wanted"),
        (Source("0.weight[0:99]"), "1.weight: 0.weight[0:99] are not rows of 0.weight, which has 32"),
        (Source("0.weight", axes=(0, 2, 1)), "1.weight: axes: [0, 2, 1] are not the 2 axes of 0.weight"),
        (Source("0.weight", blocks=(0, 2, 1)), "1.weight: blocks: 32 rows are not 3 equal blocks"),
        (Source("0.weight", flat=(3, 3, 7)), "1.weight: flat: [3, 3, 7] are 63 columns, and 0.weight has 64"),
    ],
)
def test_what_is_wrong_in_a_mapping_is_told_before_anything_is_loaded(source, told):
    sides = both("mlp")
    proposed = sides.propose().mapping
    mapping = replace(proposed, sources={**proposed.sources, "1.weight": source}, unused=["0.gamma"])
    problems = "\n".join(mapping.problems(sides.run_shapes, sides.module_shapes))
    assert told in problems
    assert "unused: the run has no array '0.gamma'; remove it" in problems


def test_numbers_are_put_where_pytorch_has_them():
    """Channels last, which MXNet computes on GPUs alone; columns behind them; rows, blocks and repetitions."""
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 3, in_channels=2, layout="NHWC"), nn.Dense(5))
    net[0].initialize()
    layers = layers_of(net[0])
    assert layers[0].shapes["weight"] == (4, 2, 3, 3)
    assert axes_of(net[0]) == {"weight": (0, 3, 1, 2)}
    weight = net[0].weight.data().asnumpy()
    assert weight.shape == (4, 3, 3, 2)
    moved = Source("weight", axes=(0, 3, 1, 2))({"weight": weight}, (4, 2, 3, 3))
    assert moved[3, 1, 0, 2] == weight[3, 0, 2, 1]

    dense = np.arange(2.0 * 24).reshape(2, 24)  # of (2, 3, 4): height, width, channels
    flat = Source("dense", flat=(2, 3, 4))({"dense": dense}, (2, 24))
    assert flat[1].reshape(4, 2, 3)[3, 1, 2] == dense[1].reshape(2, 3, 4)[1, 2, 3]
    rows = np.arange(6.0).reshape(6, 1)
    assert Source("rows", blocks=(2, 0, 1))({"rows": rows}, (6, 1))[:, 0].tolist() == [4, 5, 0, 1, 2, 3]
    assert Source("rows[2:4]", repeat=2)({"rows": rows}, (4, 1))[:, 0].tolist() == [2, 2, 3, 3]
    assert Source(number=1.0)({}, (2,)).tolist() == [1, 1]
