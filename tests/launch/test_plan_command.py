"""`launch/plan.py`: what it prints for numbers known beforehand, what it writes, what it refuses."""

import csv
import struct

import pytest


@pytest.fixture
def plan(command, tmp_path):
    """Run it, with tables and pictures under a folder of the test."""

    def run(*arguments, output=tmp_path / "plans"):
        return command("plan", "--output", output, *arguments)

    return run


def test_known_numbers(plan, tmp_path):
    cycle = "{start_lr: 0.1x, max_lr: 1x, cycle_length: 80%, cooldown_length: 20%, finish_lr: 0.001x}"
    settings = ["train.epochs=10", "batch.size=32", "lr.base=0.05", f"lr.schedule={{one_cycle: {cycle}}}"]
    overrides = [word for setting in settings for word in ("--set", setting)]
    ended = plan("--config", "configs/digits.yaml", "--np", "2", "--samples", "640", *overrides)
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[:3] == [
        "digits on 2 workers: 640 samples (as given)",
        "iterations: 100, 10 per epoch, 2 shards of 32",
        "learning rate: 0.05 at batch 32 x 2 shards (linear) = 0.1",
    ]
    assert [line.split() for line in lines[3:8]] == [
        ["iteration", "epoch", "lr", "momentum"],
        ["1", "0.10", "0.01225"],
        ["40", "4.00", "0.1"],
        ["80", "8.00", "0.01"],
        ["100", "10.00", "0.0001"],
    ]
    folder = tmp_path / "plans"
    assert lines[8:] == [f"wrote {folder / 'digits.csv'} and {folder / 'digits.png'}"]
    assert sorted(path.name for path in folder.iterdir()) == ["digits.csv", "digits.png"]
    with (folder / "digits.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["iteration"]) for row in rows] == list(range(1, 101))
    assert [float(rows[t - 1]["lr"]) for t in (40, 80, 100)] == pytest.approx([0.1, 0.01, 0.0001], rel=1e-14)
    assert {row["momentum"] for row in rows} == {"0.9"}


def test_momentum_has_a_column_where_it_has_a_schedule(plan):
    out = plan("--config", "configs/one_cycle.yaml", "--samples", "320", "--set", "train.epochs=10").out
    assert [line.split()[-1] for line in out.splitlines()[4:8]] == ["0.9475", "0.85", "0.95", "0.95"]


def test_samples_are_counted(plan):
    out = plan().out
    assert "digits on 1 worker: 1437 samples (counted in digits)\n" in out
    assert "iterations: 660, 44 per epoch, 1 shard of 32\n" in out


def test_batches_of_ones_own_are_counted(here, tmp_path):
    data = "{name: 'tests.programs.functions:sentences', params: {}, transform: 'tests.programs.functions:ids', "
    data += "collate: pad, batches: 'tests.programs.functions:alike'}"
    settings = ["--set", f"data={data}", "--set", "batch={size: 3, shards: 8}", "--set", "train={epochs: 2}"]
    out = here("launch/plan.py", "--output", tmp_path, *settings).stdout
    assert "100 samples (counted in tests.programs.functions:sentences)\n" in out
    assert "iterations: 36, 18 per epoch, 8 shards of 3\n" in out
    ended = here("launch/plan.py", *settings, "--samples", "50", exit_code=2)
    assert "--samples: has no effect with data.batches (tests.programs.functions:alike)" in ended.stderr


def test_published_counts_are_used_where_files_are_absent_and_it_says_so(plan, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, count in (("mnist_cnn", 60_000), ("fashion_mnist_cnn", 60_000), ("cifar10_resnet18", 50_000)):
        ended = plan("--config", f"configs/{name}.yaml", "--np", "8")
        data = {"mnist_cnn": "mnist", "fashion_mnist_cnn": "fashion_mnist", "cifar10_resnet18": "cifar10"}[name]
        published = (
            f"{name} on 8 workers: {count} samples (the published count of {data}, because its files are not here)"
        )
        assert ended.out.splitlines()[0] == published
        assert ended.code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plans"], "nothing was fetched"


def test_several_numbers_of_workers_share_a_table_and_a_picture(plan, tmp_path):
    ended = plan("--np", "1", "2", "4", "8", "--samples", "1280", "--set", "train.epochs=10")
    picture = tmp_path / "plans" / "digits-np-1-2-4-8.png"
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines() == [
        "digits: 1280 samples (as given), 32 a shard",
        "np       shards  iterations per epoch        peak  phases start at iteration",
        "1             1         400        40         0.1  1, 160, 320",
        "2             2         200        20         0.2  1, 80, 160",
        "4             4         100        10         0.4  1, 40, 80",
        "8             8          50         5         0.8  1, 20, 40",
        f"wrote {picture}",
    ]
    assert list((tmp_path / "plans").iterdir()) == [picture]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_fixed_shards_are_one_plan_for_all(plan):
    out = plan("--np", "1", "8", "--set", "batch.shards=8").out.splitlines()
    assert [line.split()[1:] for line in out[2:4]] == [["8", "75", "5", "0.8", "1,", "30,", "60"]] * 2


def test_momentum_is_drawn_below_where_it_is_scheduled(plan, tmp_path):
    for config in ("digits", "one_cycle"):
        plan("--config", f"configs/{config}.yaml", "--np", "1", "2")
    heights = {path.stem: struct.unpack(">I", path.read_bytes()[20:24])[0] for path in (tmp_path / "plans").iterdir()}
    assert heights["one_cycle-np-1-2"] > 1.4 * heights["digits-np-1-2"]


def test_remarks_name_the_number_of_workers(plan):
    saw = "{cyclical: {schedule_class: cosine, cycle_length: 5it, min_lr: 0, max_lr: 1x}}"
    out = plan("--np", "1", "2", "--samples", "320", "--set", "train.epochs=1", "--set", f"lr.schedule={saw}").out
    assert [line.split(":")[:2] for line in out.splitlines() if line.startswith("note")] == [
        ["note", " np 1"],
        ["note", " np 2"],
    ]


def test_what_uneven_shares_cost_is_noted(plan):
    uneven = "note: 8 shards on 3 workers: an update waits for the largest share, 3 shards, so workers compute 89% of"
    assert plan("--np", "3", "--set", "batch.shards=8").out.count(uneven) == 1
    several = plan("--np", "2", "3", "4", "--set", "batch.shards=8").out
    assert (several.count(uneven), several.count("note: ")) == (1, 1)


def test_what_evaluations_may_decide_is_noted(plan):
    settings = ("--set", "lr.plateau={patience: 2}", "--set", "train={epochs: 20, early_stop: {patience: 5}}")
    plateau = (
        "a plateau may change the plan: after more than 2 evaluations of loss in a row without improvement, all later "
        "learning rates are x 0.1"
    )
    stop = "the run may end early: after 5 evaluations of loss in a row without improvement"
    assert plan(*settings).out.splitlines()[-3:-1] == [f"note: {plateau}", f"note: {stop}"]
    several = plan("--np", "1", "2", *settings).out.splitlines()
    assert [line for line in several if "plateau" in line] == [f"note: np {n}: {plateau}" for n in (1, 2)]
    against = plan("--against", "configs/digits.yaml", *settings).out.splitlines()
    assert [line for line in against if "early" in line] == [f"note: config: {stop}"]


def test_against_another_configuration(plan, tmp_path):
    ended = plan("--np", "2", "--against", "configs/one_cycle.yaml", "--samples", "640", "--set", "train.epochs=10")
    picture = tmp_path / "plans" / "digits-against-one_cycle.png"
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines() == [
        "config: configs/digits.yaml, 640 samples (as given)",
        "against: configs/one_cycle.yaml, 640 samples (as given)",
        "plan     shards  iterations per epoch        peak  phases start at iteration",
        "config        2         100        10         0.2  1, 40, 80",
        "against       2         150        10         0.2  1, 60, 120",
        "first difference: iteration 1",
        "config   lr 0.024500000000000004  momentum 0.9",
        "against  lr 0.023000000000000003  momentum 0.9483333333333333",
        f"wrote {picture}",
    ]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_set_holds_for_config_alone(plan):
    own = ("--config", "configs/digits.yaml", "--against", "configs/digits.yaml")
    assert "equal for the entire run, 660 iterations\n" in plan(*own).out
    shorter = ("--set", "lr.schedule={constant: {lr: 1x}}", "--set", "lr.base=0.1")
    assert "first difference: iteration 1\nconfig   lr 0.1  momentum 0.9\n" in plan(*own, *shorter).out


def test_where_one_run_ends(plan, tmp_path):
    steps = "{multi_factor: {base_lr: 1x, step: [1ep], factor: 0.5}}"
    for name, epochs in (("short", 2), ("long", 3)):
        text = f"network: {{name: mlp}}\ntrain: {{epochs: {epochs}}}\nlr: {{base: 0.1, schedule: {steps}}}\n"
        (tmp_path / f"{name}.yaml").write_text(text)
    out = plan("--config", tmp_path / "short.yaml", "--against", tmp_path / "long.yaml").out
    assert "first difference: iteration 89\nconfig   ended at iteration 88\nagainst  lr 0.05\n" in out


def test_auto_is_drawn_in_units_of_the_base(plan):
    ended = plan("--set", "lr.base=auto", "--np", "4", "--samples", "1280", "--set", "train.epochs=10")
    assert "learning rate: in units of the base that the finder will find at the global batch of 128" in ended.out
    assert ["40", "4.00", "1"] in [line.split() for line in ended.out.splitlines()]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--config", "configs/one_cycle.yaml"),
        ("--set", "lr.base=auto"),
        ("--set", "train={iterations: 1}", "--set", "lr={schedule: 0.1}"),
        ("--set", "train={iterations: 2000000}"),
        ("--set", "lr={schedule: 0}"),
        ("--set", "lr={schedule: 3.4e38}"),
        ("--set", "name=a_b-1.2"),
    ],
)
def test_pictures_are_pictures(plan, tmp_path, arguments):
    ended = plan(*arguments)
    assert (ended.code, ended.err) == (0, "")
    (picture,) = (tmp_path / "plans").glob("*.png")
    content = picture.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert content.endswith(b"IEND\xaeB`\x82")
    assert len(content) > 10_000


def test_the_same_plan_makes_the_same_files(plan, tmp_path):
    for folder in ("a", "b"):
        assert plan(output=tmp_path / folder).code == 0
    for name in ("digits.csv", "digits.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--set", "trian=1"], 2, "error: configs/digits.yaml: trian: unknown key; did you mean 'train'?"),
        (
            ["--config", "no.yaml"],
            2,
            "error: no.yaml: cannot be read (No such file or directory); give a file, or a name: cifar10_resnet18",
        ),
        (
            ["--set", "batch.shards=3", "--np", "4"],
            2,
            "error: configs/digits.yaml: batch.shards: 3 shards are too few for 4 workers",
        ),
        (
            ["--samples", "10"],
            2,
            "error: configs/digits.yaml: batch: a global batch is 1 shards x 32 = 32 samples, but",
        ),
        (
            ["--set", "data.name=digit"],
            3,
            "error: configs/digits.yaml: data.name: unknown name 'digit'; did you mean 'digits'? known: cifar10",
        ),
        (
            ["--set", "lr.schedule.one_cycle.cycle_length=90%"],
            2,
            "error: configs/digits.yaml: lr.schedule.one_cycle: takes",
        ),
        (
            ["--set", "batch.shards=4", "--np", "1", "5"],
            2,
            "error: configs/digits.yaml: batch.shards: 4 shards are too few for 5 workers",
        ),
        (["--np", "2", "4", "2"], 2, "plan.py: error: --np: a number appears twice; give each once"),
        (
            ["--np", "1", "2", "--against", "configs/one_cycle.yaml"],
            2,
            "plan.py: error: --against compares two plans for one number of workers; give --np one number",
        ),
        (
            ["--set", "lr.base=auto", "--against", "configs/one_cycle.yaml"],
            2,
            "error: configs/one_cycle.yaml: lr.base: one of the two plans is in units of a base that the finder",
        ),
        (["--against", "no.yaml"], 2, "error: no.yaml: cannot be read (No such file or directory)"),
        (["--np", "0"], 2, "plan.py: error: --np: 0 is not possible; allowed: 1 or more"),
        (["--samples", "-5"], 2, "plan.py: error: --samples: -5 is not possible; allowed: 1 or more"),
        (["--np", "two"], 2, "plan.py: error: argument --np: invalid int value: 'two'"),
        (["--sample", "5"], 2, "plan.py: error: unrecognized arguments: --sample 5"),
    ],
)
def test_refusals(plan, tmp_path, arguments, code, message):
    ended = plan(*arguments)
    assert ended.code == code
    assert ended.out == ""
    assert ended.err.splitlines()[-1].startswith(message)
    assert not (tmp_path / "plans").exists()


def test_an_output_that_cannot_be_written(plan, tmp_path):
    (tmp_path / "file").write_text("")
    for output, at, reason in (
        (tmp_path / "file", tmp_path / "file", "File exists"),
        (tmp_path / "file" / "inside", tmp_path / "file" / "inside", "Not a directory"),
    ):
        ended = plan(output=output)
        assert ended.code == 2
        assert ended.err == f"error: {at}: cannot be written ({reason}); choose another --output\n"
    (tmp_path / "plans" / "digits.csv").mkdir(parents=True)
    ended = plan()
    assert ended.err == (
        f"error: {tmp_path / 'plans' / 'digits.csv'}: cannot be written (Is a directory); choose another --output\n"
    )
    assert ended.code == 2


@pytest.mark.parametrize(("program", "option"), [("plan.py", "--against"), ("find_lr.py", "--checkpoint")])
def test_an_empty_path_is_not_taken_for_none(here, program, option):
    """As of a variable of the shell that is not set."""
    done = here(f"launch/{program}", option, "", exit_code=2)
    assert "error: " in done.stderr


def test_a_moment_is_explained_and_nothing_is_written(plan, tmp_path):
    ended = plan("--config", "configs/cifar10_resnet18.yaml", "--np", "8", "--samples", "50000", "--explain", "2ep")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines() == [
        "iteration 96 of 1440 (epoch 2 of 30): learning rate 0.283333",
        "  1x: 0.05 at batch 128 x 8 shards (linear) = 0.4",
        "  warm-up, iteration 96 of 144, from 0.05 to: 0.283333",
        "    cosine (min_lr 0, max_lr 0.4, cycle_length 1296) at its iteration 0 of 1296: 0.4",
    ]
    assert not (tmp_path / "plans").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--explain", "3"], "--explain: '3' is not a length: write a length as '5ep' (epochs), '500it' (iterations)"),
        (["--explain", "1ep", "--np", "1", "2"], "--explain is of one plan; leave out --against, and give --np one"),
        (["--explain", "1ep", "--against", "sgdr"], "--explain is of one plan; leave out --against, and give --np one"),
        (["--explain", "16ep"], "--explain: '16ep' is iteration 704, but the run has 660; give an earlier moment"),
        (["--explain", "1e3tok"], "--explain: '1000tok' is a number of tokens, but how many an iteration has is not"),
    ],
)
def test_a_moment_that_is_none_is_refused(plan, arguments, message):
    ended = plan(*arguments)
    assert ended.code == 2
    assert message in ended.err
