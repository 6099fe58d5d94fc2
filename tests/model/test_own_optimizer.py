"""Optimizers of the user's own: what is found out about good ones, and what bad ones are told."""

from __future__ import annotations

import random

import mxnet as mx
import numpy as np
import pytest

from harness.errors import ConfigError
from harness.model.optimizers import build_optimizer, traits_of
from harness.model.own_optimizer import Traits
from tests.programs.own_optimizers import Bad, Deaf, Dividing, Lion, Noisy

OWN = "tests.programs.own_optimizers"
WHO = "optimizer: Bad: "


def parameters(lr_mult=1.0, wd_mult=1.0):
    found = [mx.gluon.Parameter(f"p{len(shape)}", shape=shape) for shape in ((7,), (3, 2), (2, 3, 4, 4))]
    for one in found:
        one.lr_mult, one.wd_mult = lr_mult, wd_mult
    return found


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (Lion(), Traits(False, False, (), True)),
        (Lion(clip_gradient=0.1, wd=0.1), Traits(False, False, (), True)),
        (Noisy(0.1), Traits(True, False, ("product", "steps"), True)),
        (Dividing(), Traits(False, True, (), True)),
        (Deaf(), Traits(False, False, (), False)),
        (mx.optimizer.SGD(), Traits(False, False, (), True)),
        (mx.optimizer.Nadam(), Traits(False, False, ("m_schedule",), True)),
        (mx.optimizer.SGLD(), Traits(True, True, (), True)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_known_of_an_optimizer(optimizer, expected):
    assert traits_of(optimizer, parameters(0.5, 0.0)) == expected
    assert optimizer.num_update == 0
    assert optimizer._index_update_count == {}


class Counting(mx.optimizer.Nadam):
    """Nadam as a class of one's own: what the probe finds is what the table says of MXNet's."""


def test_the_probe_finds_what_the_table_says():
    assert traits_of(Counting(), parameters()).scalars == traits_of(mx.optimizer.Nadam(), parameters()).scalars


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            "number as state",
            "create_state gave a float; give None, an array of mx.nd, or a tuple of such arrays, which is what a "
            "checkpoint holds",
        ),
        (
            "sparse state",
            "create_state gave a row_sparse array; give None, an array of mx.nd, or a tuple of such arrays, which is "
            "what a checkpoint holds",
        ),
        (
            "raises",
            "raised RuntimeError for weights of the shapes (5,), (4, 3), (4, 3, 2, 2) (the weights are on strike)",
        ),
        ("new weight", "changes no weight; update(index, weight, grad, state) writes to the weight that it is given"),
        ("not finite", "makes weights or a state that are not finite, from gradients between -1 and 1"),
        *(
            (
                how,
                "gives other bits from the same weights and gradients: it reads a clock, draws from NumPy's or "
                "Python's generator or one of its own, or draws in create_state; draw with mx.nd.random in update, "
                "for which every worker is seeded alike",
            )
            for how in ("clock", "numpy", "module")
        ),
        (
            "own generator",
            "keeps something that no checkpoint holds (draws), so a resumed run would end with other bits; let "
            "create_state return all arrays that last from one update to the next, and let other things be plain "
            "numbers that __init__ sets",
        ),
        (
            "kept",
            "keeps something that no checkpoint holds (draws, kept), so a resumed run would end with other bits; let "
            "create_state return all arrays that last from one update to the next, and let other things be plain "
            "numbers that __init__ sets",
        ),
        (
            "no rescaling",
            "does not multiply gradients by self.rescale_grad; they come as sums over all samples, and rescale_grad is "
            "what makes means of them",
        ),
        (
            "own rate",
            "does not follow the factors of lr_mult and layer_decay; take the rate of a weight from "
            "self._get_lr(index) instead of self.lr",
        ),
        (
            "own decay",
            "does not follow the factors of weight decay, which is 0 for biases and norms by default; take the decay "
            "of a weight from self._get_wd(index), or set optimizer.decay_bias_and_norm: true",
        ),
        (
            "no clipping",
            "does not clip by self.clip_gradient, so optimizer.clip_value has no effect; use optimizer.clip_norm, or "
            "clip in update",
        ),
    ],
)
def test_what_no_run_could_repeat_resume_or_share_is_refused(how, message):
    with pytest.raises(ConfigError) as caught:
        traits_of(Bad(how, wd=0.1, clip_gradient=0.1), parameters(0.5, 0.0))
    assert str(caught.value) == WHO + message


@pytest.mark.parametrize("how", ["own rate", "own decay"])
def test_factors_of_1_need_not_be_followed(how):
    traits_of(Bad(how, wd=0.1), parameters())


def test_no_generator_is_left_changed():
    before = random.getstate(), np.random.get_state()[1].tobytes()
    traits_of(Noisy(0.1), parameters())
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == before


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        (f"{OWN}:Lyon", {}, f"optimizer.name: '{OWN}:Lyon': no such name in "),
        (f"{OWN}:Lyon", {}, "did you mean 'Lion'? name a class"),
        (f"{OWN}:", {}, "incomplete; write it as package.module:class"),
        (f"{OWN}:build", {}, f"optimizer.name: '{OWN}:build' is a function; name a subclass of mx.optimizer.Optimizer"),
        (
            f"{OWN}:NotOne",
            {},
            f"optimizer.name: '{OWN}:NotOne' is the class NotOne; name a subclass of mx.optimizer.Optimizer",
        ),
        (
            "mxnet.optimizer:Adam",
            {},
            "optimizer.name: 'mxnet.optimizer:Adam' is not a class of your own; use its name, 'adam'",
        ),
        (f"{OWN}:Lion", {"beta": 1}, "optimizer.params: {'beta': 1} is not accepted (TypeError: "),
        (
            f"{OWN}:Lion",
            {"beta2": 1.0},
            "optimizer.params.beta2: found 1.0; must be a number of at least 0 and below 1",
        ),
    ],
)
def test_what_is_no_optimizer_is_refused(name, params, message):
    with pytest.raises(ConfigError) as caught:
        build_optimizer(name, params)
    assert message in str(caught.value)


def test_one_that_wants_a_rate_gets_one():
    optimizer = build_optimizer(f"{OWN}:Noisy", {"wd": 0.1}, clip_value=0.5)
    assert (optimizer.wd, optimizer.clip_gradient, type(optimizer).__name__) == (0.1, 0.5, "Noisy")
