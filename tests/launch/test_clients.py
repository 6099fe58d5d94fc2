"""Jobs in the form of Gluon's clients, nested and called by functions of their own: one digest, wherever they run."""

from __future__ import annotations

import json
import re

import pytest

from tests.programs.clients import HERE, SETTINGS, digests_of, results_of, settings_of

PROGRAM = "tests/programs/clients.py"
NAMES = list(SETTINGS)
QUICK = "finder={lr_start: 1e-3, lr_end: 100, lr_multiplier: 1.2}"


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


@pytest.mark.thorough
@pytest.mark.parametrize(("launcher", "ranks"), [("mpirun", 2), ("mpirun", 4), ("horovodrun", 2)])
def test_on_any_number_of_ranks(start, tmp_path, alone, launcher, ranks):
    out = start(PROGRAM, tmp_path, "new", *NAMES, np=ranks, launcher=launcher).stdout
    assert digests_of(out, NAMES) == digests_of(alone[0], NAMES)
    assert results_of(out) == results_of(alone[0])


@pytest.mark.parametrize("ranks", [*(pytest.param(ranks, marks=pytest.mark.thorough) for ranks in (None, 2)), 4])
def test_resumed_in_the_middle(start, tmp_path, alone, ranks):
    """Ranks need not train from the beginning to show that they add up the same; horovodrun's sum by MPI too."""
    more = {} if ranks is None else {"np": ranks, "launcher": "mpirun"}
    output, folder = alone
    again = start(PROGRAM, tmp_path, folder, *NAMES, **more).stdout
    assert digests_of(again, NAMES) == digests_of(output, NAMES)
    assert results_of(again) == results_of(output)


@pytest.mark.parametrize("ranks", [None, 2])
def test_updates_without_weight_are_logged(launch, tmp_path, ranks):
    words = [*settings_of("tasks"), f"network.loss={HERE}:no_weights", "train={iterations: 3}", f"output={tmp_path}"]
    settings = [word for one in [*words, "checkpoint.every=2it"] for word in ("--set", one)]
    more = {} if ranks is None else {"np": ranks, "launcher": "mpirun"}
    done = launch("launch/train.py", *settings, **more)
    for t in (1, 2, 3):
        assert f"iteration {t}: every weight of the loss is 0; nothing was updated" in done.stdout + done.stderr
    lines = [json.loads(line) for line in (tmp_path / "tasks" / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines if line["split"] == "weightless"] == [1, 2, 3]
    assert all(line["split"] != "train" for line in lines)
    assert "nothing updated: every weight of the loss is 0" in (tmp_path / "tasks" / "report.html").read_text()
    place = tmp_path / "tasks" / "checkpoints" / "iteration-000000002"
    assert json.loads((place / "manifest.json").read_text())["state"]["weightless"] == 2
    again = launch("launch/train.py", *settings, "--set", "name=again", "--resume", place, **more)
    (digest,) = re.findall(r"digest ([0-9a-f]{64})", done.stdout)
    assert digest in again.stdout


@pytest.mark.parametrize("ranks", [None, 2])
@pytest.mark.parametrize(
    ("name", "setting", "code", "said"),
    [
        ("tasks", "network.forward=null", 2, "network.forward: data is a dict"),
        ("tasks", f"network.loss={HERE}:below_0", 2, "iteration 1: network.loss: a weight is below 0"),
        ("tasks", f"data.name={HERE}:uneven_tasks", 3, "data['ids'] has shape (5,) and label['values'] (96, 3)"),
    ],
)
def test_wrong_uses_end_every_rank_with_one_message(launch, tmp_path, name, setting, code, said, ranks):
    words = [*settings_of(name), setting, f"output={tmp_path}"]
    more = {} if ranks is None else {"np": ranks, "launcher": "mpirun"}
    done = launch("launch/train.py", *(word for one in words for word in ("--set", one)), exit_code=code, **more)
    assert said in done.stderr
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr


def test_the_finder_finds_the_same_and_puts_everything_back(launch, tmp_path):
    words = [*settings_of("tasks"), "optimizer={name: sgd, params: {}}", QUICK, f"output={tmp_path}"]
    settings = [word for one in words for word in ("--set", one)]
    runs = {}, {"np": 2, "launcher": "mpirun"}
    outputs = [launch("launch/find_lr.py", "--overwrite", *settings, **more).stdout for more in runs]
    found = [re.findall(r"suggested: .*|state restored: digest \w+ unchanged", output) for output in outputs]
    assert len(found[0]) == 2
    assert found[0] == found[1]
