"""The finder on real ranks, its report, and what becomes of its result in a plan."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
from contextlib import suppress
from html.parser import HTMLParser

import pytest

from harness.cli.find_lr import parse_arguments
from harness.data import Order
from harness.locks import lock_of_name
from harness.processes import descendants
from tests.conftest import ROOT, THOROUGH, launched_by

NET = (
    "network={name: cnn, params: {channels: [8], hidden: 16, dropout: 0.3}}",
    "data.augment={pad_crop: 1, flip: true}",
    "threads_per_rank=1",
)
QUICK = ("finder={lr_start: 1e-4, lr_multiplier: 1.3}",)


def words(*settings):
    return [word for setting in settings for word in ("--set", setting)]


def result_in(folder):
    return json.loads((folder / "result.json").read_text())


@pytest.fixture
def find(launch, tmp_path):
    def run(*settings, np=None, options=(), **more):
        folder = tmp_path / f"finder-{len(list(tmp_path.iterdir()))}"
        output = ["--output", folder, *words(f"output={tmp_path}")]
        how = {"launcher": "mpirun", **more} if np else more
        done = launch("launch/find_lr.py", *words(*NET, *QUICK, *settings), *options, *output, np=np, **how)
        return done, result_in(folder) if (folder / "result.json").exists() else None, folder

    return run


MLP = "network={name: mlp, params: {hidden: [16]}}"  # running statistics would lag behind so fast a sweep
FEW = ("finder.lr_multiplier=1.5",)
HELD_OUT = (MLP, "data.validation=0.1", "finder.on=validation", "finder.held_out_batches=3")


@pytest.mark.parametrize("curve", [FEW, HELD_OUT], ids=["of the updates' batches", "of held-out samples"])
def test_three_shards_on_one_process_and_on_two_ranks_see_the_same_points(find, curve):
    settings = ("batch.shards=3", "finder.repeats=2", *curve)
    _, alone, _ = find(*settings)
    done, together, _ = find(*settings, np=2)
    assert together["sweeps"] == alone["sweeps"]
    assert together["suggestion"] == alone["suggestion"]
    assert (together["proof"]["num_ranks"], alone["proof"]["num_ranks"]) == (2, 1)
    assert together["proof"]["digest"] == alone["proof"]["digest"]
    assert "on each of 2 ranks" in done.stdout
    first, second = alone["sweeps"]
    assert first["points"] != second["points"]  # another shuffle


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.outside = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        self.outside += [value for name, value in attributes if name in ("src", "href") and value.startswith("http")]
        if tag not in ("meta", "wbr", "path", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                continue


def test_the_report_holds_everything(find):
    done, result, folder = find("name=a-name")
    assert sorted(path.name for path in folder.iterdir()) == ["curve.csv", "curve.png", "report.html", "result.json"]
    suggestion = result["suggestion"]
    assert f"suggested: {suggestion['lr']:g} at a global batch of 32 (" in done.stdout
    assert result["provenance"]["global_batch"] == 32
    assert result["provenance"]["optimizer"] == {"name": "sgd", "params": {"momentum": 0.9, "wd": 0.0001}}
    with (folder / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(float(row["lr"]), float(row["loss"])) for row in rows] == [tuple(p) for p in result["sweeps"][0]["points"]]
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert "svg" in page.seen
    assert not page.outside  # nothing to fetch
    for part in (
        f"base: {suggestion['lr']:.4g}",
        "reference_batch: 32",
        result["proof"]["digest"],
        "a-name",
        "viewport",
    ):
        assert part in text


def test_an_earlier_report_is_shown_again_or_moved_aside(here, tmp_path):
    def find(*options, settings=(), exit_code=0):
        quick = "finder={lr_start: 1e-3, lr_multiplier: 1.5}"
        shown = words(*NET, quick, *settings, f"output={tmp_path}", "name=x")
        return here("launch/find_lr.py", *shown, *options, exit_code=exit_code)

    folder = tmp_path / "x/finder"
    first = find("--resume", "auto").stdout  # where there is nothing to resume, it starts
    result = (folder / "result.json").read_bytes()
    assert not (folder / "unfinished").exists()
    assert "already holds a result; show it again with --resume auto" in find(exit_code=2).stderr
    again = find("--resume", "auto").stdout
    assert again == first
    other = find("--resume", "auto", settings=["seed=1"], exit_code=4).stderr
    assert "was found for something else (saved -> now):\n  seed: 0 -> 1\n" in other
    moved = find("--overwrite").stdout
    assert moved == f"moved the previous report to {folder}.1\n{first}"
    assert (tmp_path / "x/finder.1/result.json").read_bytes() == (folder / "result.json").read_bytes() == result


def test_groups_get_their_parts_of_the_rate(find):
    done, result, _ = find("optimizer.lr_mult={'*.bias': 0.5, '7.*': 0.1}", "finder.rule=steepest")
    lr = result["suggestion"]["lr"]
    assert [group["lr"] for group in result["groups"]] == [1.0, 0.5, 0.1]
    for factor in (0.5, 0.1):
        assert re.search(rf"^  x {factor} +{factor * lr:.3g} for ", done.stdout, re.MULTILINE)


ACROSS = (
    MLP,
    "finder={lr_start: 3e-3, lr_end: 100, lr_multiplier: 1.12, repeats: 2, on: validation, held_out_batches: 2}",
    "batch.size=16",
)


def test_several_batches_are_measured_alike_on_ranks_and_by_emulation(launch, tmp_path):
    def across(name, *options, exit_code=None, **ranks):
        settings = words(*NET, *ACROSS, f"output={tmp_path}", f"name={name}")
        done = launch("launch/find_lr.py", "--across", "4,1", *settings, *options, exit_code=exit_code, **ranks)
        return done, json.loads((tmp_path / name / "finder-across/scaling.json").read_text())

    done, emulated = across("emulated", "--emulate-np", "2")
    _, together = across("together", np=2, launcher="mpirun")
    folder = tmp_path / "emulated/finder-across"
    assert sorted(path.name for path in folder.iterdir()) == [
        "curves.csv",
        "report.html",
        "scaling.json",
        "scaling.png",
    ]
    assert (emulated["scaling"], emulated["refusal"]) == (together["scaling"], together["refusal"])
    seen = []
    for one, other in zip(emulated["results"], together["results"], strict=True):
        for speed in ("slow", "fast"):
            assert one[speed]["sweeps"] == other[speed]["sweeps"]
            assert one[speed]["proof"]["digest"] == other[speed]["proof"]["digest"]
            assert other[speed]["proof"]["num_ranks"] == 2
            seen += [json.dumps(sweep["points"]) for sweep in one[speed]["sweeps"]]
    assert len(set(seen)) == len(seen) == 8  # no two sweeps see the same samples
    assert [one["slow"]["provenance"]["global_batch"] for one in emulated["results"]] == [32, 128]
    again, _ = across("emulated", "--emulate-np", "2", "--resume", "auto", exit_code=done.returncode)
    told = [line for line in done.stdout.splitlines() if " iterations together" not in line]
    assert again.stdout.splitlines() == told


@pytest.mark.thorough
@pytest.mark.parametrize("np", [None, 2])
@pytest.mark.parametrize("options", [(), ("--across", "1,2")], ids=["one batch", "two batches"])
def test_a_finder_that_is_killed_at_random_moments_ends_with_the_same_result(start, tmp_path, np, options):
    def command(name):
        settings = words(*NET, *ACROSS, "checkpoint.every=5it", f"output={tmp_path}", f"name={name}")
        return ["launch/find_lr.py", *settings, *options, "--resume", "auto"]

    start(*command("whole"), np=np, exit_code=None)
    drawn, kills = random.Random(f"{np} {options}"), 0
    for _ in range(5):
        process = subprocess.Popen(
            [*(launched_by("mpirun", np) if np else []), sys.executable, *command("killed")],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(drawn.uniform(3, 10))
        except subprocess.TimeoutExpired:
            for one in (process.pid, *descendants(process.pid)):  # ranks have process groups of their own
                with suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)
            process.wait()
            kills += 1
    start(*command("killed"), np=np, exit_code=None)
    assert kills
    name = "finder-across/scaling.json" if options else "finder/result.json"
    whole, killed = (json.loads((tmp_path / run / name).read_text()) for run in ("whole", "killed"))
    assert killed == whole


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--across", "1"], "give 2 to 16 different whole numbers from 1, such as 1,2,4,8"),
        (["--across", "1,1"], "'1,1' is not a list of multiples"),
        (["--across", "0,1"], "'0,1' is not a list of multiples"),
        (["--across", "1,2,x"], "'1,2,x' is not a list of multiples"),
        (["--across", "1,99999999"], "'1,99999999' is not a list of multiples"),
        (["--across", ""], "'' is not a list of multiples"),
        (["--across", "1,2", "--checkpoint", "runs/x"], "give --set init.from=runs/x instead of --checkpoint"),
        (["--overwrite", "--resume", "auto"], "--overwrite starts over, but --resume auto resumes"),
        (["--resume", "runs/x"], "invalid choice: 'runs/x'"),
        (["--checkpoint", "auto"], "'auto' is not a path"),
    ],
)
def test_options_that_cannot_be(capsys, options, reason):
    with pytest.raises(SystemExit) as raised:
        parse_arguments(options)
    assert raised.value.code == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (["finder.repeats=1"], "finder.repeats: 1 sweep at each batch gives no interval"),
        (["finder={spacing: linear, num_iterations: 50}"], "finder.spacing: linear has no speed to extrapolate over"),
        (["batch.size=1000"], "--across: 2 times the global batch of 1000 are 2000 samples, and there are 1437"),
    ],
)
def test_batches_that_cannot_be_measured(here, tmp_path, settings, reason):
    done = here("launch/find_lr.py", "--across", "1,2", *words(*settings, f"output={tmp_path}"), exit_code=2)
    assert reason in done.stderr
    assert not list(tmp_path.iterdir())


def test_from_a_checkpoint(here, find, tmp_path):
    here("launch/train.py", *words(*NET, f"output={tmp_path}", "train={iterations: 20}", "name=run"))
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    checkpoint = ["--checkpoint", tmp_path / "run"]
    done, result, _ = find("train={iterations: 99}", "name=run", options=checkpoint, exit_code=None)
    assert result["provenance"]["after_iteration"] == 20
    assert len(result["sweeps"][0]["probes"]) == 8
    assert "state restored: digest " in done.stdout
    assert all(path.read_bytes() == content for path, content in before.items() if path.name != ".lock")


@pytest.mark.long
@pytest.mark.parametrize("np", [pytest.param(None, marks=pytest.mark.thorough), 2])
def test_auto_trains_as_the_same_number_by_hand(launch, tmp_path, np):
    settings = (*NET, *QUICK, "train={iterations: 20}")

    def digest(*more):
        out = launch("launch/train.py", *words(*settings, *more), np=np).stdout
        return re.search(r"digest ([0-9a-f]{64})", out)[1], out

    found, out = digest(f"output={tmp_path}", "name=auto", "lr.base=auto")
    result = result_in(tmp_path / "auto/finder")
    number, batch = result["suggestion"]["lr"], result["provenance"]["global_batch"]
    assert f"lr.base {number:.4g}, found at a global batch of {batch}" in out
    assert f"base: {number}\n" in (tmp_path / "auto/config.yaml").read_text()
    assert digest(f"output={tmp_path}", "name=hand", f"lr.base={number}", f"lr.reference_batch={batch}")[0] == found
    assert digest(f"output={tmp_path}", "name=file", f"lr.base={tmp_path}/auto/finder/result.json")[0] == found
    again = launch(
        "launch/train.py", *words(*settings, f"output={tmp_path}", "name=auto", "lr.base=auto"), "--resume", "auto"
    )
    assert re.search(r"digest ([0-9a-f]{64})", again.stdout)[1] == found
    assert "found at" not in again.stdout  # a run that goes on does not find again


def test_a_result_is_scaled_from_the_batch_it_was_found_at(here, find, tmp_path):
    _, result, folder = find()
    number = result["suggestion"]["lr"]
    settings = words(
        *NET, f"lr.base={folder}/result.json", "train={iterations: 2}", "lr.schedule=1x", f"output={tmp_path}"
    )
    out = here("launch/train.py", *settings, "--emulate-np", "4").stdout
    assert f"{number:g} for a batch of 32, at batch 32 x 4 shards (linear) = {4 * number:g}" in out
    assert "warning" not in out
    out = here("launch/train.py", *settings, "--overwrite", *words("optimizer={name: adam}")).stdout
    assert "warning: it was found for optimizer" in out


def test_a_nan_in_one_shard_stops_both_ranks(find):
    """Rank 1 alone has a bad sample: both stop on the iteration that meets it; what was seen before still serves."""
    iteration = 60
    order = Order(4000, shards=2, batch_size=32, seed=0, stream="finder/0")
    bad = int(order.shard_indices(iteration, shard=1)[5])
    done, result, folder = find(
        "data={name: 'tests.programs.own:data_of_rank', augment: {pad_crop: 0, flip: false}}",
        "network={name: mlp, params: {hidden: [8]}}",
        "finder={lr_start: 1e-4, lr_multiplier: 1.2, growth: 20}",
        np=2,
        launcher="horovodrun",
        BAD_ITEM=str(bad),
    )
    (sweep,) = result["sweeps"]
    assert sweep["stop"].startswith("loss, gradient or running statistics were not finite")
    assert len(sweep["points"]) == iteration
    assert [loss is None for _, loss in sweep["points"]] == [False] * (iteration - 1) + [True]
    assert result["suggestion"]["lr"] is not None
    assert "not finite" in (folder / "report.html").read_text()
    assert "not finite" in done.stdout


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (["finder={max_iterations: 3}"], "3 finite points, but at least 15"),
        (["finder={lr_start: 1e-9, lr_end: 1e-6, lr_multiplier: 1.2}"], "the curve is flat"),
        (["finder={lr_start: 3, lr_end: 100, lr_multiplier: 1.05}"], "within a decade of the first learning rate 3"),
    ],
)
def test_what_cannot_be_defended_ends_with_8(here, find, tmp_path, settings, reason):
    done, result, _ = find(*settings, exit_code=8)
    assert reason in done.stderr
    assert result["suggestion"]["lr"] is None
    auto = words(*NET, *settings, "lr.base=auto", f"output={tmp_path}", "name=auto")
    done = here("launch/train.py", *auto, exit_code=8)
    for part in (reason, "What to do:", "finder.", "or give a number as lr.base"):
        assert part in done.stderr
    assert (tmp_path / "auto/finder/report.html").exists()


@pytest.mark.parametrize(
    ("settings", "code", "part"),
    [
        (["finder.lr_start=-1"], 2, "finder.lr_start"),
        (["finder.lr_multiplier=0.9"], 2, "finder.lr_multiplier: 0.9 does not raise"),
        (["finder={lr_start: 1, lr_end: 0.1}"], 2, "finder.lr_end: 0.1 is not above lr_start"),
        (["finder={num_iterations: 50, lr_multiplier: 1.1}"], 2, "give exactly one of them"),
        (["finder={spacing: linear}"], 2, "linear needs num_iterations"),
        (["finder.rule=deepest"], 2, "finder.rule"),
        (["finder.held_out_batches=4"], 2, "finder.held_out_batches: 4 has no effect with on: train"),
        (["lr={base: auto, schedule: 0.1}"], 2, "lr.base: auto has no effect"),
        (["lr.base=auto", "lr.reference_batch=32"], 2, "lr.reference_batch: 32 has no effect with base: auto"),
        (["lr.base=atuo"], 2, "or the path of a finder's result.json"),
        (["lr.base=absent/result.json"], 2, "cannot be read (No such file or directory)"),
        (["lr.base=FOREIGN.json"], 2, "is not the result of a finder"),
        (["lr.base=TORN.json"], 2, "is not valid JSON"),
        (["lr.base=REFUSED.json"], 8, "found no reliable learning rate: it was flat"),
    ],
)
def test_wrong_uses(here, tmp_path, settings, code, part):
    refusal = {"reason": "it was flat", "advice": "go higher"}
    contents = {
        "FOREIGN": '{"a": 1}',
        "TORN": '{"a": ',
        "REFUSED": json.dumps(
            {
                "format": 1,
                "kind": "learning-rate finder",
                "suggestion": {"lr": None, "refusal": refusal},
                "provenance": {"global_batch": 32},
            }
        ),
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.json").write_text(content)
        settings = [setting.replace(f"{name}.json", f"{tmp_path}/{name}.json") for setting in settings]
    done = here("launch/train.py", *words(*settings, f"output={tmp_path}/runs"), exit_code=code)
    assert part in done.stderr
    assert "Traceback" not in done.stderr


OPTIMIZERS = {
    "sgd": "{momentum: 0.9, wd: 1e-3}",
    "nag": "{momentum: 0.9, wd: 1e-3}",
    "adam": "{}",
    "lamb": "{}",
    "lars": "{momentum: 0.9}",
    "rmsprop": "{}",
}
FASHION = "configs/fashion_mnist_cnn.yaml"
CASES = [("configs/digits.yaml", "lars", 2)]
if THOROUGH:
    CASES = [
        (config, name, np) for config in ("configs/digits.yaml", FASHION) for name in OPTIMIZERS for np in (None, 2)
    ]


@pytest.mark.long
@pytest.mark.parametrize(("config", "name", "np"), CASES)
def test_no_rank_is_disturbed(start, shared_data, config, name, np):
    """Before training, at iteration 137, and when a sweep raises, with batch norm, dropout and augmentation."""
    settings = [*NET, *QUICK, f"optimizer={{name: {name}, params: {OPTIMIZERS[name]}}}"]
    if config == FASHION:
        settings += [f"data.root={shared_data('fashion-mnist')}"]
    done = start("tests/programs/find_and_compare.py", config, *settings, np=np, launcher="mpirun")
    report = json.loads(re.search(r"REPORT (.*)", done.stdout)[1])
    assert set(report) == {"untrained", "at 137", "raised"}
    assert report["untrained"][0] != report["at 137"][0]
    for before, num_points, after in report.values():
        assert before == after == before[:1] * (np or 1)
        assert num_points >= 9


@pytest.mark.parametrize("elsewhere", [False, True], ids=["in the run's folder", "in a folder of its own"])
def test_a_finder_keeps_away_from_a_folder_that_is_in_use(here, tmp_path, elsewhere):
    """A run that trains writes there too, and an earlier report would be moved aside under it."""
    folder = tmp_path / "runs" / "x"
    report = tmp_path / "report" if elsewhere else folder / "finder"
    report.mkdir(parents=True)
    (report / "result.json").write_text("{}")
    lock = lock_of_name(report if elsewhere else folder)
    lock.acquire()
    options = ["--output", report] if elsewhere else []
    done = here("launch/find_lr.py", *options, "--set", f"output={tmp_path / 'runs'}", "--set", "name=x", exit_code=2)
    lock.release()
    assert f"process {os.getpid()} on " in done.stderr
    assert "is writing there; wait until it has ended, or " in done.stderr
    assert ("choose another --output" if elsewhere else "--set name=") in done.stderr
    assert (report / "result.json").read_text() == "{}"
    assert "sweep" not in done.stdout
