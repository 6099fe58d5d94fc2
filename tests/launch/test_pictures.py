"""Runs on picture files: one digest from records and from folders, on any number of ranks and threads, and resumed."""

from __future__ import annotations

import json
import re
import shutil

import mxnet as mx
import numpy as np
import pytest

from harness.data import Order, permutation
from tests.data import damaged_pictures

simplejpeg = pytest.importorskip("simplejpeg")
pytest.importorskip("cv2")

CONFIG = """
name: pictures
data:
  name: folder
  validation: 0.25
  pictures: {train: {folder: set}, size: 16, resize: 20, area: [0.5, 1]}
  workers: 1
  augment:
    flip: true
    mean: [0.485, 0.456, 0.406]
    std: [0.229, 0.224, 0.225]
    brightness: 0.2
    contrast: 0.2
    saturation: 0.2
    hue: 0.1
    lighting: 0.1
    erase: 0.2
batch: {size: 4, shards: 3}
train: {iterations: 14, last_batch: keep}
evaluation: {every: 7it}
checkpoint: {every: 7it, keep: 5}
network: {name: mlp}
optimizer: {name: sgd, params: {momentum: 0.9}}
lr: {base: 0.02, schedule: {constant: {lr: 1x}}}
"""
CLASSES, EACH = 3, 20
RECORDS = ["data.name=records", "data.pictures.train={rec: all.rec}"]


def options_of(*settings):
    return [word for one in settings for word in ("--set", one)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a folder of JPEG files for each class, the records of them in another order, and a configuration.

    The pictures of a class are bright in a third of their own.
    """
    root = tmp_path_factory.mktemp("made")
    random = np.random.default_rng(0)
    files = []
    for number in range(CLASSES):
        folder = root / "set" / f"class{number}"
        folder.mkdir(parents=True)
        for one in range(EACH):
            height, width = random.integers(30, 60, 2)
            pixels = random.integers(0, 120, (height, width, 3)).astype(np.uint8)
            pixels[number * height // CLASSES : (number + 1) * height // CLASSES] += 120
            path = folder / f"{one:02}.jpg"
            path.write_bytes(simplejpeg.encode_jpeg(pixels, quality=90))
            files.append((number, path.read_bytes()))
    writer = mx.recordio.MXIndexedRecordIO(str(root / "all.idx"), str(root / "all.rec"), "w")
    for key in random.permutation(len(files)).tolist():  # as im2rec with several threads
        label, content = files[key]
        writer.write_idx(key, mx.recordio.pack(mx.recordio.IRHeader(0, float(label), key, 0), content))
    writer.close()
    (root / "two.classes").write_text("class0\nclass1\n")
    (root / "pictures.yaml").write_text(CONFIG)
    return root


@pytest.fixture
def train(launch, tmp_path, made):
    def run(*settings, name="run", options=(), **how):
        words = options_of(f"output={tmp_path}", f"data.root={made}", f"name={name}", *settings)
        return launch("launch/train.py", "--config", made / "pictures.yaml", *words, *options, **how)

    return run


def digest_of(done):
    (digest,) = re.findall(r"digest ([0-9a-f]{64})", done.stdout)
    return digest


@pytest.fixture(scope="module")
def alone(start, tmp_path_factory, made):
    words = options_of(f"output={tmp_path_factory.mktemp('alone')}", f"data.root={made}")
    return digest_of(start("launch/train.py", "--config", made / "pictures.yaml", *words))


@pytest.mark.parametrize(
    ("settings", "how"),
    [
        (["data.workers=3", "data.prefetch=1"], {}),
        (["data.workers=0"], {}),
        ([*RECORDS, "data.workers=2"], {"np": 2, "launcher": "mpirun"}),
        ([*RECORDS, "data.prefetch=9"], {"np": 3, "launcher": "mpirun"}),
    ],
    ids=["threads", "no thread", "records on two ranks", "records on three ranks"],
)
def test_one_digest(train, alone, settings, how):
    assert digest_of(train(*settings, **how)) == alone


def test_resumed_in_the_middle_from_another_place_with_other_threads(train, alone, tmp_path, made):
    train("data.workers=2")
    place = tmp_path / "run" / "checkpoints" / "iteration-000000007"
    done = train(*RECORDS[1:], "data.name=folder", name="wrong", options=["--resume", place], exit_code=3)
    assert "data.pictures.train: data.name: 'folder' needs folder, and no rec" in done.stderr
    moved = tmp_path / "elsewhere"
    shutil.copytree(made / "set", moved)
    settings = [f"data.pictures.train={{folder: {moved}}}", "data.workers=1"]
    assert digest_of(train(*settings, name="again", options=["--resume", place])) == alone


def test_a_list_gives_labels_of_its_own(train, made):
    paths = sorted((made / "set").rglob("*.jpg"))
    lines = [f"{row}\t{row % 2}\t{path.relative_to(made)}\n" for row, path in enumerate(paths)]
    (made / "own.lst").write_text("".join(reversed(lines)))
    done = train("data.pictures.train={folder: ., lst: own.lst}", "train={iterations: 1}")
    assert "digest" in done.stdout


def test_a_damaged_picture_ends_the_run_or_is_replaced(train, alone, tmp_path, made):
    moved = tmp_path / "damaged"
    shutil.copytree(made / "set", moved)
    broken = moved / "class1" / "07.jpg"
    broken.write_bytes(broken.read_bytes()[:-9])
    files = f"data.pictures.train={{folder: {moved}}}"
    for how in ({}, {"np": 2, "launcher": "mpirun"}):
        done = train(files, name="stops", options=["--overwrite"], exit_code=3, **how)
        assert done.stderr.count("data.pictures.train: sample 27: ") == 1
        advice = "replace the file, leave it out, or set data.pictures.damaged: replace"
        assert re.search(rf"{broken}: .*; {advice}", done.stderr)
    found = [digest_of(train(files, "data.pictures.damaged=replace", name=f"r{np}", np=np)) for np in (None, 2)]
    assert found[0] == found[1] != alone


SAMPLE = 101  # none of the 64 that the start looks at
KINDS = {
    "cut": (lambda file: file[:-2], ": "),
    "HTML": (lambda file: b"<!DOCTYPE html>", ": is no JPEG, PNG or WebP file; it begins with 3c 21 44 4f 43 54 59 50"),
    "empty": (lambda file: b"", ": is empty"),
    "claims": (
        lambda file: damaged_pictures.png(60_000, 60_000),
        ": claims 60000 x 60000 pixels; allowed: 1 to 268,435,456 in all",
    ),
    "header": (None, ": the record's header claims 2147483647 labels, in "),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_that_is_damaged_ends_a_run_with_one_message_on_any_number_of_ranks(train, tmp_path, kind):
    change, reason = KINDS[kind]
    writer = mx.recordio.MXIndexedRecordIO(str(tmp_path / "a.idx"), str(tmp_path / "a.rec"), "w")
    for key in range(200):
        content = damaged_pictures.encoded("jpeg", seed=key % 7)
        content = change(content) if key == SAMPLE and change else content
        writer.write_idx(key, mx.recordio.pack(mx.recordio.IRHeader(0, float(key % 3), key, 0), content))
    writer.close()
    start = int((tmp_path / "a.idx").read_text().splitlines()[SAMPLE].split()[1])
    if change is None:
        held = bytearray((tmp_path / "a.rec").read_bytes())
        held[start + 8 : start + 12] = b"\xff\xff\xff\x7f"
        (tmp_path / "a.rec").write_bytes(bytes(held))
    files = ["data.name=records", f"data.pictures.train={{rec: {tmp_path}/a.rec}}", "train={epochs: 1}"]
    found = set()
    for how in ({}, {"np": 2, "launcher": "mpirun"}):
        done = train(*files, "data.validation=0", "evaluation.every=null", options=["--overwrite"], exit_code=3, **how)
        errors = [line for line in done.stderr.splitlines() if "error: " in line]
        (line,) = [line for line in errors if "waiting in the collective" not in line]  # where others were by then
        found.add(re.sub(r"^error: rank 1: ", "error: ", line))
    (line,) = found
    assert f"data.pictures.train: sample {SAMPLE}: {tmp_path}/a.rec, record {SAMPLE} at byte {start}{reason}" in line
    assert line.endswith("replace the file, leave it out, or set data.pictures.damaged: replace")


WRONG = {0: b"", 27: b"<!DOCTYPE html><title>404</title>", 41: None, 42: b"GIF89a", 59: None}  # None: cut


@pytest.fixture(scope="module")
def broken(made):
    """A copy of the pictures of which five are damaged, two of these one behind the other; and its records."""
    folder = made / "broken"
    shutil.copytree(made / "set", folder)
    writer = mx.recordio.MXIndexedRecordIO(str(made / "broken.idx"), str(made / "broken.rec"), "w")
    for row, path in enumerate(sorted(folder.rglob("*.jpg"))):
        content = path.read_bytes()
        if row in WRONG:
            content = content[:-9] if WRONG[row] is None else WRONG[row]
            path.write_bytes(content)
        header = mx.recordio.IRHeader(0, float(row // EACH), row, 0)
        writer.write_idx(row, mx.recordio.pack(header, content))
    writer.close()
    return f"data.pictures.train={{folder: {folder}}}"


def told_of(done):
    """What a run says of replaced samples: a line for each epoch and evaluation, and those that are indented."""
    lines = done.stdout.splitlines()
    starts = [number for number, line in enumerate(lines) if "data.pictures.damaged" in line]
    told = []
    for start in starts:
        end = next((n for n in range(start + 1, len(lines)) if not lines[n].startswith("  ")), len(lines))
        told.append(lines[start:end])
    return told


def replaced_lines(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{**line, "time": 0} for line in lines if line["split"] == "replaced"]


def saved_in(folder, t):
    manifest = json.loads((folder / f"checkpoints/iteration-{t:09}/manifest.json").read_text())
    return manifest["state"].get("replaced")


def expected():
    """How many damaged samples each of 14 updates has, and the held-out split; and which replaces which."""
    held_out = np.sort(permutation(60, 0, "validation", 0)[:15])
    train = np.setdiff1d(np.arange(60), held_out)
    order, pairs = Order(45, 3, 4, 0, "keep"), {}
    for split in (train, held_out):
        for sample in WRONG:
            if sample in split:
                others = [*split[split > sample], *split[split < sample]]
                pairs[sample] = next(int(one) for one in others if one not in WRONG)
    by_update = [sum(train[row] in WRONG for row in order.global_indices(t)) for t in range(1, 15)]
    return by_update, sum(one in WRONG for one in held_out), pairs


def test_replaced_samples_are_counted_once_and_told(train, broken, tmp_path):
    """The same lines in the log, in metrics.jsonl and in checkpoints: on one rank, on two, and resumed in an epoch."""
    by_update, held_out, pairs = expected()
    assert held_out
    assert sum(by_update[:4]) > 1
    replace = [broken, "data.pictures.damaged=replace"]
    done = train(*replace, "data.workers=3", "data.prefetch=9", name="one")
    digest, told = digest_of(done), told_of(done)
    counts = [sum(by_update[first : first + 4]) for first in range(0, 14, 4)]
    epochs = [lines for lines in told if lines[0].startswith("epoch")]
    assert [len(lines) - 1 for lines in epochs] == [count for count in counts if count]
    assert epochs[0][0] == f"epoch 1: {counts[0]} damaged samples were replaced (data.pictures.damaged)"
    assert epochs[1][0].endswith(f", {sum(counts[:2])} in the run")
    assert [len(lines) - 1 for lines in told if lines[0].startswith("evaluation on validation: ")] == [held_out] * 2
    said = {line.strip().partition(": ")[0] for lines in told for line in lines[1:]}
    assert said == {f"sample {one} by sample {other}" for one, other in pairs.items()}
    metrics = replaced_lines(tmp_path / "one")
    assert sum(line["count"] for line in metrics) == sum(by_update) + 2 * held_out
    assert [line["said"][1:] for line in metrics] == [[line.strip() for line in lines[1:]] for lines in told]
    assert saved_in(tmp_path / "one", 14) == {"count": sum(by_update), "in_epoch": 0, "first": []}
    saved = saved_in(tmp_path / "one", 7)
    assert (saved["count"], saved["in_epoch"]) == (sum(by_update[:7]), sum(by_update[4:7]))
    assert "<h2>Damaged samples</h2>" in (tmp_path / "one" / "report.html").read_text()

    two = train(*replace, np=2, launcher="mpirun", name="two")
    assert (digest_of(two), told_of(two)) == (digest, told)
    assert replaced_lines(tmp_path / "two") == metrics

    place = tmp_path / "two" / "checkpoints" / "iteration-000000007"
    again = train(*replace, "data.workers=2", name="again", options=["--resume", place])
    assert digest_of(again) == digest
    later = [line for line in metrics if line["iteration"] > 7]
    assert replaced_lines(tmp_path / "again") == later
    assert told_of(again) == told[-len(later) :]
    assert saved_in(tmp_path / "again", 14) == saved_in(tmp_path / "one", 14)


def test_a_run_without_damaged_pictures_tells_of_none(train, alone, tmp_path):
    done = train("data.pictures.damaged=replace")
    assert digest_of(done) == alone
    assert told_of(done) == replaced_lines(tmp_path / "run") == []
    assert saved_in(tmp_path / "run", 14) is None
    assert "Damaged samples" not in (tmp_path / "run" / "report.html").read_text()


@pytest.fixture
def on_hosts(start, tmp_path, made):
    """Train on two ranks with homes of their own, `a` and `b`; both have all files, until a test removes some."""
    for name in ("a", "b"):
        shutil.copytree(made / "set", tmp_path / name / "set")
        for file in ("all.rec", "all.idx"):
            shutil.copy(made / file, tmp_path / name)

    def run(*settings, exit_code):
        words = options_of(f"output={tmp_path}", "data.root=~/", *settings)
        homes = [tmp_path / "a", tmp_path / "b"]
        program = ["tests/programs/own_homes.py", *homes, "--", "--config", made / "pictures.yaml"]
        return start(*program, *words, np=2, launcher="mpirun", exit_code=exit_code).stderr

    return run


REACH = "every host has to reach every file, because each epoch deals all samples anew to all ranks"
SHARE = "put them on a file system that all hosts share, or copy them to each"


def test_a_file_of_records_that_one_host_does_not_have(on_hosts, tmp_path):
    (tmp_path / "b" / "all.rec").unlink()
    said = on_hosts(*RECORDS, exit_code=3)
    assert said.count("cannot be read (No such file or directory)") == 1
    assert re.search(rf"error: rank 1: \S+: {tmp_path}/b/all\.rec: cannot be read .*\n{REACH}; {SHARE}\n", said)


def test_a_file_of_records_that_no_host_has(on_hosts, tmp_path):
    (tmp_path / "b" / "all.rec").unlink()
    (tmp_path / "a" / "all.rec").unlink()
    assert "rank 0: " in (said := on_hosts(*RECORDS, exit_code=3))
    assert REACH not in said


@pytest.mark.parametrize("settings", [(), RECORDS], ids=["folder", "records"])
def test_hosts_that_have_found_other_pictures(on_hosts, tmp_path, settings):
    (tmp_path / "b" / "set" / "class1" / "03.jpg").unlink()
    lines = (tmp_path / "b" / "all.idx").read_text().splitlines()
    (tmp_path / "b" / "all.idx").write_text("\n".join(lines[:-1]) + "\n")
    said = on_hosts(*settings, exit_code=5)
    told = r"data\.pictures\.train: 60 pictures \(digest \w{16}\) on rank 0; 59 pictures \(digest \w{16}\) on rank 1"
    assert re.search(rf"pictures: the ranks do not agree:\n  {told}\n{REACH}; {SHARE}", said)
    assert said.count("do not agree") == 1


@pytest.mark.parametrize("damaged", ["stop", "replace"])
def test_a_picture_that_one_host_does_not_have_is_never_replaced(on_hosts, tmp_path, damaged):
    """A list does not look at the files; each of the few that the start looks at is one of 60."""
    paths = sorted((tmp_path / "a" / "set").rglob("*.jpg"))
    lines = [f"{row}\t{row % 2}\t{path.relative_to(tmp_path / 'a')}\n" for row, path in enumerate(paths)]
    for name in ("a", "b"):
        (tmp_path / name / "own.lst").write_text("".join(lines))
    (tmp_path / "b" / "set" / "class1" / "03.jpg").unlink()
    files = "data.pictures.train={folder: ., lst: own.lst}"
    said = on_hosts(files, f"data.pictures.damaged={damaged}", exit_code=3)
    reason = (
        rf"data\.pictures\.train: sample 23: {tmp_path}/b/\S+/03\.jpg: cannot be read \(No such file or directory\)"
    )
    assert re.search(rf"error: rank 1: {reason}; {REACH}\n{SHARE}", said)
    assert "rank 0:" not in said


@pytest.mark.parametrize(
    ("settings", "code", "said"),
    [
        (["data.name=digits"], 3, "data.name: 'digits': data.pictures: no effect on this data set; leave it out"),
        (["data.pictures=null"], 3, "data.name: 'folder': needs data.pictures, with train: {folder: PATH}"),
        (
            ["data.name=digits", "data.pictures=null"],
            2,
            "data.augment.brightness: has no effect without data.pictures",
        ),
        (["data.pictures.size=0"], 2, "data.pictures.size: found 0; must be pixels (224), or [height, width]"),
        (["data.pictures.area=[0.5]"], 2, "data.pictures.area: found [0.5]; must be [least, greatest], two numbers"),
        (["data.pictures.area=[0.5, 2]"], 2, "data.pictures.area: found [0.5, 2.0]; shares of a picture are at most 1"),
        (["data.pictures.resize=8"], 2, "data.pictures.resize: 8, but the network gets 16 x 16; give at least 16"),
        (["data.pictures.pad=2"], 2, "data.pictures.pad: has an effect only with crop: random"),
        (["data.augment.pad_crop=2"], 2, "data.augment.pad_crop: is for arrays; for pictures use data.pictures.crop"),
        (["data.augment.mean=[0.5, 0.5]"], 2, "data.augment.mean: found 2 numbers; give 1, or 3 for red, green"),
        (["data.scale=255"], 3, "data.scale: 255.0: no effect on float data"),
        (["data.pictures.train={folder: nowhere}"], 3, "nowhere: is not a folder; give one that has a folder for"),
        (["data.pictures.train={rec: all.rec}"], 3, "data.pictures.train: data.name: 'folder' needs folder, and no"),
        (["data.pictures.train={folder: set, idx: a}"], 3, "data.pictures.train.idx: has no effect on a folder"),
        (["data.name=records", "data.pictures.train={rec: none.rec}"], 3, "none.rec: cannot be read (No such file"),
        (
            ["data.name=records", "data.pictures.train={rec: set}"],
            3,
            "set: is no regular file; give a .rec file that im2rec",
        ),
        (
            [*RECORDS, "data.pictures.class_names=two.classes", "data.pictures.num_classes=3"],
            3,
            "two.classes has 2 names, from class0 to class1, but data.pictures.num_classes is 3; name all classes, or",
        ),
        ([*RECORDS, "data.pictures.class_names=two.classes"], 3, "the label is 2, but classes are 0 to 1"),
        ([*RECORDS, "data.pictures.num_classes=2"], 3, "the label is 2, but classes are 0 to 1"),
        (["data.worker_kind=process"], 2, "data.worker_kind: process has no effect on picture files, which threads"),
        (["data.workers=-1"], 2, "data.workers: found -1; must be auto, or a whole number from 0 to 1024"),
        (["data.params={a: 1}"], 3, "data.name: 'folder': data.params: no effect on this data set"),
    ],
)
def test_wrong_uses(train, settings, code, said):
    done = train(*settings, exit_code=code)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
