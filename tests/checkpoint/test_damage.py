"""Cut, flipped, killed: what is damaged is seen, and what has its name is whole."""

from __future__ import annotations

import json
import os
import random

import numpy as np
import pytest

from harness.checkpoint import list_sets, newest_whole, verify, write_set
from harness.errors import CheckpointError

FILES = ("params.safetensors", "optimizer.safetensors", "manifest.json", "manifest.sha256")
THOROUGH = os.environ.get("HARNESS_THOROUGH") == "1"


@pytest.fixture
def two_sets(tmp_path):
    arrays = {kind: {"a": np.arange(300, dtype="f"), "b": np.ones(3)} for kind in ("parameters", "slots")}
    return [write_set(tmp_path, iteration, arrays, {"state": {"iteration": iteration}}) for iteration in (1, 2)]


def assert_noticed(sets, file):
    found = newest_whole(sets)
    assert found.newest == sets[0]
    ((path, reason),) = found.rejected
    assert path == sets[1]
    assert file in reason


@pytest.mark.parametrize("file", FILES)
def test_cut_anywhere(two_sets, file):
    path = two_sets[1] / file
    content = path.read_bytes()
    generator = random.Random(file)
    for length in [0, len(content) - 1, *(generator.randrange(len(content)) for _ in range(198))]:
        path.write_bytes(content[:length])
        assert_noticed(two_sets, file)
    path.unlink()
    assert_noticed(two_sets, file)
    path.write_bytes(content)
    assert newest_whole(two_sets) == (two_sets[1], [])


def test_a_flipped_bit_anywhere(two_sets):
    contents = {file: (two_sets[1] / file).read_bytes() for file in FILES}
    generator = random.Random(3)
    for count in range(500):
        file = FILES[count % 4]
        damaged = bytearray(contents[file])
        damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
        (two_sets[1] / file).write_bytes(damaged)
        assert_noticed(two_sets, file)
        (two_sets[1] / file).write_bytes(contents[file])
    assert newest_whole(two_sets) == (two_sets[1], [])


def test_bytes_after_the_end(two_sets):
    for file in FILES:
        path = two_sets[1] / file
        content = path.read_bytes()
        path.write_bytes(content + b" ")
        assert_noticed(two_sets, file)
        path.write_bytes(content)


def test_nothing_whole(two_sets):
    for place in two_sets:
        (place / "params.safetensors").write_bytes(b"")
    found = newest_whole(list_sets(two_sets[0].parent))
    assert found.newest is None
    assert [path for path, _ in found.rejected] == two_sets[::-1]
    with pytest.raises(CheckpointError, match=r"params\.safetensors has bytes 0, the manifest says"):
        verify(two_sets[0])


def test_killed_while_writing(start, tmp_path):
    kills = 300 if THOROUGH else 60
    out = start("tests/programs/write_sets.py", tmp_path / "sets", kills, timeout_s=400).stdout
    report = json.loads(out)
    print(report)
    assert report["kills"] == kills
    assert report["inside"] >= kills * 2 / 3
    assert report["not_whole"] == report["debris_left"] == 0
