"""What a run may be when it resumes: another number of workers, another plan by choice, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from harness.checkpoint import write_checkpoint
from harness.comm import SingleWorld
from harness.config import load_config
from harness.errors import CheckpointError
from harness.train.prepare import prepare_run
from harness.train.resume import StartOptions, refuse_newer_elsewhere

ROOT = Path(__file__).parents[2]

SMALL = (
    "network={name: cnn, params: {channels: [8], hidden: 16, dropout: 0.3, batch_norm: true}}",
    "data.augment={pad_crop: 1, flip: true}",
    "batch={size: 8, shards: 4}",
    "train={iterations: 120}",
    "evaluation.every=50it",
    "checkpoint={every: 20it, keep: 10}",
    "threads_per_rank=1",
)


def words(*settings):
    return [word for setting in settings for word in ("--set", setting)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of an unbroken run of 120 iterations under two ranks; copied by whoever changes it."""
    return tmp_path_factory.mktemp("unbroken")


@pytest.fixture
def unbroken(start, finished):
    if not (finished / "out.txt").exists():
        logs = finished / "logs"
        done = start(
            "tests/programs/logged_train.py", logs, *words(*SMALL, f"output={finished}"), np=2, launcher="mpirun"
        )
        (finished / "out.txt").write_text(done.stdout)
    return finished


@pytest.fixture
def copy(unbroken, tmp_path):
    shutil.copytree(unbroken / "digits", tmp_path / "digits")
    return tmp_path


def digest_in(text):
    return re.search(r"digest ([0-9a-f]{64})", text)[1]


def shards_in(logs):
    found = {}
    for file in logs.glob("*.jsonl"):
        for line in file.read_text().splitlines():
            t, shard, bits = json.loads(line)
            found[t, shard] = bits
    return found


def metrics_of(folder):
    clocks = ("time", "images_per_s")
    lines = (folder / "digits" / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in clocks} for line in lines]


@pytest.mark.parametrize(
    ("np", "options"),
    [(None, []), (4, []), pytest.param(None, ["--emulate-np", "4"], marks=pytest.mark.thorough)],
)
def test_another_number_of_workers_plays_the_same_samples(start, unbroken, copy, np, options):
    resume = ["--resume", copy / "digits/checkpoints/iteration-000000060"]
    settings = words(*SMALL, f"output={copy}")
    done = start("tests/programs/logged_train.py", copy / "logs", *settings, *resume, *options, np=np)
    played, expected = shards_in(copy / "logs"), shards_in(unbroken / "logs")
    assert set(played) == {(t, s) for t in range(61, 121) for s in range(4)}
    assert all(played[key] == expected[key] for key in played)
    assert digest_in(done.stdout) == digest_in((unbroken / "out.txt").read_text())
    assert metrics_of(copy) == metrics_of(unbroken)
    assert "no longer part of this run: moved " in done.stdout
    assert sorted(path.name for path in (copy / "digits/checkpoints/aside").iterdir()) == [
        f"iteration-{n:09d}" for n in (80, 100, 120)
    ]


def test_five_workers_are_too_many_for_four_shards(here, copy):
    arguments = [*words(*SMALL, f"output={copy}"), "--resume", "auto"]
    emulated = here("launch/train.py", *arguments, "--emulate-np", "5", exit_code=4)
    assert "4 shards of 8, too few for 5 workers; resume with at most 4 workers" in emulated.stderr
    assert "Traceback" not in emulated.stderr


def test_shards_null_means_those_of_the_checkpoint(here, copy):
    small = [setting for setting in SMALL if not setting.startswith("batch=")]
    done = here("launch/train.py", *words(*small, "batch.size=8", f"output={copy}"), "--resume", "auto")
    assert "120 iterations of 4 x 8" in done.stdout


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ("batch.shards=2", ["batch.shards: 4 -> 2", "fixed for the life of a run"]),
        ("batch.size=16", ["batch.size: 8 -> 16"]),
        ("seed=1", ["seed: 0 -> 1"]),
        ("data.augment.flip=false", ["data.augment.flip: True -> False"]),
        ("data.validation=100", ["data.validation: 0 -> 100"]),
        ("train={iterations: 120, last_batch: keep}", ["train.last_batch: drop -> keep"]),
        ("optimizer.name=nag", ["state of another optimizer", "optimizer.name: sgd -> nag", "init.from="]),
        ("optimizer.name=adam", ["optimizer.name: sgd -> adam"]),
        ("train.iterations=100", ["120 iterations into its run, which would now end after 100", "earlier checkpoint"]),
    ],
)
def test_what_cannot_change(copy, change, parts):
    other = ("optimizer.params={}",) if change.startswith("optimizer") else ()  # whose parameters differ as well
    config = load_config(ROOT / "configs/digits.yaml", [*SMALL, change, *other, f"output={copy}"])
    for policy in ("error", "config"):
        with pytest.raises(CheckpointError) as refused:
            prepare_run(config, SingleWorld(), threads=1, start=StartOptions("auto", on_conflict=policy))
        for part in parts:
            assert part in str(refused.value)
        assert not (copy / "digits/checkpoints/aside").exists()


def test_another_network_names_every_array_that_does_not_fit(here, copy):
    network = "network={name: cnn, params: {channels: [12, 4], hidden: 16, dropout: 0.3, batch_norm: true}}"
    done = here("launch/train.py", *words(*SMALL, network, f"output={copy}"), "--resume", "auto", exit_code=4)
    assert "does not fit this network and optimizer" in done.stderr
    assert "is float32 (8, 1, 3, 3), expected float32 (12, 1, 3, 3)" in done.stderr
    assert "is missing" in done.stderr
    assert "/0 is" in done.stderr  # its slot as well
    assert "network.params" in done.stderr


def test_where_the_plan_differs_the_user_chooses(here, copy):
    longer = [*words(*SMALL, "train.iterations=160", "lr.base=0.2", f"output={copy}"), "--resume", "auto"]
    refused = here("launch/train.py", *longer, exit_code=4).stderr
    for part in (
        "train.iterations: 120 -> 160",
        "lr.base: 0.1 -> 0.2",
        "learning rate at iteration",
        "by the saved plan",
        "ended",
        "--on-conflict config",
        "--on-conflict checkpoint",
        "init.from=",
    ):
        assert part in refused
    table = [
        line.split()[-3:] for line in refused.splitlines() if "learning rate at" in line or line.startswith("  by ")
    ]
    assert [row[2] for row in table] == ["121", "ended", table[2][2]]
    assert table[0] == ["119", "120", "121"]
    assert float(table[1][1]) != float(table[2][1])
    kept = here("launch/train.py", *longer, "--on-conflict", "checkpoint").stdout
    assert "done after 120 iterations" in kept

    done = here("launch/train.py", *longer, "--on-conflict", "config").stdout
    assert "done after 160 iterations" in done
    state = json.loads((copy / "digits/checkpoints/iteration-000000160/manifest.json").read_text())["state"]
    (amendment,) = state["amendments"]
    assert (amendment["iteration"], amendment["choice"]) == (120, "config")
    assert amendment["changes"] == {"train.iterations": [120, 160], "lr.base": [0.1, 0.2]}
    rows = [line.split(",") for line in (copy / "digits/plan.csv").read_text().splitlines()[1:]]
    logged = {line["iteration"]: line["lr"] for line in metrics_of(copy) if line["split"] == "train"}
    assert len(rows) == 160
    for iteration, _, lr, _ in rows:  # before the change by the old plan, after it by the new one
        if int(iteration) in logged:
            assert logged[int(iteration)] == float(lr)

    again = here("launch/train.py", *longer).stdout  # an amended set agrees with the configuration it was amended by
    assert "done after 160 iterations" in again
    assert digest_in(again) == digest_in(done)


def test_what_may_change_freely(here, copy):
    free = ("log.every=1it", "checkpoint.keep=2", "evaluation.every=30it", "network.hybridize=false", "init.from=gone")
    done = here("launch/train.py", *words(*SMALL, *free, f"output={copy}"), "--resume", "auto")
    assert "done after 120 iterations" in done.stdout


def test_other_data_are_noticed(start, tmp_path, monkeypatch):
    settings = words(
        "data={name: 'tests.programs.two_data_sets:load', params: {which: 1}}",
        "network={name: mlp, params: {hidden: [4]}}",
        "train={iterations: 20}",
        f"output={tmp_path}",
    )
    start("launch/train.py", *settings)
    # the same parameters, but the file behind them says something else
    done = start("launch/train.py", *settings, "--resume", "auto", exit_code=4, OTHER_DATA="1")
    assert "the training data are not those that" in done.stderr


def test_a_fork_begins_in_a_folder_of_its_own(here, unbroken, tmp_path):
    source = unbroken / "digits/checkpoints/iteration-000000040"
    settings = words(*SMALL, f"output={tmp_path}", "name=fork")
    done = here("launch/train.py", *settings, "--resume", source)
    assert digest_in(done.stdout) == digest_in((unbroken / "out.txt").read_text())
    lines = map(json.loads, (tmp_path / "fork/metrics.jsonl").read_text().splitlines())
    # the first lines after iteration 40: of the end of an epoch, and of every ten
    assert [(line["split"], line["iteration"]) for line in lines][:2] == [("digest", 44), ("train", 50)]
    assert not (unbroken / "digits/checkpoints/aside").exists()


def test_a_new_run_from_the_weights_of_a_checkpoint(here, unbroken, tmp_path):
    settings = words(*SMALL, f"output={tmp_path}", f"init.from={unbroken / 'digits'}")
    out = here("launch/train.py", "--evaluate-only", *settings).stdout
    last = [line for line in metrics_of(unbroken) if line["split"] == "test"][-1]
    assert f"accuracy {last['accuracy']:.4f}" in out
    assert "done after 120" in here("launch/train.py", *settings).stdout


def test_damaged_checkpoints_are_passed_over_and_kept_aside(here, unbroken, copy):
    sets = copy / "digits/checkpoints"
    for number, file in ((120, "params.safetensors"), (100, "manifest.json")):
        path = sets / f"iteration-{number:09d}" / file
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(content)
    done = here("launch/train.py", *words(*SMALL, f"output={copy}"), "--resume", "auto")
    assert "resuming after iteration 80" in done.stdout
    assert "params.safetensors has sha256" in done.stdout
    assert "manifest.json and manifest.sha256 do not fit together" in done.stdout
    assert digest_in(done.stdout) == digest_in((unbroken / "out.txt").read_text())
    assert metrics_of(copy) == metrics_of(unbroken)

    for path in sets.glob("iteration-*/manifest.sha256"):
        path.unlink()
    done = here("launch/train.py", *words(*SMALL, f"output={copy}"), "--resume", "auto", exit_code=4)
    assert "no valid checkpoint" in done.stderr
    assert done.stderr.count("manifest.sha256 cannot be read") == 6
    assert len(list(sets.glob("iteration-*"))) == 6


def test_resume_auto_of_nothing_begins(here, tmp_path):
    settings = words(*SMALL, "train.iterations=20", f"output={tmp_path}")
    first = here("launch/train.py", *settings, "--resume", "auto").stdout
    shutil.rmtree(tmp_path / "digits/checkpoints")  # as if it had been killed before its first set
    (tmp_path / "digits/final.params").unlink()
    second = here("launch/train.py", *settings, "--resume", "auto").stdout
    assert digest_in(first) == digest_in(second)
    trained = [line["iteration"] for line in metrics_of(tmp_path) if line["split"] == "train"]
    assert trained == [1, 10, 20]


def test_without_a_shared_disk_rank_0_resumes_where_its_checkpoints_are(start, tmp_path):
    """Each rank has a disk of its own; started in the other order, rank 0 finds nothing and does not start over."""
    hosts = [tmp_path / name for name in ("a.yaml", "b.yaml")]
    for file in hosts:
        text = (ROOT / "configs/digits.yaml").read_text()
        file.write_text(f"{text}\nname: digits\noutput: {tmp_path / file.stem}\n")
    settings = ["--", *words(*SMALL, "train.iterations=40"), "--resume", "auto"]
    first = start("tests/programs/other_config.py", *hosts, *settings, np=2).stdout
    assert not (tmp_path / "b").exists()
    again = start("tests/programs/other_config.py", *hosts, *settings, np=2).stdout
    assert "resuming after iteration 40" in again
    assert digest_in(again) == digest_in(first)
    turned = start("tests/programs/other_config.py", *hosts[::-1], *settings, np=2, exit_code=None)
    assert "Exit code: 4" in turned.stderr
    assert f"{tmp_path}/b/digits: rank 0, on " in turned.stderr
    assert f"has no checkpoint, but rank 1 has one of iteration 40 in {tmp_path}/a/digits on " in turned.stderr
    assert not list((tmp_path / "b").rglob("iteration-*"))


def test_the_newest_checkpoint_must_be_rank_0s():
    for newest in ([0, 0, 0], [7, 7, 7], [9, 7, 0]):
        refuse_newer_elsewhere([("host", "runs/x", number) for number in newest])
    with pytest.raises(
        CheckpointError, match="on host0, has no checkpoint after iteration 5, but rank 2 has one of iter"
    ) as e:
        refuse_newer_elsewhere([(f"host{rank}", "runs/x", number) for rank, number in enumerate([5, 4, 6, 6])])
    assert e.value.everywhere
    assert "Name host2 first when you start the job" in str(e.value)


@pytest.mark.parametrize(
    ("options", "code", "part"),
    [
        (["--resume", "auto", "--overwrite"], 2, "give only one of them"),
        (["--on-conflict", "config"], 2, "no effect without --resume"),
        (["--evaluate-only", "--resume", "auto"], 2, "remove --resume and --overwrite"),
        (["--resume", "nowhere"], 4, "there is no such folder"),
        (["--resume", "configs"], 4, "holds no checkpoints"),
    ],
)
def test_command_lines_that_contradict_themselves(here, tmp_path, options, code, part):
    done = here("launch/train.py", *words(f"output={tmp_path}"), *options, exit_code=code)
    assert part in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_of_something_else_is_left_alone(here, tmp_path):
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "thesis.tex").write_text("x")
    done = here("launch/train.py", *words(f"output={tmp_path}"), "--resume", "auto", exit_code=2)
    assert "is not the folder of a run" in done.stderr
    assert "thesis.tex" in done.stderr
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["thesis.tex"]


def test_two_processes_do_not_share_a_folder(here, copy):
    import fcntl

    with (copy / "digits/.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for option in ("auto", copy / "digits/checkpoints/iteration-000000060"):
            done = here("launch/train.py", *words(*SMALL, f"output={copy}"), "--resume", option, exit_code=2)
            assert "is writing there" in done.stderr
        done = here("launch/train.py", *words(*SMALL, f"output={copy}"), "--overwrite", exit_code=2)
        assert "is writing there" in done.stderr


def test_by_the_clock_and_the_best(start, tmp_path):
    settings = words(
        *SMALL,
        "train.iterations=60",
        "evaluation.every=10it",
        "checkpoint={every: 0.2s, keep: 2, best: accuracy}",
        f"output={tmp_path}",
    )
    start("launch/train.py", *settings, np=2)
    folder = tmp_path / "digits/checkpoints"
    best = json.loads((folder / "best.json").read_text())
    evaluated = {line["iteration"]: line["accuracy"] for line in metrics_of(tmp_path) if line["split"] == "test"}
    assert best["value"] == max(evaluated.values())
    assert best["iteration"] == min(t for t, value in evaluated.items() if value == best["value"])
    assert (folder / best["set"]).is_dir()
    assert len(list(folder.glob("iteration-*"))) in (2, 3)


def test_a_checkpoint_of_ones_own_loop_has_no_plan_to_resume(here, tmp_path):
    state = {"iteration": 3, "applied_lr": None, "num_update": 3, "update_counts": [], "scalars": {}}
    place = write_checkpoint(tmp_path, 3, {"parameters": {}, "slots": {}}, {"state": state})
    done = here("launch/train.py", "--resume", place, *words(*SMALL, f"output={tmp_path}"), exit_code=4)
    assert f"error: {place}: was not written by a run" in done.stderr
    assert f"--set init.from={place}" in done.stderr
