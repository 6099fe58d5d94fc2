"""Jobs in the form of Gluon's clients, nested and called by functions of their own: one digest, wherever they run."""

from __future__ import annotations

import json
import re

import pytest

from tests.programs.clients import SETTINGS

PROGRAM = "tests/programs/clients.py"
NAMES = list(SETTINGS)


def digests_of(output: str) -> list[str]:
    found = re.findall(r"done after \d+ iterations, digest ([0-9a-f]{64})", output)
    assert len(found) == len(NAMES)
    return found


def results_of(output: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in re.findall(r"RESULTS (.*)$", output, re.MULTILINE)]


@pytest.fixture(scope="module")
def alone(start, tmp_path_factory):
    """Trained in one process: what it wrote, and where."""
    folder = tmp_path_factory.mktemp("clients")
    return start(PROGRAM, folder, "new", *NAMES).stdout, folder


def test_they_learn(alone):
    results = dict(zip(NAMES, results_of(alone[0]), strict=True))
    assert results["arcface"]["test.accuracy"] > 0.9
    assert results["triplets"]["test.loss"] < 0.6
    assert results["fcn"][f"test.{SETTINGS['fcn'][2].split(chr(39))[1]}"] > 0.6
    assert all(found["test.loss"] > 0 for found in results.values())
    assert "cannot be compiled" not in alone[0]


@pytest.mark.parametrize(("launcher", "ranks"), [("mpirun", 2), ("mpirun", 4), ("horovodrun", 2)])
def test_on_any_number_of_ranks(start, tmp_path, alone, launcher, ranks):
    out = start(PROGRAM, tmp_path, "new", *NAMES, np=ranks, launcher=launcher).stdout
    assert digests_of(out) == digests_of(alone[0])
    assert results_of(out) == results_of(alone[0])


@pytest.mark.parametrize("ranks", [None, 2])
def test_resumed_in_the_middle(start, tmp_path, alone, ranks):
    output, folder = alone
    more = {} if ranks is None else {"np": ranks, "launcher": "mpirun"}
    assert digests_of(start(PROGRAM, tmp_path, folder, *NAMES, **more).stdout) == digests_of(output)
