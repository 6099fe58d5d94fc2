"""`launch/data.py`: files as im2rec writes them, runs killed and resumed, every damaged picture listed, sheets."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from harness.processes import descendants, state
from tests.conftest import ROOT

simplejpeg = pytest.importorskip("simplejpeg")
pytest.importorskip("cv2")

IM2REC = Path(mx.__file__).parent / "tools" / "im2rec.py"
CLASSES = ("cat", "dog", "owl")
CONFIG = """
name: animals
data:
  name: folder
  pictures: {train: {folder: set}, size: 16, resize: 20}
  augment: {flip: true, mean: [0.5], std: [0.25]}
batch: {size: 4, shards: 2}
train: {iterations: 6}
evaluation: {every: 6it}
network: {name: mlp}
optimizer: {name: sgd}
lr: {base: 0.02, schedule: {constant: {lr: 1x}}}
"""
SUFFIXES = (".rec", ".idx", ".lst")


def write_pictures(folder, each, size=30):
    draw = np.random.default_rng(2)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for number in range(each):
            height, width = size + draw.integers(0, 20, 2)
            pixels = draw.integers(0, 256, (height, width, 3)).astype(np.uint8)
            (folder / name / f"{number:03}.jpg").write_bytes(simplejpeg.encode_jpeg(pixels, quality=90))


@pytest.fixture
def made(tmp_path):
    """Ten pictures of each class, and a configuration."""
    write_pictures(tmp_path / "set", 10)
    (tmp_path / "c.yaml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def data(command, made):
    """Run the command in the folder of the pictures, in this process."""
    return lambda *arguments: command("data", *arguments, cwd=made)


def written(folder, name):
    return {suffix: (folder / f"{name}{suffix}").read_bytes() for suffix in SUFFIXES}


# Packing.


def test_the_files_are_those_of_im2rec_to_the_byte(start, data, made):
    (made / "theirs").mkdir()
    start(IM2REC, "--list", "--recursive", made / "theirs/out", made / "set", fresh=True)
    start(IM2REC, "--pass-through", made / "theirs/out", made / "set", fresh=True)
    done = data("pack", "set", "out.rec", "--workers", 1)
    assert (done.code, done.err) == (0, "")
    assert written(made, "out") == written(made / "theirs", "out")
    assert re.fullmatch(
        r"out\.rec: 30 records, 0\.\d MB; MXNet 1\.9\.1 reads key, labels and picture of each as they were packed\n"
        r"to train on it: data: \{name: records, pictures: \{train: \{rec: out\.rec\}, num_classes: 3, "
        r"class_names: out\.classes\}\}\n",
        done.out,
    )
    assert (made / "out.classes").read_text() == "cat\ndog\nowl\n"
    assert not list(made.glob("*.part")) + list(made.glob("*.journal")) + list(made.glob(".*"))


def test_parts_and_order_are_those_of_im2rec_too(start, data, made):
    (made / "theirs").mkdir()
    start(
        IM2REC,
        "--list",
        "--recursive",
        "--no-shuffle",
        "--train-ratio",
        0.7,
        made / "theirs/out",
        made / "set",
        fresh=True,
    )
    start(IM2REC, "--pass-through", made / "theirs/out", made / "set", fresh=True)
    done = data("pack", "set", "out.rec", "--workers", 1, "--in-order", "--train-ratio", 0.7)
    for part in ("out_train", "out_val"):
        assert written(made, part) == written(made / "theirs", part)
    assert "{train: {rec: out_train.rec}, validation: {rec: out_val.rec}, num_classes: 3, " in done.out


def test_a_list_with_several_labels_is_packed_as_im2rec_packs_labels(start, data, made):
    lines = [f"{90 - row}\t{row % 3}.000000\t{row}.500000\t{CLASSES[row % 3]}/00{row}.jpg\n" for row in range(9)]
    (made / "theirs").mkdir()
    for path in (made / "own.lst", made / "theirs/own.lst"):
        path.write_text("".join(lines))
    start(IM2REC, "--pass-through", "--pack-label", made / "theirs/own", made / "set", fresh=True)
    done = data("pack", "set", "own.rec", "--lst", "own.lst", "--workers", 1)
    assert written(made, "own") == written(made / "theirs", "own")
    assert done.out.endswith("to train on it: data: {name: records, pictures: {train: {rec: own.rec}}}\n")


def digest_of(done):
    (digest,) = re.findall(r"digest ([0-9a-f]{64})", done.stdout)
    return digest


def test_a_run_on_what_was_packed_ends_as_one_on_the_folder(here, data, made):
    assert data("pack", "set", "out.rec", "--workers", 1).code == 0
    assert data("pack", "set", "small.rec", "--workers", 1, "--resize", 24).code == 0
    folder = [
        "launch/train.py",
        "--config",
        made / "c.yaml",
        "--set",
        f"data.root={made}",
        "--set",
        f"output={made}/runs",
    ]
    digests = [digest_of(here(*folder, "--set", "name=folder"))]
    for name in ("out", "small"):
        files = f"{{rec: {name}.rec}}"
        records = ["--set", f"name={name}", "--set", "data.name=records", "--set", f"data.pictures.train={files}"]
        digests.append(digest_of(here(*folder, *records)))
    assert digests[0] == digests[1] != digests[2]


@pytest.fixture
def packing():
    """Start the command as a process of its own; it and its processes are killed at the end."""
    begun = []

    def start(folder, *options):
        command = [sys.executable, str(ROOT / "launch/data.py"), "pack", "set", "out.rec", *options]
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        begun.append(subprocess.Popen(command, cwd=folder, env=environ, start_new_session=True, **piped))
        return begun[-1]

    yield start
    for process in begun:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for_records(folder, process, count):
    """Until the journal has that many."""
    journal, deadline = folder / "out.rec.journal", time.monotonic() + 60
    while not journal.exists() or journal.read_text().count("\n") <= count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def many(tmp_path):
    write_pictures(tmp_path / "set", 30, 250)
    return tmp_path


def test_killed_with_its_processes_and_resumed(command, packing, many):
    process = packing(many, "--workers", "2")
    wait_for_records(many, process, 3)
    process.send_signal(signal.SIGSTOP)  # there is more to be done when it is killed
    below = descendants(process.pid)
    assert len(below) >= 2
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while any(state(pid) for pid in below) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(state(pid) for pid in below), "its processes outlive it"
    again = command("data", "pack", "set", "out.rec", "--workers", 1, cwd=many)
    assert again.code == 0
    done = int(re.match(r"out\.rec: resuming after (\d+) of 90 pictures\n", again.out)[1])
    assert 3 <= done < 90
    command("data", "pack", "set", "whole.rec", "--workers", 1, cwd=many)
    assert written(many, "out") == written(many, "whole")


def test_a_process_of_several_that_is_killed_is_told_of(packing, many):
    process = packing(many, "--workers", "2")
    wait_for_records(many, process, 3)
    process.send_signal(signal.SIGSTOP)
    spawned = [pid for pid in descendants(process.pid) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(spawned[0], signal.SIGKILL)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert re.search(
        r"error: a process that reads pictures has ended, at one of \S+\.jpg to \S+\.jpg: it was killed, or memory ran "
        r"out; run the command again, which resumes, with fewer --workers\n$",
        err,
    )


def test_damaged_pictures_are_left_out_only_when_asked_for(data, made):
    broken = made / "set/dog/004.jpg"
    broken.write_bytes(broken.read_bytes()[:-20])
    done = data("pack", "set", "out.rec", "--workers", 1)
    assert (done.code, done.out) == (3, "")
    assert re.fullmatch(
        r"error: set/dog/004\.jpg: .+; replace the file and run the command again, which resumes.+\n", done.err
    )
    done = data("pack", "set", "out.rec", "--workers", 1, "--skip-damaged")
    assert done.code == 0
    lines = done.out.splitlines()
    assert re.match(r"out\.rec: resuming after \d+ of 30 pictures", lines[0])
    assert lines[1].startswith("left out: set/dog/004.jpg: ")
    assert lines[2].startswith("out.rec: 29 records")
    assert "dog/004" not in (made / "out.lst").read_text()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nowhere", "out.rec"], 3, "nowhere: is not a folder; give one that has a folder for each class"),
        (["empty", "out.rec"], 3, "empty: has no picture; allowed: a folder for each class"),
        (["set", "out.rec", "--lst", "none.lst"], 3, "none.lst: cannot be read"),
        (["set", "out.bin"], 2, "OUT.rec: found out.bin; give a name that ends in .rec"),
        (["set", "there.rec"], 2, "there.rec: is there already; choose another name, or replace it with --overwrite"),
        (["set", "mine.rec"], 2, "mine.classes: is there already; choose another name, or replace it with --overwrite"),
        (["set", "c.yaml/out.rec"], 2, "c.yaml: cannot be written (File exists); free some disk space"),
        (
            ["set", "out.rec", "--quality", "50"],
            2,
            "--quality has no effect without --resize: files are packed as",
        ),
        (["set", "out.rec", "--resize", "0"], 2, "--resize: 0 is not pixels; allowed: 1 to 65500"),
        (["set", "out.rec", "--resize", "9", "--quality", "101"], 2, "101 is not a quality; allowed: 1 to 100"),
        (["set", "out.rec", "--workers", "0"], 2, "0 is not processes; allowed: 1 to 1024"),
        (["set", "out.rec", "--train-ratio", "1"], 2, "--train-ratio: 1 is not possible; allowed: between 0 and 1"),
        (["set", "out.rec", "--train-ratio", "0.01"], 3, "--train-ratio 0.01 of 30 pictures leaves 0 to train on"),
        (["set", "out.rec", "--lst", "a", "--in-order"], 2, "--lst says which pictures are packed, and in which order"),
    ],
)
def test_wrong_uses_of_pack(data, made, words, code, said):
    (made / "empty").mkdir()
    (made / "there.rec").write_text("mine")
    (made / "mine.classes").write_text("mine")
    done = data("pack", *words, *([] if "--workers" in words else ["--workers", 1]))
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert "Traceback" not in done.err
    assert (made / "there.rec").read_text() == (made / "mine.classes").read_text() == "mine"
    assert not (made / "out.rec").exists()


# Checking.


def test_all_pictures_are_decoded(data):
    done = data("check", "c.yaml")
    assert (done.code, done.err) == (0, "")
    assert re.fullmatch(
        r"data\.pictures\.train: 30 pictures, 0 of them damaged; short edges of 3\d to 4\d pixels, half of them up to "
        r"3\d\n",
        done.out,
    )


@pytest.mark.parametrize("workers", [1, 3])
def test_every_damaged_picture_of_every_split_is_listed_in_order(data, made, workers):
    for name in ("cat/009", "dog/000", "owl/009"):
        path = made / f"set/{name}.jpg"
        path.write_bytes(path.read_bytes()[:-20])
    (made / "set/owl/003.jpg").write_bytes(b"")
    (made / "own.lst").write_text("0\t5\tcat/001.jpg\n1\t0.5\tcat/009.jpg\n2\t1\tcat/none.jpg\n3\t1\tdog/001.jpg\n")
    splits = ["--set", "data.pictures.validation={folder: set, lst: own.lst}"]
    done = data("check", "c.yaml", *splits, "--workers", workers)
    assert (done.code, done.err) == (
        3,
        "error: c.yaml: 7 of 34 pictures cannot be used; replace them, or leave them out\n",
    )
    lines = done.out.splitlines()
    named = [re.match(r"data\.pictures\.(\w+): sample (\d+): (\S+\.jpg): \w", line) for line in lines]
    assert [found.groups() for found in named if found] == [
        ("train", "9", "set/cat/009.jpg"),
        ("train", "10", "set/dog/000.jpg"),
        ("train", "23", "set/owl/003.jpg"),
        ("train", "29", "set/owl/009.jpg"),
        ("validation", "0", "set/cat/001.jpg"),
        ("validation", "1", "set/cat/009.jpg"),
        ("validation", "2", "set/cat/none.jpg"),
    ]
    assert lines[2].endswith(": is empty")
    assert lines[5].endswith("the label is 5, but classes are 0 to 2")
    assert lines[7].endswith("cannot be read (No such file or directory)")
    assert lines[4].startswith("data.pictures.train: 30 pictures, 4 of them damaged; ")
    assert lines[8].startswith("data.pictures.validation: 4 pictures, 3 of them damaged; ")


def test_damage_in_records_is_listed_with_record_and_byte(data, made):
    assert data("pack", "set", "out.rec", "--workers", 1, "--in-order").code == 0
    starts = [int(line.split()[1]) for line in (made / "out.idx").read_text().splitlines()]
    held = bytearray((made / "out.rec").read_bytes())
    held[starts[5] : starts[5] + 4] = b"\0" * 4
    held[starts[20] + 40 : starts[20] + 60] = b"\0" * 20
    (made / "out.rec").write_bytes(held)
    records = ["--set", "data.name=records", "--set", "data.pictures.train={rec: out.rec}"]
    done = data("check", "c.yaml", *records)
    assert done.code == 3
    where = [f"data.pictures.train: sample {row}: out.rec, record {row} at byte {starts[row]}: " for row in (5, 20)]
    assert [line.startswith(one) for line, one in zip(done.out.splitlines(), where, strict=False)] == [True, True]
    assert "found 0x00000000 where a record begins with 0xced7230a" in done.out


def test_a_label_beyond_those_of_training_is_listed(data, made):
    for name, label in (("a", 2), ("b", 3)):
        (made / f"{name}.lst").write_text(f"0\t0\tcat/001.jpg\n1\t{label}\tcat/002.jpg\n")
    splits = "{train: {folder: set, lst: a.lst}, validation: {folder: set, lst: b.lst}}"
    done = data("check", "c.yaml", "--set", f"data.pictures={splits}")
    assert (done.code, done.out.splitlines()[1]) == (
        3,
        "data.pictures.validation: sample 1: set/cat/002.jpg: the label is 3, but classes are 0 to 2",
    )
    (made / "a.lst").write_text("0\t0\tcat/001.jpg\n1\tnan\tcat/002.jpg\n2\tinf\tcat/003.jpg\n3\t-1\tcat/004.jpg\n")
    done = data("check", "c.yaml", "--set", "data.pictures.train={folder: set, lst: a.lst}")
    said = [line.partition(".jpg: ")[2] for line in done.out.splitlines()[:3]]
    assert said == [f"the label is {label}, but classes are 0 to 999" for label in ("nan", "inf", "-1")]
    (made / "a.lst").write_text("0\t0\tcat/001.jpg\n1\tinf\tcat/002.jpg\n")
    numbers = ["--set", "network.loss=l2"]
    assert data("check", "c.yaml", "--set", f"data.pictures={splits}", *numbers).code == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nosuch.yaml"], 2, "nosuch.yaml: cannot be read"),
        (["digits"], 2, "data.name: 'digits': there are no picture files to check (records, folder)"),
        (["c.yaml", "--set", "data.pictures.train.folder=none"], 3, "c.yaml: none: is not a folder"),
        (["c.yaml", "--set", "data.pictures.size=0"], 2, "c.yaml: data.pictures.size: found 0"),
    ],
)
def test_wrong_uses_of_check(data, words, code, said):
    done = data("check", *words)
    assert (done.code, done.out) == (code, "")
    assert said in done.err


# Indices.


def test_an_index_is_written_anew(data, made):
    assert data("pack", "set", "out.rec", "--workers", 1).code == 0
    expected = (made / "out.idx").read_text()
    (made / "out.idx").write_text("damaged")
    done = data("index", "out.rec")
    assert (done.code, done.out) == (0, "out.idx: 30 records of out.rec\n")
    assert (made / "out.idx").read_text() == expected
    (made / "out.rec").write_bytes((made / "out.rec").read_bytes()[:-6])
    done = data("index", "out.rec")
    assert done.code == 3
    assert "the record is cut off" in done.err
    assert data("index", "c.yaml").code == 3


# Sheets.


def test_a_sheet_of_pictures_with_the_names_of_their_classes(data, made):
    done = data("show", "c.yaml", "--samples", "0-2,29", "--epoch", 1, 3)
    assert (done.code, done.err) == (0, "")
    assert done.out == (
        "animals: train, epochs 1, 3: 8 pictures\n"
        "wrote sheets/animals-train-epochs-1-3.html and sheets/animals-train-epochs-1-3.png\n"
    )
    page = (made / "sheets/animals-train-epochs-1-3.html").read_text()
    assert page.count("<figure>") == 8
    assert page.count('title="set/owl/009.jpg"') == 2
    assert "<b>2 owl</b>" in page
    assert "sample 29, epoch 3" in page
    assert "float32 (3, 16, 16); 0 is drawn black, and 1 white, after mean and std were undone" in page


def test_records_have_the_names_of_a_file(data, made):
    assert data("pack", "set", "out.rec", "--workers", 1).code == 0
    files = "{train: {rec: out.rec}, class_names: out.classes, size: 16}"
    done = data("show", "c.yaml", "--set", "data.name=records", "--set", f"data.pictures={files}", "--output", "here")
    assert (done.code, done.err) == (0, "")
    page = (made / "here/animals-train-epoch-1.html").read_text()
    assert page.count("<figure>") == 24
    assert "<b>1 dog</b>" in page
    assert 'title="out.rec, record 0 at byte ' in page


def test_arrays_are_shown_too_and_other_splits(data, made):
    assert data("show", "digits", "--samples", "7").code == 0
    assert "float32 (1, 8, 8); 0 is drawn black, and 1 white" in (made / "sheets/digits-train-epoch-1.html").read_text()
    assert data("show", "digits", "--split", "test").out.startswith("digits: test: 24 pictures\n")


def test_an_iteration_shows_what_collate_makes_of_it(data, made):
    mixed = ["--set", "data.collate=mixup", "--set", "network.loss_params={sparse_label: false}"]
    mixed += ["--set", "data.pictures.num_classes=3"]
    done = data("show", "c.yaml", *mixed, "--iteration", 4)
    assert (done.code, done.err) == (0, "")
    page = (made / "sheets/animals-train-iteration-4.html").read_text()
    assert page.count("<figure>") == 8
    assert re.search(r"<b>\d \w+: \d+%, \d \w+: \d+%</b>", page)
    assert re.search(r"sample \d+, shard 1", page)
    data("show", "c.yaml", *mixed)
    assert "before data.collate" in (made / "sheets/animals-train-epoch-1.html").read_text()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["c.yaml", "--samples", "3,30"], 2, "c.yaml: --samples: there is no sample 30; allowed: 0 to 29"),
        (["c.yaml", "--samples", "5-3"], 2, "'5-3' names no samples; allowed: 7, 0-11, or several with commas"),
        (["c.yaml", "--samples", "0-29", "--epoch", *range(1, 16)], 2, "450 pictures are too many for a sheet"),
        (["c.yaml", "--epoch", "0"], 2, "0 is not an epoch; allowed: 1 to"),
        (["c.yaml", "--iteration", "7"], 2, "c.yaml: --iteration: there is no iteration 7; the run has 6; allowed: 1"),
        (
            ["c.yaml", "--set", "train={epochs: 2}", "--iteration", "7"],
            2,
            "c.yaml: --iteration: there is no iteration 7; the run has 6; allowed: 1 to 6",
        ),
        (["c.yaml", "--split", "test"], 2, "c.yaml: --split: there are no test samples"),
        (
            ["c.yaml", "--split", "test", "--epoch", "2"],
            2,
            "--split test: it is looked at without augmentation;",
        ),
        (["c.yaml", "--iteration", "2", "--samples", "1"], 2, "--iteration says which samples are shown, and of which"),
        (["c.yaml", "--output", "c.yaml"], 2, "cannot be written"),
        (["c.yaml", "--set", "data.pictures.train.folder=none"], 3, "c.yaml: none: is not a folder"),
        (
            ["digits", "--set", "data={name: 'tests.programs.own_data:tokens'}"],
            3,
            "and no picture, (channels, height, width) or (height, width)",
        ),
    ],
)
def test_wrong_uses_of_show(data, words, code, said):
    done = data("show", *words)
    assert done.code == code, done.err
    assert said in done.err
    assert "Traceback" not in done.err
