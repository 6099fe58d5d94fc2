"""One update over shards and ranks in PyTorch: the gradient of the mean over all samples, whoever has how many."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import torch
from torch import nn

from harness.bridge.data import Shard, Update
from harness.bridge.updates import backward
from harness.comm import Launch
from harness.errors import ConfigError
from tests.conftest import ROOT
from tests.programs.torch_update import by_one, by_ranks, network, plain, samples, update_of, weighted

SIZES = [[8, 8, 8, 8], [8, 8, 5, 2], [8, 3, 0, 0], [9, 0, 0, 0], [7, 7]]  # the last shards are short, or empty


def check(found, sizes, loss):
    expected = by_one(sizes, loss)
    for key, values in expected.items():
        # sums in another order, of numbers around 1
        assert found[key] == pytest.approx(values, rel=1e-5, abs=1e-6), (sizes, loss.__name__, key)


@pytest.mark.parametrize("loss", [plain, weighted])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_one_process_has_the_gradient_of_the_mean(sizes, loss):
    check(by_ranks(sizes, loss, Launch(), is_parallel=False), sizes, loss)


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.thorough)])
def test_ranks_of_torchrun_have_it_too(size):
    lists = [sizes for sizes in SIZES if len(sizes) >= size]
    program = ROOT / "tests/programs/torch_update.py"
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={size}", program, json.dumps(lists)]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [json.loads(found) for _, found in sorted(re.findall(r"RANK (\d) (.*)", done.stdout))]
    assert len(ranks) == size
    cases = [(sizes, loss) for sizes in lists for loss in (plain, weighted)]
    for found in ranks:
        for one, (sizes, loss) in zip(found, cases, strict=True):
            check(one, sizes, loss)


def test_gradients_are_added_to_those_that_there_are():
    module, update = network(), update_of([4, 4], 0, 1)
    backward(module, update, plain)
    once = [one.grad.clone() for one in module.parameters()]
    module.load_state_dict(network().state_dict())
    backward(module, update, plain)
    for one, grad in zip(module.parameters(), once, strict=True):
        assert torch.allclose(one.grad, 2 * grad)


def test_a_function_may_call_both_and_data_may_be_nested():
    data, label = samples()
    module = nn.Linear(6, 3)

    def forward(module, loss, data, label):
        prediction = module(data["a"] + data["b"])
        return prediction, loss(prediction, label)

    nested = Update(1, (Shard(0, {"a": data, "b": data}, label),), len(data), 1, True, ())
    part = backward(module, nested, plain, forward)
    assert part.item() == pytest.approx(plain(module(2 * data), label).mean().item(), rel=1e-6)
    several = nn.Bilinear(6, 6, 3)
    pair = Update(1, (Shard(0, (data, data), label),), len(data), 1, True, ())
    assert backward(several, pair, plain).item() == pytest.approx(plain(several(data, data), label).mean().item())


@pytest.mark.parametrize(
    ("loss", "found"),
    [
        (lambda prediction, label: nn.functional.cross_entropy(prediction, label), "gave a tensor () for 8 samples"),
        (lambda prediction, label: prediction, "gave a tensor (8, 3) for 8 samples"),
        (lambda prediction, label: 0.5, "gave a float for 8 samples"),
    ],
)
def test_losses_of_another_form(loss, found):
    with pytest.raises(ConfigError) as error:
        backward(network(), update_of([8, 8], 0, 1), loss)
    assert f"backward: loss: {found}; give one value a sample (reduction='none')" in str(error.value)


def test_ranks_that_would_not_sum(monkeypatch):
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    with pytest.raises(ConfigError, match=r"Sequential is alone on each of 2 ranks; wrap it in DistributedDataPara"):
        backward(network(), update_of([8, 8], 0, 1), plain)
