"""200 damaged picture files: each is refused or replaced as said, on any number of workers, in bounded memory.

Decoding happens in a process of its own, so that a crash of a C library is seen as that, and not as the end of pytest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter

import mxnet as mx
import numpy as np
import pytest

from harness.data import Augmentation, BatchStream, Functions, Order, evaluation_batches, load, with_functions
from harness.data.pictures.dataset import PictureDataset
from harness.data.pictures.decoding import Size
from harness.data.pictures.recipe import Recipe
from harness.data.pictures.replacement import Replacement
from harness.data.pictures.request import PictureRequest, SplitFiles
from harness.data.records import RecordFile, RecordFiles, RecordPictures
from harness.errors import DataError
from tests.conftest import ROOT, THOROUGH
from tests.data.damaged_pictures import FORMATS, Held, damaged_pictures, encoded

pytest.importorskip("cv2")
pytest.importorskip("simplejpeg")

JPEG = ("jpeg", "grey", "progressive", "restarts")
RECIPE = Recipe(Size(16, 16), 20, flip=True)


def looked_at(decoder):
    """What a decoder says of each file, and the memory that it took; in a process that must end well."""
    environ = {**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "tests.data.damaged_pictures", decoder]
    done = subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def files():
    return damaged_pictures()


@pytest.fixture(scope="module")
def by_harness():
    return looked_at("harness")


def is_error(said):
    return said[0].startswith("error")


def test_the_files_are_the_same_every_time(files):
    assert len(files) == 200
    assert [one.content for one in damaged_pictures()] == [one.content for one in files]
    assert len({one.content for one in files}) == 200
    for base in FORMATS:
        assert PictureDataset(Held([encoded(base)]), RECIPE, "data").take(np.arange(1))[0].shape == (1, 3, 16, 16)


def test_every_file_gives_the_same_on_any_number_of_workers(files, by_harness):
    """For 1, 2 and 3 workers, in training and in evaluation; a message names the sample and the file once."""
    for row, said in enumerate(by_harness["said"]):
        training, evaluation = set(said[0::2]), set(said[1::2])
        assert len(training) == len(evaluation) == 1, (files[row].kind, files[row].base, said)
        if is_error(said):
            (text,) = training
            assert training == evaluation
            assert text.startswith(f"error: data: sample {row}: file {row}: ")
            assert text.endswith("; replace the file, leave it out, or set data.pictures.damaged: replace")
            assert "\n" not in text
            assert len(text) < 300


@pytest.mark.parametrize("kind", ["cut", "header", "format", "claim", "empty"])
def test_every_file_of_these_kinds_is_refused(files, by_harness, kind):
    said = [found for one, found in zip(files, by_harness["said"], strict=True) if one.kind == kind]
    assert said
    assert all(map(is_error, said))


def test_claims_of_too_many_pixels_are_refused_by_the_header_alone(by_harness):
    limit = "claims 60000 x 60000 pixels; allowed: 1 to 268,435,456 in all"
    assert sum(limit in said[0] for said in by_harness["said"]) == 4


def test_memory_is_bounded(by_harness):
    """The files claim up to 11 GB, and those within the limit .8 GB each; both other decoders take 1.5 GB."""
    assert by_harness["peak_bytes"] < 200 << 20


def counted(files, found):
    """How many of the changed JPEG and PNG files a decoder notices; WebP has no checksum, and MXNet cannot read it."""
    counts = Counter()
    for one, said in zip(files, found["said"], strict=True):
        if one.kind in ("cut", "zeroed", "flipped") and one.base in (*JPEG, "png"):
            counts[one.kind, "png" if one.base == "png" else "jpeg"] += is_error(said)
    return dict(counts)


def test_how_many_changes_are_noticed(files, by_harness):
    """A flipped bit may give another valid picture: libjpeg notices a third. These are counts, and not promises.

    Of WebP files no changed byte is noticed: the format has no checksum.
    """
    held = Counter((one.kind, "png" if one.base == "png" else "jpeg") for one in files if one.base in (*JPEG, "png"))
    assert [held[kind, "jpeg"] for kind in ("cut", "zeroed", "flipped")] == [32, 32, 32]
    assert [held[kind, "png"] for kind in ("cut", "zeroed", "flipped")] == [8, 8, 7]
    noticed = {"harness": (counted(files, by_harness), (32, 31, 11))}
    if THOROUGH:  # what others notice changes with none of our code
        noticed |= {"cv2": (counted(files, looked_at("cv2")), (29, 2, 0))}
        noticed |= {"mxnet": (counted(files, looked_at("mxnet")), (8, 1, 0))}
    for name, (found, (cut, zeroed, flipped)) in noticed.items():
        assert [found[kind, "jpeg"] for kind in ("cut", "zeroed", "flipped")] == [cut, zeroed, flipped], name
        assert [found[kind, "png"] for kind in ("cut", "zeroed", "flipped")] == [8, 8, 7], name
    webp = [
        is_error(said)
        for one, said in zip(files, by_harness["said"], strict=True)
        if one.base in ("webp", "lossless") and one.kind in ("zeroed", "flipped")
    ]
    assert sum(webp) == 0


# All in one split.


@pytest.fixture(scope="module")
def mixed(files):
    """Good files with the damaged ones between them, and the rows of those that are noticed."""
    contents = []
    for number, one in enumerate(files):
        contents += [encoded(FORMATS[number % len(FORMATS)], seed=number), one.content]
    return contents


@pytest.fixture(scope="module")
def noticed(by_harness):
    return [2 * row + 1 for row, said in enumerate(by_harness["said"]) if is_error(said)]


def test_the_lowest_row_is_named_on_any_number_of_workers(mixed, noticed):
    rows = np.random.default_rng(0).permutation(len(mixed))
    first = next(row for row in rows if row in noticed)
    for workers in (1, 2, 3):
        split = PictureDataset(Held(mixed), RECIPE, "data", workers=workers)
        for draws in ((), (1, 0)):
            with pytest.raises(DataError, match=rf"^data: sample {first}: file {first}: "):
                split.take(rows, *draws)
        split.close()


def test_all_that_are_noticed_are_replaced_on_any_number_of_workers(mixed, noticed):
    found = set()
    for workers in (1, 2, 3):
        split = PictureDataset(Held(mixed), RECIPE, "data", workers=workers, replace_damaged=True)
        data, label = split.take(np.arange(len(mixed)), 1, 0)
        found.add((data.tobytes(), label.tobytes(), split.last_replaced))
        split.close()
    assert len(found) == 1
    assert [one.sample for one in split.last_replaced] == noticed
    assert [one.by for one in split.last_replaced] == [(row + 1) % len(mixed) for row in noticed]


def test_where_the_replacement_is_damaged_too_the_next_is_taken():
    good = encoded("jpeg")
    split = PictureDataset(Held([good, b"", b"", good, b""]), RECIPE, "data", replace_damaged=True)
    assert split.take(np.array([1, 4, 0, 2]))[1].tolist() == [3, 0, 0, 3]
    assert split.last_replaced == (
        Replacement(1, 3, "file 1: is empty"),
        Replacement(4, 0, "file 4: is empty"),
        Replacement(2, 3, "file 2: is empty"),
    )
    split.take(np.array([0]))
    assert split.last_replaced == ()


def test_a_sample_that_is_held_out_never_replaces_one_of_training():
    files = [b"" if row in (2, 3, 7, 9) else encoded("jpeg", seed=row) for row in range(10)]
    split = PictureDataset(Held(files), RECIPE, "data", replace_damaged=True)
    rows = np.array([9, 1, 2, 6, 8])
    part = split.subset(rows)
    assert len(part.subset(np.array([0, 1]))) == 2
    part.take(np.array([0, 2, 1, 4]), 1, 0)
    assert [one[:2] for one in part.dataset.last_replaced] == [(9, 1), (2, 6)]
    split.take(np.array([9, 2]))
    assert [one[:2] for one in split.last_replaced] == [(9, 0), (2, 4)]
    lost = PictureDataset(Held(files), RECIPE, "data", replace_damaged=True).subset(np.array([3, 2]))
    with pytest.raises(DataError, match=r"sample 3: file 3: is empty; so is every other one of 2, and none can"):
        lost.take(np.array([0]))


@pytest.mark.parametrize(
    ("count", "said"),
    [(1, "so is every other one of 1"), (7, "so is every other one of 7"), (3000, "so are the 999 samples after it")],
)
def test_where_none_can_replace_it_it_is_said(count, said):
    split = PictureDataset(Held([b""] * count), RECIPE, "data", replace_damaged=True)
    message = f"^data: sample 0: file 0: is empty; {said}, and none can replace it; look at where they come from$"
    with pytest.raises(DataError, match=message):
        split.take(np.array([0]))


# What batches tell.


class Broken:
    """Fifty good files, of which those in the places that are given are not."""

    def __init__(self, *rows):
        self.files = [b"" if row in rows else encoded("jpeg", seed=row) for row in range(50)]


def told_by(batches):
    return [(batch.t, one.sample) for batch in batches for one in batch.replaced]


def stream_of(dataset, shards, **how):
    return BatchStream(dataset, Order(50, 6, 2, 0, "keep"), shards, Augmentation(is_done=True), seed=0, **how)


@pytest.mark.parametrize("collate", [None, {"mixup": {"classes": 7}}])
def test_batches_tell_of_their_own_samples_alone(collate):
    """On any number of ranks, workers and batches ahead; what is ahead of the last batch is told by none."""
    broken, found = (3, 4, 17, 30, 49), set()
    for ranks, workers, prefetch in ((1, 1, 1), (1, 3, 9), (2, 2, 3), (3, 1, 40)):
        told = []
        for rank in range(ranks):
            split = PictureDataset(
                Held(Broken(*broken).files), RECIPE, "data", workers=workers, num_classes=7, replace_damaged=True
            )
            dataset = split if collate is None else with_functions(split, Functions.of(None, collate))
            with stream_of(dataset, range(rank, 6, ranks), prefetch=prefetch) as stream:
                told += told_by(stream(t) for t in range(1, 8))  # of five batches an epoch
            split.close()
        found.add(tuple(sorted(told)))
    assert len(found) == 1
    order = Order(50, 6, 2, 0, "keep")
    (told,) = found
    assert list(told) == sorted((t, row) for t in range(1, 8) for row in order.global_indices(t) if row in broken)


def test_batches_of_an_evaluation_and_of_subsets_tell():
    split = PictureDataset(Held(Broken(3, 4, 49).files), RECIPE, "data", replace_damaged=True)
    for dataset, expected in ((split, [3, 4, 49]), (split.subset(np.array([9, 49, 3, 2])), [49, 3])):
        batches = evaluation_batches(dataset, 3, Augmentation(is_done=True))
        assert [one.sample for batch in batches for one in batch.replaced] == expected


# Records.


@pytest.fixture
def records(tmp_path):
    """Eight records, and where each begins in the file."""
    writer = mx.recordio.MXIndexedRecordIO(str(tmp_path / "a.idx"), str(tmp_path / "a.rec"), "w")
    for key in range(8):
        header = mx.recordio.IRHeader(0, float(key % 3), key, 0)
        writer.write_idx(key, mx.recordio.pack(header, encoded("jpeg", seed=key)))
    writer.close()
    starts = [int(line.split()[1]) for line in (tmp_path / "a.idx").read_text().splitlines()]
    return tmp_path / "a.rec", starts


FRAME = 8  # bytes
DAMAGES = {
    "magic": (0, b"\0\0\0\0", "found 0x00000000 where a record begins with 0xced7230a"),
    "flag": (4, b"\xff\xff\xff\xff", "found the flag 7; allowed: 0 to 3"),
    "length": (4, b"\xff\xff\xff\x1f", "the record has 536870911 bytes, of which"),
    "shorter": (4, b"\x10\0\0\0", "the record has 16 bytes, and its header alone 24"),
    "labels": (FRAME, b"\xff\xff\xff\x7f", "the record's header claims 2147483647 labels"),
    "one label more": (FRAME, b"\1\0\0\0", "is no JPEG, PNG or WebP file"),
    "picture": (FRAME + 24, b"<html>", "is no JPEG, PNG or WebP file; it begins with 3c 68 74 6d 6c 3e"),
}


@pytest.mark.parametrize("what", DAMAGES)
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_damaged_record_is_refused_or_replaced(records, what, workers):
    path, starts = records
    offset, value, message = DAMAGES[what]
    content = bytearray(path.read_bytes())
    content[starts[5] + offset : starts[5] + offset + len(value)] = value
    path.write_bytes(bytes(content))
    held = RecordPictures(RecordFiles([RecordFile(path)]))
    rows = np.array([7, 1, 5, 2, 3, 6])
    stops, replaces = (
        PictureDataset(held, RECIPE, "data", workers=workers, num_classes=3, replace_damaged=replace)
        for replace in (False, True)
    )
    where = f"data: sample 5: {path}, record 5 at byte {starts[5]}: "
    with pytest.raises(DataError, match=message) as error:
        stops.take(rows, 1, 0)
    assert str(error.value).startswith(where)
    assert replaces.take(rows, 1, 0)[1].tolist() == [1, 1, 0, 2, 0, 0]
    assert [one[:2] for one in replaces.last_replaced] == [(5, 6)]
    assert replaces.last_replaced[0].reason.startswith(f"{path}, record 5 at byte {starts[5]}: ")
    stops.close()
    replaces.close()


@pytest.mark.parametrize("label", [float("nan"), float("inf"), 1e30, -1.0, 0.5])
def test_a_label_that_is_no_class_is_refused_and_never_replaced(records, label):
    """It may be a wrong `num_classes` as well as a damaged header."""
    path, starts = records
    content = bytearray(path.read_bytes())
    content[starts[5] + FRAME + 4 : starts[5] + FRAME + 8] = np.float32(label).tobytes()
    path.write_bytes(bytes(content))
    split = PictureDataset(
        RecordPictures(RecordFiles([RecordFile(path)])), RECIPE, "data", num_classes=3, replace_damaged=True
    )
    message = rf"^data: sample 5: the label is {label:g}, but classes are 0 to 2; ".replace("+", r"\+")
    with pytest.raises(DataError, match=message):
        split.take(np.array([1, 5]))


def opened(path, **how):
    return load("records", pictures=PictureRequest(SplitFiles((path,)), None, None, RECIPE, **how))


def test_classes_are_counted_without_records_that_others_replace(records):
    path, starts = records
    content = bytearray(path.read_bytes())
    for row in (2, 5):  # the labels of which are 2
        content[starts[row] + FRAME : starts[row] + FRAME + 4] = b"\xff\xff\xff\x7f"
    path.write_bytes(bytes(content))
    splits = opened(path, replace_damaged=True)
    splits.train.close()
    assert splits.num_classes == 2
    where = (
        f"data.pictures.train: sample 2: {path}, record 2 at byte {starts[2]}: the record's header claims 2147483647"
    )
    with pytest.raises(DataError) as caught:
        opened(path)
    assert str(caught.value).startswith(where)
    assert str(caught.value).endswith("; replace the file, leave it out, or set data.pictures.damaged: replace")
    for start in starts:
        content[start : start + 4] = bytes(4)
    path.write_bytes(bytes(content))
    with pytest.raises(
        DataError, match=r"^data\.pictures\.train: every record is damaged; the first: .*found 0x000000"
    ):
        opened(path, replace_damaged=True)


@pytest.mark.parametrize("label", [float("nan"), float("inf"), 1e30, 1000.0])
def test_a_label_that_can_hardly_be_a_class_is_not_counted(records, label):
    path, starts = records
    content = bytearray(path.read_bytes())
    content[starts[5] + FRAME + 4 : starts[5] + FRAME + 8] = np.float32(label).tobytes()
    path.write_bytes(bytes(content))
    with pytest.raises(DataError) as caught:
        opened(path, replace_damaged=True)
    assert str(caught.value) == (
        f"data.pictures.train: sample 5: {path}, record 5 at byte {starts[5]}: the label is {label:g}, of 8 pictures, "
        "which can hardly be a class; mend it, or set data.pictures.num_classes"
    )


def test_a_file_of_records_that_is_cut_is_refused_at_its_end(records):
    path, starts = records
    path.write_bytes(path.read_bytes()[: starts[7] + 40])
    split = PictureDataset(RecordPictures(RecordFiles([RecordFile(path)])), RECIPE, "data")
    split.take(np.arange(7))
    with pytest.raises(DataError, match=rf"record 7 at byte {starts[7]}: the record has \d+ bytes, of which 32 are "):
        split.take(np.array([7]))
