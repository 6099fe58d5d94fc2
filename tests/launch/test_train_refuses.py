"""Every wrong configuration ends with its exit code and one message: the key, and what to do about it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

_GOOD = {
    "data": "{name: digits}",
    "batch": "{size: 32}",
    "train": "{epochs: 1}",
    "network": "{name: mlp}",
    "optimizer": "{name: sgd, params: {momentum: 0.9}}",
    "lr": "{base: 0.1, schedule: 1x}",
}

# sections of the configuration, the key that is named, and what else the message must say
CONFIGS = [
    # keys, types, bounds
    ({"trian": "{epochs: 3}"}, "trian", ["unknown key; did you mean 'train'?"]),
    ({"train": "{epochs: 3, last_bach: keep}"}, "train.last_bach", ["did you mean 'last_batch'?"]),
    ({"train": "{epochs: 1.5}"}, "train.epochs", ["found 1.5; must be a whole number"]),
    ({"train": "{epochs: many}"}, "train.epochs", ["found 'many'; must be a whole number"]),
    ({"train": "{epochs: 0}"}, "train.epochs", ["must be at least 1"]),
    ({"train": "{epochs: 1, iterations: 5}"}, "train", ["either epochs or iterations"]),
    ({"train": "{}"}, "train", ["either epochs or iterations"]),
    ({"train": None}, "train", ["is missing; give a mapping with the keys epochs, iterations"]),
    ({"batch": "{size: -4}"}, "batch.size", ["found -4; must be at least 1"]),
    ({"batch": "{size: off}"}, "batch.size", ["found 'off'; must be a whole number"]),
    ({"batch": "32"}, "batch", ["must be a mapping with the keys size, shards"]),
    ({"seed": "1:30"}, "seed", ["found '1:30'; must be a whole number"]),
    ({"name": "a/b"}, "name", ["must be letters, digits"]),
    ({"comm": "mpich"}, "comm", ["must be auto, single, horovod or mpi"]),
    ({"device": "tpu"}, "device", ["must be auto, cpu or gpu"]),
    ({"threads_per_rank": "0"}, "threads_per_rank", ["must be auto, or a whole number of at least 1"]),
    ({"amp": "true"}, "amp", ["mixed precision is not supported", "remove it"]),
    ({"accumulation": "4"}, "accumulation", ["batch.shards"]),
    ({"evaluation": "{every: -1ep}"}, "evaluation.every", ["a length cannot be negative"]),
    ({"log": "{every: 5}"}, "log.every", ["write '5it' or '5ep'"]),
    # learning rate
    ({"lr": "{schedule: 0.1, scaling: linear}"}, "lr.scaling", ["has no effect", "write them as multiples"]),
    ({"lr": "{schedule: 0.1, base: 0.1}"}, "lr.base", ["has no effect", "or remove it"]),
    ({"lr": "{schedule: 1x}"}, "lr.base", ["set lr.base"]),
    ({"lr": "{schedule: 1x, base: -0.1}"}, "lr.base", ["must be a finite number above 0"]),
    ({"lr": "{schedule: 1x, base: .nan}"}, "lr.base", ["must be a finite number above 0"]),
    ({"lr": "{schedule: 1x, base: atuo}"}, "lr.base", ["auto (to run the learning-rate finder)"]),
    ({"lr": "{schedule: plateau}"}, "lr.schedule", ["use lr.plateau beside a schedule"]),
    ({"lr": "{schedule: 0.1, plateau: {patience: x}}"}, "lr.plateau.patience", ["found 'x'; must be a whole number"]),
    (
        {"lr": "{schedule: 0.1, plateau: {}}", "evaluation": "{every: null}"},
        "lr.plateau",
        ["has no effect without evaluation.every; set it, or remove plateau"],
    ),
    (
        {"lr": "{schedule: 0.1, plateau: {mode: max}}"},
        "lr.plateau.mode",
        ["max is wrong for 'loss', of which the lowest is best; remove it"],
    ),
    (
        {"train": "{epochs: 1, early_stop: {patience: 2}}", "evaluation": "{every: null}"},
        "train.early_stop",
        ["has no effect without evaluation.every; set it, or remove early_stop"],
    ),
    ({"lr": "{schedule: {cosinus: {}}}"}, "lr.schedule.cosinus", ["did you mean 'cosine'?"]),
    (
        {"lr": "{schedule: {poly: {base_lr: 1, max_update: -5it}}}"},
        "lr.schedule.poly.max_update",
        ["a length cannot be negative"],
    ),
    (
        {"lr": "{schedule: {poly: {base_lr: 1, max_update: 2ep}}}"},
        "lr.schedule.poly",
        ["takes 88 iterations but the run has 44; it would end at LR 0.25 instead of 0; shorten the schedule"],
    ),
    ({"lr": "{base: 1, schedule: 1x, warmup: {length: 2ep}}"}, "lr.warmup.length", ["longer than the run", "shorten"]),
    ({"lr": "{base: 1, schedule: 1x, warmup: {length: 5}}"}, "lr.warmup.length", ["write '5it' or '5ep'"]),
    ({"lr": "{schedule: 0.1, momentum: 1.5}"}, "lr.momentum", ["must be 0, or at least 1.2e-38 and below 1"]),
    (
        {"optimizer": "{name: adam}", "lr": "{schedule: 0.1, momentum_correction: true}"},
        "lr.momentum_correction",
        ["remove"],
    ),
    (
        {"optimizer": "{name: rmsprop}", "lr": "{schedule: 0.1, momentum: 0.9}"},
        "lr.momentum",
        ["has no effect on 'rmsprop'"],
    ),
    # optimizer
    ({"optimizer": "{name: sdg}"}, "optimizer.name", ["did you mean 'sgd'?"]),
    ({"optimizer": "{name: lbsgd}"}, "optimizer.name", ["use sgd or lars"]),
    ({"optimizer": "{params: {momentun: 0.9}}"}, "optimizer.params.momentun", ["did you mean 'momentum'?"]),
    (
        {"optimizer": "{params: {learning_rate: 0.1}}"},
        "optimizer.params.learning_rate",
        ["use lr.base and lr.schedule"],
    ),
    ({"optimizer": "{params: {clip_gradient: 1}}"}, "optimizer.params.clip_gradient", ["use optimizer.clip_value"]),
    (
        {"optimizer": "{lr_mult: {'feature.*': 0.1}}"},
        "optimizer.lr_mult",
        ["matches no parameter", "the parameters are"],
    ),
    # network
    ({"network": "{name: mpl}"}, "network.name", ["did you mean 'mlp'?"]),
    ({"network": "{}"}, "network.name", ["is missing"]),
    ({"network": "{name: mlp, params: {hiden: [3]}}"}, "network.params", ["hiden"]),
    ({"network": "{name: alexnet}"}, "network", ["(1, 8, 8)", "choose others that fit"]),
    ({"network": "{name: mlp, initializer: xavir}"}, "network.initializer", ["did you mean 'xavier'?"]),
    ({"network": "{name: mlp, loss: cross_entropy}"}, "network.loss", ["known: "]),
    (
        {"network": "{name: 'no_such_module:net'}"},
        "network.name",
        ["there is no module 'no_such_module'", "start from the folder"],
    ),
    ({"network": "{name: 'math:no_such_net'}"}, "network.name", ["no such name in"]),
    ({"evaluation": "{metrics: [acuracy]}"}, "evaluation.metrics", ["did you mean 'accuracy'?"]),
    # batch and data that do not go together
    ({"batch": "{size: 32, shards: 45}"}, "batch", ["only 1437 training samples; lower batch.size"]),
]

# what is only known once MXNet or the data are there is said without the file
_LATE = ("optimizer.name", "optimizer.params.momentun", "optimizer.lr_mult", "network", "evaluation.metrics")

DATA = [
    ({"data": "{name: digit}"}, "data.name", ["did you mean", "digits"]),
    ({"data": "{name: cifar10, root: /no/such/folder}"}, "data.name: 'cifar10'", ["/no/such/folder", "data.root"]),
    ({"data": "{name: npy}"}, "data.name: 'npy'", ["needs data.root"]),
    ({"data": "{name: digits, validation: 1437}"}, "data.validation", ["holds out 1437 of 1437"]),
    ({"data": "{name: digits, params: {a: 1}}"}, "data.", ["params", "leave it out"]),
    ({"data": "{name: 'no_such_module:load'}"}, "data.name: 'no_such_module:load'", ["there is no module"]),
    ({"data": "{name: 'math:pi'}"}, "data.name: 'math:pi'", ["name a function"]),
]


@pytest.fixture
def refused(command, tmp_path):
    """The message with which training refuses to start, once everything about it that is always so is checked."""

    def run(text, *arguments, code=2):
        path = tmp_path / "c.yaml"
        if not isinstance(text, str):
            text = "".join(f"{key}: {value}\n" for key, value in {**_GOOD, **text}.items() if value is not None)
        path.write_text(text, encoding="utf-8")
        before = sorted(tmp_path.rglob("*"))
        ended = command("train", "--config", path, "--set", f"output={tmp_path / 'runs'}", *arguments)
        assert ended.code == code, ended
        assert ended.out == ""
        assert "Traceback" not in ended.err
        assert ended.err.startswith("error: ")
        assert ended.err.count("error: ") == 1
        assert sorted(tmp_path.rglob("*")) == before, "something was written"
        return ended.err.removeprefix("error: ").rstrip("\n").replace(str(path), "c.yaml")

    return run


@pytest.mark.parametrize(
    ("sections", "key", "parts"), CONFIGS, ids=lambda value: value if isinstance(value, str) else None
)
def test_a_wrong_configuration_ends_with_2(refused, sections, key, parts):
    message = refused(sections)
    assert "\n" not in message
    late = key.startswith(_LATE) and "is missing" not in message
    assert message.startswith(f"{key}: " if late else f"c.yaml: {key}: ") or (late and message.startswith("c.yaml: "))
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("sections", "key", "parts"), DATA, ids=lambda value: value if isinstance(value, str) else None
)
def test_data_that_cannot_be_read_end_with_3(refused, sections, key, parts):
    message = refused(sections, code=3)
    assert key in message
    for part in parts:
        assert part in message


def test_there_are_more_than_forty_of_them_and_all_differ():
    assert len({repr(case) for case in CONFIGS + DATA}) >= 55


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "c.yaml: is empty; must be a mapping of settings with at least train, network and lr"),
        ("- train\n", "c.yaml: found ['train']; must be a mapping of settings with at least train, network and lr"),
        ("seed: 1\n\tname: x\n", "c.yaml:2: a tab; indent with spaces"),
        ("seed: 1\nseed: 2\n", "c.yaml:2: the key 'seed' appears twice in one mapping; keep one of the two"),
        ("train: {epochs: 1\n", "c.yaml:2: the text ends before every bracket and quote is closed"),
    ],
)
def test_a_file_that_is_no_configuration(refused, text, message):
    assert refused(text) == message


def test_all_that_is_wrong_is_told_at_once(refused):
    message = refused({"trian": "1", "batch": "{size: 0}", "lr": "{schedule: 0.1, base: 1}"}, "--set", "seed=x")
    assert message.splitlines() == [
        "c.yaml: seed: found 'x'; must be a whole number (from --set seed=x)",
        "c.yaml: batch.size: found 0; must be at least 1",
        "c.yaml: lr.base: 1.0 has no effect, because plain learning rates are final and never scaled; write them as "
        "multiples of the base (max_lr: 1x), or remove it",
        next(
            line
            for line in message.splitlines()
            if line.startswith("c.yaml: trian: unknown key; did you mean 'train'? ")
        ),
    ]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--set", "seed"], "c.yaml: --set seed: must be key.path=value, such as lr.base=0.1"),
        (["--set", "seed.x=1", "--set", "seed.x.y=1"], "--set seed.x.y=1: seed.x holds 1, which has no keys"),
        (
            ["--set", "batch.shards=3", "--emulate-np", "4"],
            "c.yaml: batch.shards: 3 shards are too few for 4 workers",
        ),
        (["--emulate-np", "45"], "c.yaml: batch: a global batch is 45 shards x 32 = 1440 samples, but there are only "),
        (["--evaluate-only"], "--evaluate-only needs weights: give a file with --set init.from="),
    ],
)
def test_a_command_line_that_cannot_be_run(refused, arguments, part):
    assert part in refused({}, *arguments)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--emulate-np", "0"], "--emulate-np: 0 is not a number of ranks; allowed: 1 or more"),
        (["--emulate-np", "two"], "argument --emulate-np: two is not a number of ranks; allowed: 1 or more"),
        (["--no-such-option"], "unrecognized arguments: --no-such-option"),
        (["--config"], "argument --config: expected one argument"),
    ],
)
def test_argparse_refuses_with_2(command, arguments, part):
    ended = command("train", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("usage: train.py")
    assert ended.err.rstrip().endswith(part)


@pytest.mark.parametrize("launcher", ["mpirun", "horovodrun"])
def test_argparse_refuses_once_on_ranks(start, launcher):
    ended = start("launch/train.py", "--no-such-option", np=2, launcher=launcher, exit_code=None)
    assert ended.returncode == (2 if launcher == "mpirun" else 1)
    assert ended.stderr.count("error: unrecognized arguments: --no-such-option") == 1


def test_the_first_rank_that_argparse_refuses_speaks_for_all(command, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    for name in ("PMI_SIZE", "MPI_LOCALNRANKS"):
        monkeypatch.setenv(name, "2")
    said = []
    for rank in ("1", "0"):
        monkeypatch.setenv("PMI_RANK", rank)
        ended = command("train", "--no-such-option")
        assert (ended.code, ended.out) == (2, "")
        said.append(ended.err.count("error: unrecognized arguments: --no-such-option"))
    assert said == [1, 0]


def test_a_missing_file(command):
    ended = command("train", "--config", "configs/digit.yaml")
    assert ended == (
        2,
        "",
        "error: configs/digit.yaml: cannot be read (No such file or directory); did you mean 'configs/digits.yaml'?\n",
    )


def test_a_folder_that_is_there_is_not_overwritten(refused, tmp_path):
    (tmp_path / "runs" / "c").mkdir(parents=True)
    (tmp_path / "runs" / "c" / "final.params").write_text("precious")
    assert "already holds a run; resume it with --resume auto, move it aside with --overwrite" in refused({})


def test_a_folder_that_cannot_be_made(refused, tmp_path):
    (tmp_path / "runs").write_text("a file")
    assert "cannot be made" in refused({})


@pytest.mark.parametrize("arguments", [(), ("--evaluate-only",)])
def test_weights_that_are_none_end_with_4(refused, tmp_path, arguments):
    (tmp_path / "text.params").write_text("hello")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    for name in ("missing.params", "text.params"):
        message = refused({}, "--set", f"init.from={tmp_path / name}", *arguments, code=4)
        assert f"init.from: {tmp_path / name}: " in message


def test_a_few_as_real_processes(start, tmp_path):
    out = f"output={tmp_path / 'runs'}"
    for arguments, code, part in [
        (["--set", "trian=1"], 2, "configs/digits.yaml: trian: unknown key; did you mean 'train'?"),
        (["--set", "network.name=mpl"], 2, "network.name: unknown name 'mpl'; did you mean 'mlp'?"),
        (["--set", "data.name=digit"], 3, "data.name: unknown name 'digit'; did you mean 'digits'?"),
        (["--set", "init.from=no.params"], 4, "init.from: no.params: "),
    ]:
        ended = start("launch/train.py", "--set", out, *arguments, exit_code=code)
        assert part in ended.stderr
        assert "Traceback" not in ended.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("bad", "bad_rank"),
    [
        *(("missing.yaml", 0), ("broken", 1), ("comm", 0)),
        *(pytest.param(*one, marks=pytest.mark.thorough) for one in (("missing.yaml", 1), ("broken", 0), ("comm", 1))),
    ],
)
def test_a_configuration_that_one_rank_cannot_use_ends_both(start, tmp_path, bad_rank, bad):
    (tmp_path / "broken").write_text("train: {epochs: ten}")
    (tmp_path / "comm").write_text(Path("configs/digits.yaml").read_text() + "comm: single\n")
    files = [Path("configs/digits.yaml"), tmp_path / bad]
    files = files if bad_rank else files[::-1]
    arguments = ["tests/programs/other_config.py", *files, "--", "--set", f"output={tmp_path}"]
    done = start(*arguments, np=2, exit_code=1, timeout_s=60)
    text = done.stdout + done.stderr
    assert f"rank {bad_rank}: " in text
    assert "Exit code: 2" in text
    assert "<stderr>:Traceback" not in text
    assert not (tmp_path / "digits").exists()


def test_the_rank_that_says_why_has_said_it_before_another_one_ends(start, tmp_path):
    # horovodrun ends all ranks as soon as one has ended, and rank 0 speaks for all
    (tmp_path / "broken").write_text("train: {epochs: ten}")
    arguments = ["tests/programs/other_config.py", tmp_path / "broken", "configs/digits.yaml", "--"]
    done = start(*arguments, "--set", f"output={tmp_path}", np=2, exit_code=1, timeout_s=60, SLOW_RANK="0")
    assert "train.epochs: found 'ten'; must be a whole number" in done.stderr
    assert "stopped on request" not in done.stderr


def test_a_listener_who_leaves_does_not_end_the_training(tmp_path):
    command = f"{sys.executable} launch/train.py --set output={tmp_path} --set train.epochs=3 | head -1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "digits/final.params").exists()


def test_a_launcher_that_talks_nonsense(start, tmp_path):
    done = start("launch/train.py", "--set", f"output={tmp_path}", exit_code=2, HOROVOD_RANK="x", HOROVOD_SIZE="2")
    assert "are not a rank and a world size" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("stem", [".", "a b", "größe"])
def test_a_name_that_no_run_can_have_is_refused_before_anything_is_written(command, tmp_path, stem):
    file = tmp_path / f"{stem}.yaml"
    file.write_text("".join(f"{key}: {value}\n" for key, value in _GOOD.items()))
    runs = tmp_path / "runs"
    (runs / "precious").mkdir(parents=True)
    for options in ([], ["--overwrite"], ["--resume", "auto"]):
        ended = command("train", "--config", file, "--set", f"output={runs}", *options)
        assert (ended.code, ended.err.count("name: is not set, and the file name gives")) == (2, 1)
    assert [path.name for path in tmp_path.iterdir() if path != file] == ["runs"]
    assert [path.name for path in runs.iterdir()] == ["precious"]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_overwrite_moves_runs_aside_and_nothing_else(command, tmp_path, kind):
    mine = tmp_path / "mine"
    if kind == "folder":
        mine.mkdir()
        (mine / "thesis.tex").write_text("x")
    else:
        mine.write_text("x")
    words = [word for key, value in _GOOD.items() for word in ("--set", f"{key}={value}")]
    ended = command("train", *words, "--set", f"output={tmp_path}", "--set", "name=mine", "--overwrite")
    assert ended.code == 2
    assert f"{mine} is " in ended.err
    assert "not the folder of a run" in ended.err
    assert [path.name for path in tmp_path.iterdir() if path.name != ".mine.lock"] == ["mine"]
