"""Packing pictures into RecordIO: the bytes of MXNet's writer, resumed after any interruption, and read back."""

from __future__ import annotations

import errno
import os
import random
import re
import struct

import mxnet as mx
import numpy as np
import pytest

from harness.data.folders import listed_file, listed_folder
from harness.data.packing.contents import Damaged, Preparation, prepared
from harness.data.packing.journal import Journal
from harness.data.packing.listing import Listing
from harness.data.packing.pack import Packing
from harness.data.record_format import Record, framed, joined, packed, unpacked
from harness.data.records import RecordFile
from harness.errors import ConfigError, DataError
from harness.gluon.records import records_by_mxnet
from harness.locks import lock_of_name

simplejpeg = pytest.importorskip("simplejpeg")
cv2 = pytest.importorskip("cv2")

MAGIC = struct.pack("<I", 0xCED7230A)
CLASSES = ("cat", "dog", "owl")


def jpeg(draw, height=20, width=24):
    pixels = draw.integers(0, 256, (height, width, 3)).astype(np.uint8)
    return simplejpeg.encode_jpeg(pixels, quality=90)


@pytest.fixture
def folder(tmp_path):
    """Four pictures of each class."""
    draw = np.random.default_rng(1)
    for name in CLASSES:
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "set" / name / f"{number}.jpg").write_bytes(jpeg(draw, 20 + number))
    return tmp_path / "set"


def packing(folder, preparation=None, name="out.rec", **options):
    listing = Listing.of_folder(listed_folder(folder))
    return Packing(listing, folder.parent / name, preparation or Preparation(), **options)


def finished(folder, preparation=None, name="out.rec", **options):
    """Pack all, and return the bytes of every file by its suffix."""
    with packing(folder, preparation, name, **options) as one:
        one.run()
        one.verify(records_by_mxnet(one.records, one.index))
        one.publish()
    return {path.suffix: path.read_bytes() for path in folder.parent.iterdir() if path.is_file()}


# Bytes.


@pytest.mark.parametrize("seed", range(100))
def test_a_record_has_the_bytes_of_mxnets_writer(tmp_path, seed):
    draw = random.Random(seed)
    pieces = [draw.randbytes(draw.choice([0, 1, 3, 4, 8, 50])) for _ in range(draw.randint(1, 5))]
    content = MAGIC.join(pieces)
    labels = np.array([draw.uniform(-9, 9) for _ in range(draw.choice([1, 1, 2, 5]))], np.float32)
    key = draw.randrange(1 << 40)
    record = packed(key, labels, content)
    header = mx.recordio.IRHeader(0, float(labels[0]) if len(labels) == 1 else labels, key, 0)
    assert record == mx.recordio.pack(header, content)
    writer = mx.recordio.MXRecordIO(str(tmp_path / "a.rec"), "w")
    writer.write(record)
    writer.close()
    assert framed(record) == (tmp_path / "a.rec").read_bytes()
    found = unpacked(joined(memoryview(framed(record))))
    assert (found.key, found.labels.tolist(), bytes(found.content)) == (key, labels.tolist(), content)


def test_a_record_that_is_too_long_is_refused():
    with pytest.raises(ValueError, match="has 536,870,912 bytes; a record has fewer than 536,870,912"):
        framed(bytes(1 << 29))


# Listings.


def test_keys_are_numbers_in_sorted_order_and_the_order_is_that_of_im2rec(folder):
    files = listed_folder(folder)
    listing = Listing.of_folder(files)
    rows = list(range(12))
    random.seed(100)
    random.shuffle(rows)
    assert listing.keys.tolist() == rows
    assert listing.names == tuple(files.names[row] for row in rows)
    assert listing.labels[:, 0].tolist() == [row // 4 for row in rows]
    assert listing.text().splitlines()[0] == f"{rows[0]}\t{rows[0] // 4}.000000\t{files.names[rows[0]]}"
    assert Listing.of_folder(files, shuffled=False).keys.tolist() == list(range(12))


def test_a_listing_is_split_as_by_im2rec(folder):
    listing = Listing.of_folder(listed_folder(folder))
    train, validation = listing.split(0.7)
    assert (train.keys.tolist(), validation.keys.tolist()) == (listing.keys[:8].tolist(), listing.keys[8:].tolist())
    with pytest.raises(DataError, match=r"--train-ratio 0.01 of 12 pictures leaves 0 to train on and 12 to validate"):
        listing.split(0.01)


def test_a_list_keeps_its_lines_in_order_with_all_labels(folder, tmp_path):
    path = tmp_path / "own.lst"
    path.write_text("7\t2.5\t1\tdog/1.jpg\n3\t0\t-4\tcat/0.jpg\n")
    listing = Listing.of_list(folder, path)
    assert (listing.keys.tolist(), listing.names) == ([7, 3], ("dog/1.jpg", "cat/0.jpg"))
    with Packing(listing, tmp_path / "own.rec", Preparation(), with_list=False) as one:
        one.run()
        one.publish()
    file = RecordFile(tmp_path / "own.rec")
    assert file.keys.tolist() == [3, 7]
    assert file.record(1).labels.tolist() == [2.5, 1]
    assert path.read_text().startswith("7\t2.5")
    path.write_text("-1\t0\tcat/0.jpg\n")
    with pytest.raises(DataError, match=r"own.lst, line 1: the key is -1; keys of records start at 0"):
        Listing.of_list(folder, path)


@pytest.mark.parametrize("name", ["a\tb.jpg", "a\nb.jpg", "a\rb.jpg"])
def test_a_name_that_no_list_can_have_is_refused(folder, name):
    (folder / "dog" / name).touch()
    with pytest.raises(DataError, match=r"set: 'dog/a\\.+b.jpg': no list can have a name with a tab or an end of line"):
        packing(folder)


def test_the_list_names_the_pictures_of_the_folder(folder):
    (folder / "dog" / "3.jpg").rename(folder / "dog" / "a \xe9\u2028 b.jpg")
    finished(folder)
    listed, expected = listed_file(folder, folder.parent / "out.lst"), listed_folder(folder)
    assert list(listed.names) == list(expected.names)
    assert listed.labels.tolist() == expected.labels.tolist()


def test_what_is_packed_has_a_digest(folder):
    listing = Listing.of_folder(listed_folder(folder))
    assert listing.digest() == Listing.of_folder(listed_folder(folder)).digest()
    _, keys, names, labels = listing
    others = [listing.part(slice(11)), Listing(folder, keys + 1, names, labels), Listing(folder, keys, names, -labels)]
    assert len({one.digest() for one in (listing, *others)}) == 4


# Contents.


def test_files_are_packed_as_they_are(folder):
    path = folder / "cat" / "0.jpg"
    assert Preparation().content(path) == path.read_bytes()


@pytest.mark.parametrize(
    ("height", "width", "small"), [(100, 151, (40, 60)), (151, 100, (60, 40)), (100, 100, (40, 40))]
)
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_the_short_edge_is_made_smaller_by_means(tmp_path, height, width, small, suffix):
    pixels = np.arange(height * width * 3).reshape(height, width, 3).astype(np.uint8) // 4
    path = tmp_path / f"a{suffix}"
    encoded = simplejpeg.encode_jpeg(pixels) if suffix == ".jpg" else cv2.imencode(".png", pixels[:, :, ::-1])[1]
    path.write_bytes(bytes(encoded))
    content = Preparation(40).content(path)
    assert simplejpeg.decode_jpeg_header(content)[:2] == small
    assert len(Preparation(40, 20).content(path)) < len(content)
    assert Preparation(100).content(path) == path.read_bytes(), "which is not longer"
    decoded = simplejpeg.decode_jpeg(content).astype(int)
    assert abs(decoded.mean() - pixels.mean()) < 3


def test_a_pixel_is_the_mean_of_those_that_it_stands_for(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (80, 120)).astype(np.uint8)
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", np.repeat(grey[:, :, None], 3, axis=2))[1].tobytes())
    found = simplejpeg.decode_jpeg(Preparation(40, 100).content(tmp_path / "a.png"))[:, :, 0]
    means = grey.reshape(40, 2, 60, 2).mean(axis=(1, 3))
    assert np.abs(found - means).max() < 4, "JPEG of quality 100 rounds each of 64 coefficients, and each pixel"


def test_several_processes_give_the_same_contents_in_order(folder):
    (folder / "dog" / "2.jpg").write_bytes(b"no picture")
    names = [*listed_folder(folder).names, "cat/none.jpg"] * 3
    alone = list(prepared(folder, names, Preparation(16)))
    assert list(prepared(folder, names, Preparation(16), workers=2)) == alone
    assert alone[12] == Damaged("cannot be read (No such file or directory)")
    assert [name for name, content in zip(names, alone, strict=True) if isinstance(content, Damaged)] == [
        "dog/2.jpg",
        "cat/none.jpg",
    ] * 3


# Interruptions.


class Killed(BaseException):
    """Stands for the end of the process."""


def killing(after):
    """What is told how much is done, and then ends it."""

    def tell(done):
        if done == after:
            raise Killed

    return tell


def interrupted(folder, after, preparation=None):
    with pytest.raises(Killed), packing(folder, preparation) as one:
        one.run(tell=killing(after))


@pytest.mark.parametrize("after", [1, 5, 11, 12])
@pytest.mark.parametrize("how", [None, Preparation(12, 80)])
def test_what_was_interrupted_is_resumed_to_the_same_bytes(folder, after, how):
    expected = finished(folder, how)
    for path in folder.parent.glob("out.*"):
        path.unlink()
    interrupted(folder, after, how)
    assert {path.name for path in folder.parent.glob("out.*")} >= {"out.rec.part", "out.rec.journal"}
    with packing(folder, how) as one:
        assert one.resumed == after
    assert finished(folder, how) == expected
    assert {path.name for path in folder.parent.iterdir()} == {"set", "out.rec", "out.idx", "out.lst"}


@pytest.mark.parametrize("seed", range(30))
def test_what_is_torn_is_packed_again(folder, seed):
    """Files of which any part is missing at the end, or of which a byte is another."""
    draw = random.Random(seed)
    expected = finished(folder)
    for path in folder.parent.glob("out.*"):
        path.unlink()
    interrupted(folder, 9)
    for name in ("out.rec.part", "out.rec.journal"):
        path = folder.parent / name
        held = bytearray(path.read_bytes())
        if draw.random() < 0.7:
            del held[draw.randrange(len(held)) :]
        elif name.endswith("part"):
            held[draw.randrange(len(held))] ^= 1 << draw.randrange(8)
        path.write_bytes(held)
    assert finished(folder) == expected


def test_another_attempt_than_the_one_that_was_interrupted_is_refused(folder):
    interrupted(folder, 5)
    said = "out.rec.journal: an earlier attempt packed other pictures, or with another --resize or --quality"
    with pytest.raises(ConfigError, match=said):
        packing(folder, Preparation(16))
    (folder / "cat" / "0.jpg").rename(folder / "dog" / "9.jpg")
    with pytest.raises(ConfigError, match=said):
        packing(folder)
    with packing(folder, overwrite=True) as one:
        assert one.resumed == 0


def test_quality_matters_only_where_pictures_are_resized(folder):
    interrupted(folder, 5, Preparation(None, 10))
    with packing(folder, Preparation(None, 20)) as one:
        assert one.resumed == 5
    one.close()


def test_files_that_are_there_are_kept_unless_they_may_be_replaced(folder):
    expected = finished(folder)
    for name in ("out.rec", "out.idx", "out.lst"):
        with pytest.raises(ConfigError, match=rf"{name}: is there already; choose another name, or .* --overwrite"):
            packing(folder)
        (folder.parent / name).unlink()
    finished(folder)
    (folder.parent / "out.lst").write_text("mine")
    assert finished(folder, overwrite=True) == expected


def test_an_interrupted_attempt_that_replaces_is_resumed(folder):
    finished(folder)
    with pytest.raises(Killed), packing(folder, Preparation(16), overwrite=True) as one:
        one.run(tell=killing(3))
    with packing(folder, Preparation(16), overwrite=True) as one:
        assert one.resumed == 3


def test_two_do_not_write_one_file(folder):
    with (
        packing(folder) as one,
        pytest.raises(ConfigError, match=r"out.rec: a process that packs \d+ on .* is writing"),
    ):
        packing(folder)
    assert one.resumed == 0
    assert not lock_of_name(folder.parent / "out.rec").path.exists()


# Damage.


def test_a_damaged_picture_ends_it_and_once_replaced_it_is_resumed(folder):
    listing = Listing.of_folder(listed_folder(folder))
    broken = folder / listing.names[6]
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-30])
    for _ in range(2):
        with packing(folder) as one, pytest.raises(DataError) as found:
            one.run()
        assert re.fullmatch(
            rf"{broken}: .+; replace the file and run the command again, which resumes, or leave damaged ones out with "
            r"--skip-damaged",
            str(found.value),
        )
    broken.write_bytes(whole)
    with packing(folder) as one:
        assert one.resumed == 6
    assert len(finished(folder)[".idx"].splitlines()) == 12


def test_damaged_pictures_are_left_out_and_told_of_though_interrupted(folder):
    listing = Listing.of_folder(listed_folder(folder))
    for row in (2, 7):
        (folder / listing.names[row]).write_bytes(b"no picture")
    with pytest.raises(Killed), packing(folder, skip_damaged=True) as one:
        one.run(tell=killing(5))
    with packing(folder, skip_damaged=True) as one:
        assert one.resumed == 5
        left_out = one.run()
        one.verify(records_by_mxnet(one.records, one.index))
        one.publish()
    assert [name for name, _ in left_out] == [listing.names[2], listing.names[7]]
    assert left_out[1].reason == "is no JPEG, PNG or WebP file; it begins with 6e 6f 20 70 69 63 74 75"
    kept = [row for row in range(12) if row not in (2, 7)]
    assert RecordFile(folder.parent / "out.rec").keys.tolist() == sorted(listing.keys[kept].tolist())
    assert (folder.parent / "out.lst").read_text() == listing.part(np.array(kept)).text()


def test_what_was_left_out_is_packed_where_nothing_may_be(folder):
    name = Listing.of_folder(listed_folder(folder)).names[2]
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(b"")
    with pytest.raises(Killed), packing(folder, skip_damaged=True) as one:
        one.run(tell=killing(5))
    with packing(folder) as one, pytest.raises(DataError, match=rf"{name}: is empty; replace the file"):
        one.run()
    (folder / name).write_bytes(whole)
    finished(folder)
    assert len(RecordFile(folder.parent / "out.rec")) == 12


def test_nothing_but_damage_is_refused(folder):
    for path in folder.rglob("*.jpg"):
        path.write_bytes(b"")
    said = r"set: every one of 12 pictures is damaged; the first: is empty"
    with packing(folder, skip_damaged=True) as one, pytest.raises(DataError, match=said):
        one.run()


@pytest.mark.parametrize("what", ["key", "label", "content", "count"])
def test_what_is_read_back_differently_is_noticed_and_removed(folder, what):
    with packing(folder) as one:
        one.run()
        records = list(records_by_mxnet(one.records, one.index))
        labels, key, content = records[4]
        wrong = {
            "key": Record(labels, 99, content),
            "label": Record(labels + 1, key, content),
            "content": Record(labels, key, content[:-1]),
        }
        records[4:5] = [wrong[what]] if what in wrong else []
        if what == "count":
            records = records[:4]
        with pytest.raises(DataError, match=r"out.rec: .* is not what was packed, as it is read back, and nothing was"):
            one.verify(records)
    assert [path.name for path in folder.parent.iterdir()] == ["set"]


def test_a_full_disk_is_told_of_and_resumed_from(folder, monkeypatch):
    add = Journal.add
    left = iter(range(5))

    def full(self, *record):
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        add(self, *record)

    monkeypatch.setattr(Journal, "add", full)
    with packing(folder) as one, pytest.raises(ConfigError, match=r"out.rec: cannot be written \(No space left on dev"):
        one.run()
    monkeypatch.undo()
    with packing(folder) as one:
        assert one.resumed == 5


def test_a_place_that_cannot_be_written_is_told_of(folder):
    (folder.parent / "file").touch()
    with pytest.raises(ConfigError, match=r"file: cannot be written \((File exists|Not a directory)\)"):
        packing(folder, name="file/out.rec")
