"""Damaged npy, IDX and CIFAR files: one message, no wrong acceptance, and no memory for what a header promises."""

from __future__ import annotations

import gzip
import subprocess
import sys
import zlib

import numpy as np
import pytest

from harness.data import count_samples, load
from harness.errors import DataError
from tests.conftest import ROOT
from tests.data.damage import inside_gzip, npy, single_bytes, structures

CLASSES = 4


def numbers(count=24):
    generator = np.random.default_rng(0)
    data = generator.normal(size=(count, 3, 2, 2)).astype(np.float32)
    return data, generator.integers(0, CLASSES, count).astype(np.int64)


def opened(root):
    return load("npy", root=str(root), params={"num_classes": CLASSES})


def is_refused(read, path):
    """Whether reading ends in one message that names the file or its data."""
    try:
        read()
    except DataError as error:
        text = str(error)
        assert path.parent.name in text or path.name in text
        assert len(text) < 600
        return True
    return False


@pytest.mark.parametrize("name", ["train_data", "train_label"])
@pytest.mark.parametrize("kind", [single_bytes, structures])
def test_damaged_npy(tmp_path, write_npy, name, kind):
    data, label = numbers()
    write_npy(train_data=data, train_label=label)
    path = tmp_path / f"{name}.npy"
    content = path.read_bytes()
    begin = content.index(b"\n") + 1
    for number, damaged in enumerate(kind(content, seed=1)):
        path.write_bytes(damaged)
        if is_refused(lambda: opened(tmp_path), path):
            continue
        train = opened(tmp_path).train
        assert len(damaged) == len(content), number
        got = (train.data, train.label)[name == "train_label"]
        assert got.shape == (data, label)[name == "train_label"].shape
        if damaged[:begin] == content[:begin]:
            assert got.dtype == (data, label)[name == "train_label"].dtype
            assert train.label.min() >= 0
            assert train.label.max() < CLASSES
        else:  # a letter for another type of the same size, or another byte order, is as good a header
            assert got.dtype.itemsize == (data, label)[name == "train_label"].dtype.itemsize


BODY = np.zeros(6, np.float32).tobytes()
GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }\n"
DEEP = "[" * 4000
HEADERS = {
    "magic": b"\x92NUMPY" + npy(GOOD, BODY)[6:],
    "empty": b"",
    "only the magic": b"\x93NUMPY",
    "version 0": npy(GOOD, BODY, version=b"\x00\x00"),
    "version 4": npy(GOOD, BODY, version=b"\x04\x00"),
    "minor version": npy(GOOD, BODY, version=b"\x01\x07"),
    "header of 4 GB": npy(GOOD, BODY, version=b"\x02\x00", length=2**32 - 1),
    "header longer than the file": npy(GOOD, BODY, length=9_000),
    "header of no bytes": npy(GOOD, BODY, length=0),
    "header too short": npy(GOOD, BODY, length=20),
    "not a dict": npy("[1, 2, 3]", BODY),
    "a call": npy("__import__('os').getcwd()", BODY),
    "not utf-8": npy(b"{'descr': '\xff\xfe', 'fortran_order': False, 'shape': (3, 2), }", BODY),
    "zero bytes": npy(b"\0" * 60, BODY),
    "a key missing": npy("{'descr': '<f4', 'shape': (3, 2), }", BODY),
    "another key": npy(GOOD.replace("}", "'more': 1}"), BODY),
    "another name": npy(GOOD.replace("shape", "shade"), BODY),
    "keys that are not text": npy("{1: 2, 3: 4, (5,): 6}", BODY),
    "negative": npy(GOOD.replace("(3, 2)", "(-3, -2)"), BODY),
    "one negative": npy(GOOD.replace("(3, 2)", "(3, -2)"), BODY),
    "huge": npy(GOOD.replace("(3, 2)", f"({10**30}, {10**30})"), BODY),
    "400 digits": npy(GOOD.replace("(3, 2)", f"({'9' * 400}, 2)"), BODY),
    "5,000 digits": npy(GOOD.replace("(3, 2)", f"({'9' * 5000}, 2)"), BODY),
    "product wraps around": npy(GOOD.replace("(3, 2)", f"({2**62}, 4, 6)"), BODY),
    "float shape": npy(GOOD.replace("(3, 2)", "(3.0, 2)"), BODY),
    "text shape": npy(GOOD.replace("(3, 2)", "('3', 2)"), BODY),
    "bool shape": npy(GOOD.replace("(3, 2)", "(True, 6)"), BODY),
    "None in the shape": npy(GOOD.replace("(3, 2)", "(None, 2)"), BODY),
    "shape a list": npy(GOOD.replace("(3, 2)", "[3, 2]"), BODY),
    "shape a number": npy(GOOD.replace("(3, 2)", "6"), BODY),
    "40 dimensions": npy(GOOD.replace("(3, 2)", f"({'1, ' * 40})"), BODY[:4]),
    "no dimensions": npy(GOOD.replace("(3, 2)", "()"), BODY[:4]),
    "nothing in it": npy(GOOD.replace("(3, 2)", "(3, 0)")),
    "no samples": npy(GOOD.replace("(3, 2)", "(0, 2)")),
    "order a number": npy(GOOD.replace("False", "0"), BODY),
    "order None": npy(GOOD.replace("False", "None"), BODY),
    "objects": npy(GOOD.replace("<f4", "|O"), BODY),
    "text": npy(GOOD.replace("<f4", "<U1"), BODY),
    "byte strings": npy(GOOD.replace("<f4", "|S4"), BODY),
    "dates": npy(GOOD.replace("<f4", "<M8[s]"), BODY + BODY),
    "durations": npy(GOOD.replace("<f4", "<m8[s]"), BODY + BODY),
    "records": npy(GOOD.replace("'<f4'", "[('a', '<f4')]"), BODY),
    "records as text": npy(GOOD.replace("<f4", "i2,i2"), BODY),
    "a subarray": npy(GOOD.replace("<f4", "(2,)i2"), BODY),
    "void": npy(GOOD.replace("<f4", "|V4"), BODY),
    "three bytes": npy(GOOD.replace("<f4", "<i3"), BODY[:18]),
    "unknown type": npy(GOOD.replace("<f4", "<q4"), BODY),
    "no type": npy(GOOD.replace("<f4", ""), BODY),
    "type a number": npy(GOOD.replace("'<f4'", "4"), BODY),
    "type None": npy(GOOD.replace("'<f4'", "None"), BODY),
    "a type of 9,000 letters": npy(GOOD.replace("<f4", "f" * 9_000), BODY),
    "bool": npy(GOOD.replace("<f4", "|b1"), BODY[:6]),
    "complex": npy(GOOD.replace("<f4", "<c8"), BODY + BODY),
    "longdouble": npy(GOOD.replace("<f4", "<f16"), BODY * 4),
    "one byte less": npy(GOOD, BODY[:-1]),
    "one byte more": npy(GOOD, BODY + b"\0"),
    "no body": npy(GOOD),
    "deep lists": npy(DEEP, BODY),
    "deep minus": npy("-" * 9_000 + "1", BODY),
    "deep powers": npy("9**9**9**9", BODY),
    "deep in the shape": npy(GOOD.replace("(3, 2)", "(" * 3000), BODY),
    "a zip": b"PK\x03\x04" + BODY,
    "a pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
}


@pytest.mark.parametrize("what", HEADERS)
def test_every_kind_of_damaged_header_is_one_message(tmp_path, write_npy, what):
    write_npy(train_data=np.zeros((3, 2), np.float32), train_label=np.arange(3))
    path = tmp_path / "train_data.npy"
    path.write_bytes(HEADERS[what])
    for read in (lambda: load("npy", root=str(tmp_path)), lambda: count_samples("npy", root=str(tmp_path))):
        with pytest.raises(DataError) as error:
            read()
        text = str(error.value)
        assert text.startswith(f"{path}: ")
        assert len(text) < 400
        assert "\n" not in text
        assert any(word in text for word in ("write", "download it again", "give", "leave", "convert"))


def test_a_long_header_is_not_read(tmp_path, write_npy):
    """Its text would be parsed, and may be as long as the file."""
    write_npy(train_data=np.zeros((3, 2), np.float32), train_label=np.arange(3))
    text = GOOD + " " * 2_000_000
    (tmp_path / "train_data.npy").write_bytes(npy(text, BODY, version=b"\x02\x00"))
    with pytest.raises(DataError, match=rf"its header is {len(text)} bytes long; at most 10000 are allowed"):
        load("npy", root=str(tmp_path))


def test_headers_of_other_writers_are_read(tmp_path, write_npy):
    write_npy(train_data=np.zeros((3, 2), np.float32), train_label=np.arange(3))
    body = np.arange(6, dtype=np.float32).tobytes()
    for text in (
        GOOD,
        "{'shape': (3, 2), 'fortran_order': False, 'descr': '<f4'}",
        '{"descr": "<f4", "fortran_order": False, "shape": (3, 2)}   \n',
    ):
        for version in (b"\x01\x00", b"\x02\x00", b"\x03\x00"):
            (tmp_path / "train_data.npy").write_bytes(npy(text, body, version))
            got = load("npy", root=str(tmp_path)).train
            assert got.data.tolist() == [[0, 1], [2, 3], [4, 5]]
    (tmp_path / "train_data.npy").write_bytes(npy(GOOD.replace("False", "True"), body))
    assert load("npy", root=str(tmp_path)).train.data.tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize("kind", [single_bytes, structures])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("packed", ["plain", "packed", "packed anew"])
def test_damaged_idx(tmp_path, mnist_folder, kind, name, packed):
    arrays = mnist_folder(compress=packed != "plain")
    path = tmp_path / (name if packed == "plain" else f"{name}.gz")
    content = path.read_bytes()
    damage = kind(content, seed=2)
    if packed == "packed anew":
        damage = inside_gzip(kind(gzip.decompress(content), seed=2))
    for damaged in damage:
        path.write_bytes(damaged)
        if is_refused(lambda: load("mnist", root=str(tmp_path)), path):
            continue
        splits = load("mnist", root=str(tmp_path))
        got = splits.train.data[:, 0] if "images" in name else splits.test.label
        assert got.shape == arrays[name].shape
        assert splits.test.label.max() < 10
        if packed == "packed":  # the checksum is behind it: what is read is what was written
            np.testing.assert_array_equal(got, arrays[name])


@pytest.mark.parametrize("kind", [single_bytes, structures])
def test_damaged_cifar(tmp_path, write_cifar, kind):
    write_cifar("data_batch_1.bin", 5, 1)
    write_cifar("test_batch.bin", 3, 2)
    path = tmp_path / "data_batch_1.bin"
    content = path.read_bytes()
    for damaged in kind(content, seed=3):
        path.write_bytes(damaged)
        if is_refused(lambda: load("cifar10", root=str(tmp_path)), path):
            continue
        got = load("cifar10", root=str(tmp_path)).train
        assert len(damaged) % 3073 == 0
        assert (len(got), got.label.max() < 10) == (len(damaged) // 3073, True)


def test_a_label_out_of_range_is_noticed(tmp_path, mnist_folder, write_cifar, write_npy):
    mnist_folder(compress=False)
    path = tmp_path / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x0a")
    with pytest.raises(DataError, match=r"label 10 of sample 5 is not in 0\.\.9"):
        load("mnist", root=str(tmp_path))
    write_cifar("data_batch_1.bin", 5, 1)
    write_cifar("test_batch.bin", 3, 2)
    path = tmp_path / "test_batch.bin"
    path.write_bytes(b"\xff" + path.read_bytes()[1:])
    with pytest.raises(DataError, match=r"label 255 of sample 0 is not in 0\.\.9"):
        load("cifar10", root=str(tmp_path))
    data, label = numbers()
    label[7] = -(2**63)
    write_npy(train_data=data, train_label=label)
    with pytest.raises(DataError, match=r"label -9223372036854775808 of sample 7"):
        load("npy", root=str(tmp_path))


def test_gzip_of_more_than_its_header_says_is_not_unpacked(tmp_path, mnist_folder):
    """13 MB that would be 6 GB; here less, of the same ratio."""
    mnist_folder()
    path = tmp_path / "train-images-idx3-ubyte.gz"
    header = b"".join(number.to_bytes(4, "big") for number in (0x0803, 20, 5, 4))
    path.write_bytes(gzip.compress(header + bytes(400) + bytes(5_000_000)))
    with pytest.raises(
        DataError, match=r"5000416 bytes \(uncompressed\), but according to its header 20x5x4 elements make 416"
    ):
        load("mnist", root=str(tmp_path))
    header = b"".join(number.to_bytes(4, "big") for number in (0x0803, 20, 2**31, 4))
    path.write_bytes(gzip.compress(header + bytes(400)))
    with pytest.raises(DataError, match=r"bytes cannot contain that many \(gzip packs at most 1032 into one\)"):
        load("mnist", root=str(tmp_path))


PEAK = """
import resource, sys
from harness.data import count_samples, load
from harness.errors import DataError
name, root = sys.argv[1:]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for read in (count_samples, load):
    try:
        read(name, root=root)
        print("accepted")
    except DataError as error:
        print("refused", error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_is_used_for_what_is_there(tmp_path, mnist_folder):
    """An IDX file of 1 MB that would be 300 MB, one whose header promises 900 MB, and headers of 4 GB."""
    mnist_folder()
    path = tmp_path / "train-images-idx3-ubyte.gz"
    header = b"".join(number.to_bytes(4, "big") for number in (0x0803, 20, 5, 4))
    packer = zlib.compressobj(1, wbits=31)
    bomb = packer.compress(header) + b"".join(packer.compress(bytes(1 << 20)) for _ in range(300)) + packer.flush()
    promise = b"".join(number.to_bytes(4, "big") for number in (0x0803, 20, 9 << 20, 5))
    lying = gzip.compress(promise + np.random.default_rng(0).bytes(1 << 20), 1)
    long_header = npy(GOOD, BODY, version=b"\x02\x00", length=2**32 - 1)
    for content in (bomb, lying):
        path.write_bytes(content)
        assert peak_of("mnist", tmp_path) < 2 * len(content) + (200 << 20)
    (tmp_path / "train_data.npy").write_bytes(long_header)
    (tmp_path / "train_label.npy").write_bytes(long_header)
    assert peak_of("npy", tmp_path) < 200 << 20


def peak_of(name, root):
    """The memory in bytes that reading took more than importing, in a process of its own."""
    words = [sys.executable, "-c", PEAK, name, str(root)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=ROOT, check=True)
    lines = done.stdout.splitlines()
    assert lines[1].startswith("refused"), done.stdout
    return int(lines[-1]) * 1024
