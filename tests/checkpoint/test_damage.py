"""Cut, flipped, killed: what is damaged is seen, and what has its name is whole."""

from __future__ import annotations

import json
import random
import shutil

import numpy as np
import pytest

from harness.checkpoint import list_checkpoints, newest_valid, verify, write_checkpoint
from harness.errors import CheckpointError
from tests.conftest import THOROUGH

FILES = ("params.safetensors", "optimizer.safetensors", "manifest.json", "manifest.sha256")


@pytest.fixture
def two_sets(tmp_path):
    arrays = {kind: {"a": np.arange(300, dtype="f"), "b": np.ones(3)} for kind in ("parameters", "slots")}
    return [write_checkpoint(tmp_path, iteration, arrays, {"state": {"iteration": iteration}}) for iteration in (1, 2)]


def assert_noticed(sets, file):
    found = newest_valid(sets)
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
    assert newest_valid(two_sets) == (two_sets[1], [])


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
    assert newest_valid(two_sets) == (two_sets[1], [])


def test_bytes_after_the_end(two_sets):
    for file in FILES:
        path = two_sets[1] / file
        content = path.read_bytes()
        path.write_bytes(content + b" ")
        assert_noticed(two_sets, file)
        path.write_bytes(content)


@pytest.mark.parametrize("file", FILES)
def test_a_file_of_another_set(two_sets, file):
    """Whole as it is, but not of this set."""
    other = write_checkpoint(two_sets[0].parent, 3, {"parameters": {"a": np.zeros(3)}, "slots": {}}, {"state": None})
    shutil.copy(other / file, two_sets[1] / file)
    assert_noticed(two_sets, file)


def test_a_manifest_and_its_seal_of_another_set(two_sets):
    for file in ("manifest.json", "manifest.sha256"):
        shutil.copy(two_sets[0] / file, two_sets[1] / file)
    assert_noticed(two_sets, "manifest.json belongs to another iteration")


@pytest.mark.parametrize("file", FILES)
def test_a_folder_in_the_place_of_a_file(two_sets, file):
    (two_sets[1] / file).unlink()
    (two_sets[1] / file).mkdir()
    assert_noticed(two_sets, f"{file} cannot be read (Is a directory)")


def test_a_file_in_the_place_of_a_set(two_sets):
    shutil.rmtree(two_sets[1])
    two_sets[1].touch()
    assert_noticed(two_sets, "manifest.json cannot be read (Not a directory)")


def test_nothing_whole(two_sets):
    for place in two_sets:
        (place / "params.safetensors").write_bytes(b"")
    found = newest_valid(list_checkpoints(two_sets[0].parent))
    assert found.newest is None
    assert [path for path, _ in found.rejected] == two_sets[::-1]
    with pytest.raises(CheckpointError, match=r"params\.safetensors has bytes 0, the manifest says"):
        verify(two_sets[0])


KILLED_AT_EACH_STEP = """
import json, os, signal, sys
from pathlib import Path
import numpy as np
from harness.checkpoint import list_checkpoints, newest_valid, remove_debris, write_checkpoint

folder, report = Path(sys.argv[1]), []
arrays = {kind: {"a": np.arange(300.0)} for kind in ("parameters", "slots")}
write_checkpoint(folder, 1, arrays, {})
for step in range(1, 9):
    if os.fork() == 0:
        calls = []

        def counted(real):
            def call(*arguments):
                calls.append(real)
                if len(calls) == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments)

            return call

        for name in ("mkdir", "fsync", "rename"):
            setattr(os, name, counted(getattr(os, name)))
        write_checkpoint(folder, step + 1, arrays, {})
        os._exit(0)
    killed = os.WIFSIGNALED(os.wait()[1])
    debris = len(list(folder.glob(".*")))
    newest, rejected = newest_valid(list_checkpoints(folder))
    remove_debris(folder)
    left = sorted(path.name for path in folder.iterdir())
    report.append([killed, debris, newest.name, len(rejected), left])
print(json.dumps(report))
"""


def test_killed_at_each_step_of_a_write(start, tmp_path):
    """Before the folder is made, each file and the folder forced to disk, the folder renamed, and after that."""
    report = json.loads(start("-c", KILLED_AT_EACH_STEP, tmp_path).stdout)
    old, named = "iteration-000000001", "iteration-000000009"
    nothing_yet = [True, 0, old, 0, [old]]
    half = [True, 1, old, 0, [old]]
    assert report == [nothing_yet, *[half] * 6, [True, 0, named, 0, [old, named]]]


def test_killed_while_writing(start, tmp_path):
    kills = 300 if THOROUGH else 30
    out = start("tests/programs/write_sets.py", tmp_path / "sets", kills, timeout_s=400).stdout
    report = json.loads(out)
    print(report)
    assert report["kills"] == kills
    assert report["debris_seen"] >= report["inside"] >= kills * 2 / 3
    for key in ("not_whole", "half_removed", "lost", "debris_left", "not_by_us"):
        assert report[key] == 0, key
