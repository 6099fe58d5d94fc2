"""Learning rates by depth: which layer a parameter is in, and what a configuration says of it."""

from __future__ import annotations

import pytest

from harness.config import parse_config
from harness.errors import ConfigError
from harness.plan.layers import describe_factors, layer_factors

BERT = [
    "word_embed.weight",
    "position_embed",
    *(f"encoder.cells.{k}.{name}" for k in range(12) for name in ("attention.weight", "norm.gamma")),
    "pooler.weight",
    "classifier.bias",
]
LAYERS = [["word_embed.*", "position_embed"], "encoder.cells.#.*"]


def test_each_layer_has_the_rate_of_the_next_times_the_factor():
    found = layer_factors(0.9, LAYERS, BERT)
    # as timm and BEiT count: the input is layer 0, block k is layer k + 1, the head is layer 13
    assert found["word_embed.weight"] == found["position_embed"] == 0.9**13
    for k in range(12):
        assert found[f"encoder.cells.{k}.norm.gamma"] == found[f"encoder.cells.{k}.attention.weight"] == 0.9 ** (12 - k)
    assert found["pooler.weight"] == found["classifier.bias"] == 1.0
    assert list(found) == BERT


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (["a.*", "b.*"], {"a.w": 0.25, "b.0.w": 0.5, "b.2.w": 0.5, "b.10.w": 0.5, "c.3.7.w": 1, "c.12.1.w": 1}),
        # numbers in ascending order, not as text; gaps are no layers
        (["b.#.w"], {"a.w": 1, "b.0.w": 0.125, "b.2.w": 0.25, "b.10.w": 0.5, "c.3.7.w": 1, "c.12.1.w": 1}),
        (["b*#.w"], {"a.w": 1, "b.0.w": 0.125, "b.2.w": 0.25, "b.10.w": 0.5, "c.3.7.w": 1, "c.12.1.w": 1}),
        # a number is matched as a whole, and several count as one place after the other
        (["*.#.#.w"], {"a.w": 1, "b.0.w": 1, "b.2.w": 1, "b.10.w": 1, "c.3.7.w": 0.25, "c.12.1.w": 0.5}),
        (["c.*#.w"], {"a.w": 1, "b.0.w": 1, "b.2.w": 1, "b.10.w": 1, "c.3.7.w": 0.5, "c.12.1.w": 0.25}),
        ([["a.*", "b.0.w"]], {"a.w": 0.5, "b.0.w": 0.5, "b.2.w": 1, "b.10.w": 1, "c.3.7.w": 1, "c.12.1.w": 1}),
        # layers are numbered across the patterns of an item: 0, 2, 3, 10, 12
        (
            [["b.#.*", "c.#.*"]],
            {"a.w": 1, "b.0.w": 1 / 32, "b.2.w": 1 / 16, "b.10.w": 0.25, "c.3.7.w": 0.125, "c.12.1.w": 0.5},
        ),
    ],
)
def test_which_parameters_are_a_layer(layers, expected):
    names = ["a.w", "b.0.w", "b.2.w", "b.10.w", "c.3.7.w", "c.12.1.w"]
    assert layer_factors(0.5, layers, names) == expected


def test_frozen_layers_count():
    assert layer_factors(0.5, ["cells.#.w"], ["cells.1.w", "head"], ["cells.0.w"]) == {"cells.1.w": 0.5, "head": 1.0}
    assert layer_factors(0.5, ["embed", "cells.#.w"], ["cells.1.w", "head"], ["embed", "cells.0.w"]) == {
        "cells.1.w": 0.5,
        "head": 1.0,
    }


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            ["enbed.*", "cells.#.w"],
            "the pattern 'enbed.*' (as in a shell; # is a number) matches no parameter; did you mean 'embed.w'? the "
            "parameters are embed.w, cells.0.w, head.w",
        ),
        (
            ["cells.#.b", "embed.*"],
            "the pattern 'cells.#.b' (as in a shell; # is a number) matches no parameter; did you mean 'cells.0.w'? "
            "the parameters are embed.w, cells.0.w, head.w",
        ),
        (
            ["*.w", "cells.#.w"],
            "cells.0.w is in two layers, by '*.w' and by 'cells.#.w'; a parameter has one depth, so narrow one of the "
            "patterns",
        ),
        (
            ["embed.*", "cells.#.w", ["head.*"]],
            "every parameter is in a layer, so none has the learning rate itself; leave out the last layer (head.*), "
            "which then has the factor 1",
        ),
    ],
)
def test_layers_that_are_none_are_refused(layers, message):
    with pytest.raises(ConfigError) as caught:
        layer_factors(0.9, layers, ["embed.w", "cells.0.w", "head.w"])
    assert str(caught.value) == f"optimizer.layer_decay.layers: {message}"


def section(**optimizer):
    raw = {"train": {"epochs": 1}, "network": {"name": "mlp"}, "lr": {"schedule": 0.1}, "optimizer": optimizer}
    return parse_config(raw).optimizer


def test_what_a_configuration_says_in_words():
    assert describe_factors(section()) == []
    assert describe_factors(section(decay_bias_and_norm=True, params={"wd": 0.1})) == []
    assert describe_factors(
        section(
            lr_mult={"head.*": 10.0, "*.bias": 2.0},
            layer_decay={"rate": 0.9, "layers": [["embed.*", "position"], "cells.#.*"]},
            wd_mult={"*.gamma": 1.0},
        )
    ) == [
        "learning rate by name: x 10 for head.*, x 2 for *.bias",
        "learning rate by layer: x 0.9 more with every layer from the output to the input: cells.#.* (a layer for each "
        "#), embed.* and position; x 1 for all others",
        "weight decay by name: x 1 for *.gamma",
    ]
    assert describe_factors(section(layer_decay={"rate": 0.5, "layers": ["a.*", ["b.*", "c"]]})) == [
        "learning rate by layer: x 0.25 for a.*, x 0.5 for b.* and c; x 1 for all others"
    ]
