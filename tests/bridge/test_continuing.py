"""Runs as ranks of torchrun open them: by an amended plan, in a folder that is left alone, the same on every rank."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
import torch

from harness.bridge.continuing import open_run
from harness.bridge.data import TrainingBatches
from harness.bridge.rates import as_torch
from harness.comm import Launch
from harness.errors import CheckpointError, ConfigError, DisagreementError

OLD = Path(__file__).parents[1] / "data" / "version_0_1"  # rewound after iteration 8, longer from 16 on, saved after 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("runs") / "written"
    shutil.copytree(OLD, found)
    return found


def test_a_checkpoint_whose_plan_was_amended(folder):
    before = sorted(folder.rglob("*"))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    with open_run(folder / "checkpoints") as run:
        assert run.iteration == 20
        rates = as_torch(run.plan, optimizer, iteration=20)
        applied = {}
        for t in range(21, run.sizes.num_iterations + 1):
            applied[t] = optimizer.param_groups[0]["lr"]
            optimizer.step()
            rates.step()
        assert [update.t for update in TrainingBatches(run, end=22)] == [21, 22]
    assert sorted(folder.rglob("*")) == before
    rows = list(csv.DictReader((OLD / "plan.csv").read_text().splitlines()))
    assert applied == {int(row["iteration"]): float(row["lr"]) for row in rows if int(row["iteration"]) > 20}
    assert len(applied) > 3


def test_other_settings_follow_the_choice(folder):
    with open_run(folder, ["lr.base=0.02"]) as run, open_run(folder) as as_it_was:
        assert run.plan.fingerprint() == as_it_was.plan.fingerprint()
    with open_run(folder, ["lr.base=0.02"], on_conflict="config") as run:
        assert run.plan.lr(20) == as_it_was.plan.lr(20)
        assert run.plan.fingerprint() != as_it_was.plan.fingerprint()
    with pytest.raises(CheckpointError, match=r"was trained with another plan"):
        open_run(folder, ["lr.base=0.02"], on_conflict="error")
    with pytest.raises(CheckpointError, match=r"seed"):
        open_run(folder, ["seed=7"])


def test_a_checkpoint_without_its_run(folder, tmp_path):
    alone = tmp_path / "alone" / "checkpoints"
    shutil.copytree(folder / "checkpoints", alone)
    with pytest.raises(CheckpointError, match=r"alone: has no config.yaml; give the folder of a run"):
        open_run(alone)


@pytest.fixture
def two_ranks(monkeypatch):
    """A process group of two, of which the other rank has what `change` makes of this one's facts."""

    def make(change):
        def gather(everyone, own):
            everyone[:] = [own, {**own, **change}]

        monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
        monkeypatch.setattr("torch.distributed.get_rank", lambda: 0)
        monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
        monkeypatch.setattr("torch.distributed.all_gather_object", gather)

    return make


def test_ranks_compare_what_they_have_opened(folder, two_ranks):
    launch = Launch("torchrun", 0, 2, 0, 2)
    two_ranks({})
    open_run(folder, launch=launch).close()
    two_ranks({"training data": "other", "iteration": 16})
    with pytest.raises(DisagreementError, match=r"(?s)the ranks do not agree.*iteration.*training data.*same run"):
        open_run(folder, launch=launch)
    with pytest.raises(ConfigError, match=r"has rank 0 of 2, but this is rank 0 of 1 by its launcher \(plain python\)"):
        open_run(folder, launch=Launch())
