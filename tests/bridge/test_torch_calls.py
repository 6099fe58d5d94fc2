"""A user's module and loss: called, refused with one clear message, and the losses of Gluon's names in PyTorch."""

from __future__ import annotations

from types import SimpleNamespace

import mxnet as mx
import numpy as np
import pytest
import torch
from torch import nn

from harness.bridge.sides import TorchNames, torch_calls
from harness.bridge.torch_calls import TorchCalls, build_loss, load_module
from harness.errors import ConfigError
from harness.model.calls import Calls
from harness.model.networks import build_loss as build_gluon_loss
from tests.bridge import torch_nets

RANDOM = np.random.default_rng(8)
SCORES = RANDOM.normal(size=(6, 5)).astype(np.float32)
CLASSES = RANDOM.integers(5, size=6).astype(np.int32)
SHARES = RANDOM.dirichlet(np.ones(5), size=6).astype(np.float32)
YES = RANDOM.integers(2, size=(6, 5)).astype(np.float32)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    ("name", "params", "label"),
    [
        ("softmax_cross_entropy", {}, CLASSES),
        ("softmax_cross_entropy", {"sparse_label": False, "weight": 2.0}, SHARES),
        ("sigmoid_binary_cross_entropy", {}, YES),
    ],
)
def test_labels_are_smoothed_as_in_training(name, params, label, smoothing):
    gluon = build_gluon_loss(name, params, smoothing=smoothing)
    with mx.autograd.record(train_mode=True):
        expected = gluon(mx.nd.array(SCORES), mx.nd.array(label)).asnumpy()
    found = build_loss(name, params, -1, smoothing)(torch.from_numpy(SCORES), torch.from_numpy(label))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("label", [CLASSES, SHARES])
def test_the_loss_of_a_run_has_its_smoothing_and_its_kind_of_labels(label):
    """Which follows from what labels are, where `network.loss_params` says nothing."""
    section = SimpleNamespace(loss="softmax_cross_entropy", loss_params={}, forward=None, label_smoothing=0.2)
    gluon = build_gluon_loss(section.loss, {"sparse_label": label is CLASSES}, smoothing=0.2)
    names = TorchNames("torch.nn:Identity")
    found = torch_calls(SimpleNamespace(network=section), names, Calls(mx.gluon.nn.Dense(5), gluon))
    with mx.autograd.record(train_mode=True):
        expected = gluon(mx.nd.array(SCORES), mx.nd.array(label)).asnumpy()
    np.testing.assert_allclose(found(SCORES, label)[1].numpy(), expected, rtol=1e-5)


def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))


def scripted():
    return torch.jit.script(torch_nets.mlp())


def compiled():
    return torch.compile(torch_nets.mlp())


def on_meta():
    return torch_nets.mlp().to("meta")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Lazy modules")  # which PyTorch gives
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("lazy", "1.weight has no shape yet; give the layer its number of inputs, or call the module once before"),
        ("scripted", "returned a module that is compiled, of which layers cannot be seen; return it as it is before"),
        ("compiled", "returned a module that is compiled, of which layers cannot be seen; return it as it is before"),
        ("on_meta", "1.weight is on meta; return the module on the CPU"),
    ],
)
def test_a_module_of_which_layers_or_numbers_are_not_to_be_seen(name, told):
    with pytest.raises(ConfigError) as error:
        load_module(f"{__name__}:{name}", {})
    assert told in str(error.value)


class Pair(nn.Linear):
    def forward(self, x):
        return super().forward(x), x


@pytest.mark.parametrize(
    ("module", "loss", "told"),
    [
        (nn.Linear(4, 5), None, "cannot process the run's samples, float32 (6, 5) (RuntimeError: mat1 and mat2 shapes"),
        (Pair(5, 5), None, "Pair, or its loss, cannot process the run's samples, float32 (6, 5) (AttributeError"),
        (nn.Linear(5, 5), nn.CrossEntropyLoss(), "the module's loss: gave a tensor () for 6 samples; give one value a"),
        (nn.Linear(5, 5), lambda *_: None, "the module's loss: gave None for 6 samples; give one value a sample"),
    ],
)
def test_what_a_module_or_a_loss_cannot_do_is_one_sentence(module, loss, told):
    calls = TorchCalls(module, loss or build_loss("softmax_cross_entropy", {}, -1))
    with pytest.raises(ConfigError) as error:
        calls(SCORES, CLASSES.astype(np.int64))
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_the_line_of_the_user_is_named():
    def forward(module, loss, data, label):
        raise KeyError("mask")

    with pytest.raises(ConfigError, match=rf"\(KeyError at {__file__}:\d+: 'mask'\)"):
        TorchCalls(nn.Linear(5, 5), None, forward)(SCORES, CLASSES)
