"""A generator and a discriminator on ranks: one digest wherever they run, resumed from one checkpoint."""

from __future__ import annotations

import json
import re

import pytest

PROGRAM = "tests/programs/gan.py"


def found(output):
    ((digest, losses),) = map(json.loads, re.findall(r"FOUND (.*)$", output, re.MULTILINE))
    return digest, losses


@pytest.fixture(scope="module", params=["given", "whole"])
def alone(request, start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gan")
    return start(PROGRAM, folder, "new", request.param).stdout, folder, request.param


@pytest.mark.thorough
@pytest.mark.parametrize(("launcher", "ranks"), [("mpirun", 2), ("mpirun", 4), ("horovodrun", 2)])
def test_on_any_number_of_ranks(start, tmp_path, alone, launcher, ranks):
    out = start(PROGRAM, tmp_path, "new", alone[2], np=ranks, launcher=launcher).stdout
    assert found(out) == found(alone[0])


@pytest.mark.parametrize("ranks", [*(pytest.param(ranks, marks=pytest.mark.thorough) for ranks in (None, 2)), 4])
def test_resumed_in_the_middle(start, tmp_path, alone, ranks):
    """Ranks need not train from the beginning to show that they add up the same; horovodrun's sum by MPI too."""
    more = {} if ranks is None else {"np": ranks, "launcher": "mpirun"}
    output, folder, kind = alone
    again = start(PROGRAM, tmp_path, folder / "iteration-000000005", kind, **more).stdout
    assert found(again) == found(output)


def test_ranks_that_train_other_parts(start, tmp_path):
    done = start(PROGRAM, tmp_path, "new", "apart", np=2, launcher="mpirun", exit_code=None, timeout_s=120)
    assert done.returncode
    assert "DisagreementError: parameters: the ranks do not agree" in done.stderr
    assert "generator.0.weight, generator.0.bias are trained" in done.stderr
