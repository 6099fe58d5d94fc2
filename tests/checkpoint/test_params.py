"""`.params` files: what MXNet writes is read, and a damaged one is refused before it takes memory."""

from __future__ import annotations

import os
import random
import struct
import tracemalloc

import mxnet as mx
import numpy as np
import pytest

from harness.checkpoint.params import read_params
from harness.errors import CheckpointError
from tests.conftest import THOROUGH

DTYPES = ("float32", "float64", "float16", "uint8", "int32", "int8", "int64")
V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA


def file_of(arrays, names, *, magic=0x112, reserved=0, count=None, num_names=None, end=b""):
    count = len(arrays) if count is None else count
    head = struct.pack("<QQQ", magic, reserved, count) + b"".join(arrays)
    encoded = [name if isinstance(name, bytes) else name.encode() for name in names]
    tail = b"".join(struct.pack("<Q", len(name)) + name for name in encoded)
    return head + struct.pack("<Q", len(names) if num_names is None else num_names) + tail + end


def array_of(
    shape=(2,), data=bytes(8), *, magic=V2, storage=0, device=1, number=0, dtype=0, dimensions=None, wide=True
):
    dimensions = len(shape) if dimensions is None else dimensions
    begin = struct.pack("<I", magic) if wide else b""
    begin += struct.pack("<i", storage) if magic in (V2, V3) and wide else b""
    lengths = struct.pack(f"<{'i' if wide else 'I'}{len(shape)}{'q' if wide else 'I'}", dimensions, *shape)
    return begin + lengths + struct.pack("<iii", device, number, dtype) + data


def test_what_mxnet_writes_is_read(tmp_path):
    random_numbers = np.random.default_rng(0)
    arrays = {f"größe.{dtype}": mx.nd.array(random_numbers.integers(0, 9, (3, 4)), dtype=dtype) for dtype in DTYPES}
    arrays |= {"flags": mx.nd.array([1, 0], dtype=bool), "deep": mx.nd.ones((1, 2, 1, 3, 1, 2))}
    mx.nd.save(str(tmp_path / "w"), arrays)
    found = read_params(tmp_path / "w")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array.asnumpy())
        assert found[name].dtype == array.dtype


def test_shapes_of_numpys_meaning_are_read(tmp_path):
    with mx.util.np_shape(True):
        mx.nd.save(str(tmp_path / "w"), {"scalar": mx.np.array(1.5).as_nd_ndarray()})
    assert read_params(tmp_path / "w")["scalar"] == 1.5


@pytest.mark.parametrize("old", [array_of(magic=V1), array_of(wide=False)])
def test_files_of_2016_are_read_as_mxnet_reads_them(tmp_path, old):
    (tmp_path / "w").write_bytes(file_of([old], ["w"]))
    np.testing.assert_array_equal(read_params(tmp_path / "w")["w"], np.zeros(2, "f"))
    np.testing.assert_array_equal(mx.nd.load(str(tmp_path / "w"))["w"].asnumpy(), np.zeros(2, "f"))


HUGE = 2**62
WRONG = [
    (b"", "does not begin as one"),
    (b"\x80\x04}.", "does not begin as one"),
    (file_of([array_of()], ["w"], magic=0x113), "does not begin as one"),
    (file_of([array_of()], ["w"], reserved=1), "does not begin as one"),
    (file_of([array_of()], ["w"], count=HUGE), "is said to have 4,611,686,018,427,387,904 arrays"),
    (file_of([array_of()], ["w"], count=2), "it ends too early"),
    (file_of([array_of()], ["w"], count=0), "is said to have [0-9,]+ names"),
    (file_of([array_of()], [], num_names=HUGE), "is said to have 4,611,686,018,427,387,904 names"),
    (file_of([array_of()], []), "arrays without names; write it with net.save_parameters"),
    (file_of([array_of()], ["a", "b"]), "has 1 arrays and 2 names"),
    (file_of([array_of(), array_of()], ["a", "a"]), "the name 'a' appears twice"),
    (file_of([array_of()], [b"\xff"]), "name 0 is not UTF-8 text"),
    (file_of([array_of()], [""]), "name 0 is said to have 0 bytes"),
    (file_of([array_of()], ["w"], end=b"x"), "1 bytes follow its last name"),
    (file_of([array_of(storage=1)], ["w"]), "array 0 is row_sparse, not dense"),
    (file_of([array_of(storage=9)], ["w"]), "array 0 is of storage type 9"),
    (file_of([array_of(magic=7)], ["w"]), "array 0"),
    (file_of([array_of(dimensions=-1)], ["w"]), "is said to have -1 dimensions"),
    (file_of([array_of(dimensions=2**31 - 1)], ["w"]), "is said to have 2,147,483,647 dimensions"),
    (file_of([array_of(shape=(), data=b"")], ["w"]), "array 0 is empty"),
    (file_of([array_of(shape=(HUGE,))], ["w"]), r"array 0 of shape \(4611686018427387904,\) needs"),
    (file_of([array_of(shape=(2**40, 2**40))], ["w"]), "needs 4,835,703,278,458,516,698,824,704 bytes"),
    (file_of([array_of(shape=(-2,))], ["w"]), r"has the shape \(-2,\)"),
    (file_of([array_of(shape=(0, HUGE), data=b"")], ["w"]), r"has the shape \(0, 4611686018427387904\)"),
    (file_of([array_of(device=9)], ["w"]), "device"),
    (file_of([array_of(number=-1)], ["w"]), "device"),
    (file_of([array_of(dtype=12)], ["w"]), "has the dtype number 12; known: 0 to 7"),
    (file_of([array_of(data=b"")], ["w"])[:60], "needs 8 bytes, 4 are left"),
]


@pytest.mark.parametrize(("content", "part"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_what_does_not_hold_together_is_refused(tmp_path, content, part):
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"w: no Gluon \.params file can be read there \(.*{part}"):
        read_params(tmp_path / "w")


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("pipe", "not a regular file"), ("absent", "No such file")):
        with pytest.raises(CheckpointError, match=reason):
            read_params(tmp_path / name)


def refused(path, content):
    """Whether a file is refused; what is read must be plain arrays, in memory not far above the file's size."""
    path.write_bytes(content)
    tracemalloc.start()
    try:
        arrays = read_params(path)
        assert all(isinstance(array, np.ndarray) for array in arrays.values())
        return False
    except CheckpointError:
        return True
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2 * len(content) + 1_000_000


@pytest.fixture
def saved(tmp_path):
    mx.random.seed(0)
    arrays = {"0.weight": mx.nd.random.normal(shape=(4, 3)), "1.gamma": mx.nd.ones(3), "é": mx.nd.zeros((2, 1))}
    mx.nd.save(str(tmp_path / "w"), arrays)
    return (tmp_path / "w").read_bytes()


def test_a_changed_byte_anywhere(tmp_path, saved):
    generator = random.Random(0)
    for _ in range(1000 if THOROUGH else 200):
        damaged = bytearray(saved)
        damaged[generator.randrange(len(saved))] = generator.randrange(256)
        refused(tmp_path / "w", bytes(damaged))


def test_pieces_cut_out_put_in_and_huge_numbers(tmp_path, saved):
    generator = random.Random(1)
    count = 0
    for number in range(1000 if THOROUGH else 200):
        begin = generator.randrange(len(saved) - 8)
        end = begin + generator.randrange(1, 9)
        put = [b"", bytes(generator.randrange(1, 9)), b"\xff" * (end - begin), b"\x7f" * (end - begin)][number % 4]
        count += refused(tmp_path / "w", saved[:begin] + put + saved[end:])
    assert count > 100
    assert all(refused(tmp_path / "w", saved[:length]) for length in range(len(saved)))


def test_many_small_arrays_take_little_memory(tmp_path):
    content = file_of([array_of()] * 250_000, [f"{n}" for n in range(250_000)])
    assert refused(tmp_path / "w", content)
