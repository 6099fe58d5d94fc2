"""`--smoke`: the run itself for three updates, in a folder of its own, and resumed to the same bits."""

from __future__ import annotations

import json
import re

import pytest

from harness.comm import SingleWorld
from harness.config import load_config
from harness.errors import ConfigError, DisagreementError, StoppedOnRequestError
from harness.folder import SMOKE
from harness.guard import Unguarded
from harness.train.loop import train
from harness.train.prepare import prepare_run
from harness.train.resume import StartOptions
from harness.train.smoke import Prepare, Stopwatch, smoke
from tests.programs.streams import SETTINGS as STREAMS
from tests.train.test_loop import Stopper

SETTINGS = (
    "network={name: cnn, params: {channels: [4], hidden: 8, batch_norm: true}}",
    "batch={size: 16, shards: 2}",
    "train={iterations: 12}",
    "checkpoint={every: 5it}",
    "evaluation={every: 4it, metrics: [accuracy]}",
    "log={every: 5it, tensorboard: false}",
    "threads_per_rank=1",
)
EMA, SWA = "ema={decay: 0.8, every: 2it, after: 4it}", "swa={every: 2it}"


@pytest.fixture
def config_of(tmp_path):
    def load(*settings, name="run"):
        return load_config("configs/digits.yaml", [*SETTINGS, f"output={tmp_path}", f"name={name}", *settings])

    return load


@pytest.fixture
def smoke_of(config_of):
    def run(*settings, resume="never", on_conflict="error", guard=None):
        given = Prepare(SingleWorld(), 1, None, guard or Unguarded())
        return smoke(config_of(*settings), given, StartOptions(resume, on_conflict=on_conflict), "error")

    return run


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def content_of(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def train_all(config):
    run = prepare_run(config, SingleWorld(), threads=1)
    train(run, "error")
    return run.folder.path


def test_it_is_the_run_for_three_updates(smoke_of, config_of, tmp_path):
    run = train_all(config_of("log.every=1it"))
    before = content_of(run)
    told = smoke_of()
    assert content_of(run) == before
    folder = tmp_path / "run.smoke"
    lines = lines_of(folder)
    assert [(line["split"], line["iteration"]) for line in lines] == [
        ("train", 1),
        ("train", 2),
        ("test", 2),
        ("train", 3),
        ("digest", 3),
    ]
    expected = {line["iteration"]: line for line in lines_of(run) if line["split"] == "train"}
    for line in lines:
        if line["split"] == "train":
            assert line["loss"] == expected[line["iteration"]]["loss"]
            assert line["lr"] == expected[line["iteration"]]["lr"]
    assert [path.name for path in folder.glob("checkpoints/iteration-*")] == ["iteration-000000002"]
    assert (folder / "final.params").exists()
    assert (folder / "report.html").exists() is (run / "report.html").exists()
    digest = next(line["digest"] for line in lines if line["split"] == "digest")
    assert told[0] == f"smoke test passed: iterations 1 to 3 of 12, in {folder}; {run} is as it was"
    assert [line.split(" s ")[0].split()[:-1] for line in told[1:]] == [
        ["set", "up"],
        ["updates"],
        ["evaluation"],
        ["checkpoint"],
        ["resumed"],
    ]
    assert told[-1].endswith(f"iteration 3 again, the same bits: digest {digest[:12]}")


def test_with_auto_it_goes_on_from_the_runs_newest_checkpoint_and_replaces_the_last_test(smoke_of, config_of, tmp_path):
    run = train_all(config_of("checkpoint={every: 5it, keep: 1}", "train={iterations: 5}"))
    before = content_of(run)
    smoke_of()
    (tmp_path / "run.smoke/left").mkdir()
    (tmp_path / "run.smoke/left/file").touch()
    told = smoke_of("train={iterations: 12}", resume="auto", on_conflict="config")
    assert told[0].startswith("smoke test passed: iterations 6 to 8 of 12")
    assert content_of(run) == before
    assert not (tmp_path / "run.smoke/left").exists()
    assert [line["iteration"] for line in lines_of(tmp_path / "run.smoke")] == [6, 7, 7, 8, 8]


def test_with_auto_and_without_a_run_it_begins_at_the_first_update(smoke_of):
    assert smoke_of(resume="auto")[0].startswith("smoke test passed: iterations 1 to 3 of 12")


@pytest.mark.parametrize(
    "settings",
    [
        [EMA, "checkpoint.best=loss"],
        [SWA],
        ["lr.plateau={patience: 1}", "train.early_stop={patience: 2}"],
        ["evaluation.every=null", "optimizer={name: adam, params: {}}"],
        ["checkpoint.every=null", "train={iterations: 3}"],
        ["devices=[cpu(0), cpu(1)]", "guard.divergence.policy=rewind"],
        [*STREAMS["reader"], "batch={size: 2, shards: 2}", "evaluation={every: 4it, metrics: []}"],
    ],
    ids=["ema", "swa", "plateau", "adam", "short", "devices", "streams"],
)
def test_it_works_with_what_a_run_may_have(smoke_of, tmp_path, settings):
    assert "the same bits" in smoke_of(*settings)[-1]
    averages = list(tmp_path.glob("run.smoke/checkpoints/iteration-000000002/averages*"))
    assert len(averages) == (settings[0] in (EMA, SWA))


def test_the_rate_is_found_if_the_run_would_find_it(smoke_of, tmp_path):
    network, finder = "network={name: mlp}", "finder={lr_start: 1e-4, lr_multiplier: 1.3}"
    told = smoke_of("lr={base: auto, schedule: 1x}", network, finder, "batch={size: 32, shards: 1}")
    assert "the same bits" in told[-1]
    assert (tmp_path / "run.smoke/finder/result.json").exists()


def test_a_run_that_cannot_be_resumed_to_the_same_bits_is_found(smoke_of):
    with pytest.raises(DisagreementError) as raised:
        smoke_of("network={name: 'tests.programs.forgets:numbered'}")
    said = str(raised.value)
    assert "run.smoke/checkpoints/iteration-000000002: a run that resumes here is not the one" in said
    assert re.search(r"iteration 3, train, unbroken: learning rate [\d.]+  loss ([\d.]+) .*\n.*loss (?!\1)", said)


def test_what_is_refused(smoke_of, tmp_path):
    with pytest.raises(ConfigError, match=r"--smoke does 3 updates, and this run has 2 left; make it longer"):
        smoke_of("train={iterations: 2}", "evaluation.every=1it", "lr={base: 0.1, schedule: 1x}")
    (tmp_path / "run.smoke" / SMOKE).unlink()
    with pytest.raises(ConfigError, match=r"run\.smoke: is no smoke test's \(it has no \.smoke\)"):
        smoke_of()
    assert (tmp_path / "run.smoke").is_dir()


def test_one_that_is_stopped_is_to_be_repeated(smoke_of):
    with pytest.raises(
        StoppedOnRequestError, match=r"saved after iteration 2; the smoke test has not ended; repeat it$"
    ):
        smoke_of(guard=Stopper("iteration 1"))


def test_the_stopwatch_gives_every_moment_to_one_part():
    times = iter([0, 1, 3, 6, 10, 15, 21])
    watch = Stopwatch(lambda: next(times))
    watch.begin(1)  # at 1
    watch.enter("evaluation")
    watch.enter("checkpoint")
    watch.begin(2)
    watch.enter("log")
    watch.end()
    assert watch.updates_s == [2, 11]
    assert watch.parts_s == {"evaluation": 3, "checkpoint": 4}


@pytest.mark.parametrize("launcher", ["mpirun", "horovodrun"])
def test_on_ranks(start, tmp_path, launcher):
    done = start("launch/train.py", "--smoke", "--set", f"output={tmp_path}", np=2, launcher=launcher)
    assert "smoke test passed: iterations 1 to 3 of 330" in done.stdout
    assert "data, plan, network and folder on 2 ranks" in done.stdout
    assert "iteration 3 again, the same bits: digest " in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits.smoke"]
    assert json.loads((tmp_path / "digits.smoke/outcome.json").read_text())["exit_code"] == 0
