"""RecordIO: what MXNet's writer writes is what is read, by any number of threads, and damage is named."""

from __future__ import annotations

import random
import re
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from harness.data.records import RecordFile, RecordFiles
from harness.errors import DataError
from tests.conftest import THOROUGH

MAGIC = struct.pack("<I", 0xCED7230A)


def random_content(draw):
    """Bytes, often of odd lengths, and with the number that begins a record inside, where records are split."""
    pieces = [draw.randbytes(draw.choice([0, 1, 3, 4, 8, 50])) for _ in range(draw.randint(1, 4))]
    return MAGIC.join(pieces) if draw.random() < 0.5 else b"".join(pieces)


def written(folder, seed, name="a"):
    """A file by MXNet's writer, with keys in any order, and what it should hold, by key."""
    draw = random.Random(seed)
    path, index = folder / f"{name}.rec", folder / f"{name}.idx"
    writer = mx.recordio.MXIndexedRecordIO(str(index), str(path), "w")
    held = {}
    for key in draw.sample(range(1000), draw.randint(1, 30)):
        labels = [draw.uniform(-9, 9) for _ in range(draw.choice([1, 1, 2, 5]))]
        content = random_content(draw)
        label = labels[0] if len(labels) == 1 else np.array(labels, np.float32)
        writer.write_idx(key, mx.recordio.pack(mx.recordio.IRHeader(0, label, key, 0), content))
        held[key] = (np.array(labels, np.float32), content)
    writer.close()
    return path, held


def is_held(file, held):
    assert file.keys.tolist() == sorted(held)
    for row, key in enumerate(sorted(held)):
        found = file.record(row)
        labels, content = held[key]
        assert found.key == key
        np.testing.assert_array_equal(found.labels, labels)
        np.testing.assert_array_equal(file.labels(row), labels)
        assert bytes(found.content) == content


@pytest.mark.parametrize("seed", range(300 if THOROUGH else 60))
def test_a_file_of_mxnets_writer_is_read_with_and_without_its_index(tmp_path, seed):
    path, held = written(tmp_path, seed)
    is_held(RecordFile(path), held)
    path.with_suffix(".idx").unlink()
    is_held(RecordFile(path), held)
    reader = mx.recordio.MXRecordIO(str(path), "r")
    theirs = {}
    while (record := reader.read()) is not None:
        header, content = mx.recordio.unpack(record)
        theirs[header.id] = content
    assert theirs == {key: content for key, (_, content) in held.items()}


def test_eight_threads_read_ten_thousand_records_as_one_does(tmp_path):
    path, held = written(tmp_path, 5)
    file = RecordFile(path)
    alone = [bytes(file.read(row)) for row in range(len(file))]
    rows = np.random.default_rng(0).integers(0, len(file), 10_000).tolist()
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda row: bytes(file.read(row)), rows))
    assert found == [alone[row] for row in rows]
    assert len(held) == len(file)


def test_without_an_index_a_key_that_is_there_twice_leaves_the_order_of_the_file(tmp_path):
    path = tmp_path / "a.rec"
    writer = mx.recordio.MXRecordIO(str(path), "w")
    for key, content in ((7, b"one"), (3, b"two"), (7, b"three")):
        writer.write(mx.recordio.pack(mx.recordio.IRHeader(0, 1.0, key, 0), content))
    writer.close()
    file = RecordFile(path)
    assert [bytes(file.record(row).content) for row in range(3)] == [b"one", b"two", b"three"]
    assert file.keys.tolist() == [0, 1, 2]


def test_several_files_are_one(tmp_path):
    files = [RecordFile(written(tmp_path, seed, f"part{seed}")[0]) for seed in range(3)]
    together = RecordFiles(files)
    expected = [bytes(one.read(row)) for one in files for row in range(len(one))]
    places = [together.place(row) for row in range(len(together))]
    assert [bytes(one.read(row)) for one, row in places] == expected


def test_a_million_records_are_known_from_the_index_alone(tmp_path):
    count = 1_280_000
    index = tmp_path / "a.idx"
    index.write_text("".join(f"{key}\t{key * 64}\n" for key in range(count)))
    path = tmp_path / "a.rec"
    with path.open("wb") as file:
        file.truncate(count * 64)
    assert len(RecordFile(path)) == count


# What is wrong.


def small(folder, *contents):
    path = folder / "a.rec"
    writer = mx.recordio.MXIndexedRecordIO(str(folder / "a.idx"), str(path), "w")
    for key, content in enumerate(contents or (b"0123456789", b"abcd", b"xyz")):
        writer.write_idx(key, mx.recordio.pack(mx.recordio.IRHeader(0, 1.0, key, 0), content))
    writer.close()
    return path


def said(action):
    with pytest.raises(DataError) as found:
        action()
    return str(found.value)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("", "a.idx: has no record; write the index again"),
        ("0\t0\n0\t44\n", "a.idx: key 0 is there twice"),
        ("0\t0\n1\t0\n", "a.idx: two keys are at byte 0"),
        ("0\t0\n1\t9999\n", r"a.idx: key 1 is at byte 9999, but .*a.rec has 116 bytes and records at multiples of 4"),
        ("0\t0\n1\t42\n", "a.idx: key 1 is at byte 42"),
        ("0\t0\n1\n", "a.idx: has 3 numbers in 2 lines"),
        ("zero\t0\n", "a.idx: is not a table of keys and bytes"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(tmp_path, index, message):
    path = small(tmp_path)
    path.with_suffix(".idx").write_text(index)
    assert re.search(message, said(lambda: RecordFile(path)))


def test_an_index_of_another_file_is_noticed_where_it_points_between_records(tmp_path):
    path = small(tmp_path)
    path.with_suffix(".idx").write_text("0\t0\n1\t8\n")
    file = RecordFile(path)
    assert re.search(
        r"a.rec, record 1 at byte 8: found 0x\w{8} where a record begins with 0xced7230a", said(lambda: file.read(1))
    )


@pytest.mark.parametrize("cut", [2, 5, 25])
def test_a_record_that_is_cut_off_is_named_with_and_without_an_index(tmp_path, cut):
    path = small(tmp_path)
    path.write_bytes(path.read_bytes()[:-cut])
    file = RecordFile(path)
    assert "a.rec, record 2 at byte 80: the record has 27 bytes, of which" in said(lambda: file.read(2))
    path.with_suffix(".idx").unlink()
    assert "a.rec: at byte 80: the record is cut off" in said(lambda: RecordFile(path))


def test_a_file_without_its_last_record_does_not_fit_its_index(tmp_path):
    path = small(tmp_path)
    path.write_bytes(path.read_bytes()[:-36])
    assert "a.idx: key 2 is at byte 80" in said(lambda: RecordFile(path))
    path.with_suffix(".idx").unlink()
    assert len(RecordFile(path)) == 2


@pytest.mark.parametrize("seed", range(40))
def test_a_bit_that_is_changed_in_a_frame_or_header_never_reads_beyond_the_record(tmp_path, seed):
    draw = random.Random(seed)
    path = small(tmp_path)
    held = bytearray(path.read_bytes())
    held[draw.randrange(80, 80 + 32)] ^= 1 << draw.randrange(8)
    path.write_bytes(held)
    file = RecordFile(path)
    try:
        found = file.record(2)
    except DataError as error:
        refused = str(error)
    else:
        refused = ""
        assert len(found.content) <= 4
    assert not refused or "a.rec, record 2 at byte 80: " in refused


def test_a_file_that_is_none_is_named(tmp_path):
    missing = tmp_path / "b.rec"
    assert said(lambda: RecordFile(missing)).startswith(f"{missing}: cannot be read (No such file or directory)")
    assert said(lambda: RecordFile(tmp_path)) == f"{tmp_path}: is no regular file; give a .rec file that im2rec wrote"
    missing.touch()
    assert said(lambda: RecordFile(missing)).startswith(f"{missing}: is empty")
    missing.write_bytes(b"no records at all")
    assert re.search("b.rec: at byte 0: found 0x\\w+ where a record begins", said(lambda: RecordFile(missing)))


def test_a_record_without_a_header_is_told_so(tmp_path):
    path: Path = tmp_path / "a.rec"
    writer = mx.recordio.MXRecordIO(str(path), "w")
    writer.write(b"short")
    writer.close()
    file = RecordFile(path)
    assert bytes(file.read(0)) == b"short"
    for read in (file.record, file.labels):
        assert "a.rec, record 0 at byte 0: the record has 5 bytes, and its header alone 24" in said(
            lambda read=read: read(0)
        )
