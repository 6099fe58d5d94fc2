"""Sets on disk: what is written is what is read, by the harness and by others, and nothing else is accepted."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from harness.checkpoint import (
    list_sets,
    locate,
    newest_whole,
    read_arrays,
    remove_debris,
    set_aside,
    verify,
    write_set,
)
from harness.checkpoint.sets import keep_newest
from harness.errors import CheckpointError

ROOT = Path(__file__).parents[2]
RANDOM = np.random.default_rng(0)
STATE = {"state": {"iteration": 1, "applied_lr": 0.1}}


def some_arrays():
    return {
        "parameters": {"features.0.weight": RANDOM.normal(size=(3, 2)).astype("f"), "größe": np.arange(5, dtype="i8")},
        "slots": {"features.0.weight/0": RANDOM.normal(size=7)},
    }


@pytest.mark.parametrize("dtype", ["f8", "i8", "f4", "i4", "f2", "u1", "i1", "b1"])
@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 0, 4), ()])
def test_every_dtype_and_shape_comes_back(tmp_path, dtype, shape):
    array = np.asarray(RANDOM.integers(0, 2, shape)).astype(dtype)
    odd = np.arange(3, dtype="u1")  # so that nothing is aligned by chance
    place = write_set(tmp_path, 1, {"parameters": {"odd": odd, "a": array}, "slots": {"t": array.T}}, STATE)
    assert verify(place)["state"] == STATE["state"]
    found = read_arrays(place)
    for name, expected in (("odd", odd), ("a", array)):
        assert found["parameters"][name].dtype == expected.dtype
        np.testing.assert_array_equal(found["parameters"][name], expected)
    np.testing.assert_array_equal(found["slots"]["t"], array.T)


def test_others_can_read_it_with_safetensors_and_json_alone(tmp_path):
    arrays = some_arrays()
    place = write_set(tmp_path, 12, arrays, STATE)
    assert place == tmp_path / "iteration-000000012"
    text = (place / "manifest.json").read_bytes()
    assert (place / "manifest.sha256").read_text() == hashlib.sha256(text).hexdigest() + "\n"
    manifest = json.loads(text)
    assert (manifest["format"], manifest["iteration"]) == (1, 12)
    for kind, name in (("parameters", "params.safetensors"), ("slots", "optimizer.safetensors")):
        content = (place / name).read_bytes()
        assert manifest["files"][name] == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        found = load_file(place / name)
        assert found.keys() == arrays[kind].keys()
        for key, array in arrays[kind].items():
            np.testing.assert_array_equal(found[key], array)
    assert sorted(path.name for path in place.iterdir()) == sorted(
        [*manifest["files"], "manifest.json", "manifest.sha256"]
    )


def test_a_set_of_the_same_iteration_is_replaced_each_time(tmp_path):
    for value in (1, 2, 3):
        write_set(tmp_path, 5, {"parameters": {"a": np.full(3, value)}, "slots": {}}, STATE)
        assert read_arrays(tmp_path / "iteration-000000005")["parameters"]["a"][0] == value
        assert [path.name for path in tmp_path.iterdir()] == ["iteration-000000005"]


def test_sets_are_found_by_any_path_that_stands_for_them(tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    places = [write_set(folder, iteration, some_arrays(), STATE) for iteration in (20, 100, 3)]
    ordered = [places[2], places[0], places[1]]
    (folder / "iteration-12").mkdir()  # too short to be one of ours
    (folder / "notes.txt").write_text("x")
    assert list_sets(folder) == locate(folder) == locate(tmp_path / "run") == ordered
    assert locate(places[0]) == [places[0]]
    for nothing, reason in ((tmp_path / "absent", "there is no such folder"), (tmp_path, "holds no sets")):
        with pytest.raises(CheckpointError, match=f"{nothing}: {reason}; give a set"):
            locate(nothing)
    assert list_sets(tmp_path / "absent") == []


def test_the_newest_stay_and_the_protected(tmp_path):
    places = [write_set(tmp_path, iteration, some_arrays(), STATE) for iteration in range(1, 7)]
    keep_newest(tmp_path, 2, protected=[places[1]])
    assert list_sets(tmp_path) == [places[1], places[4], places[5]]
    keep_newest(tmp_path, 9)
    assert len(list_sets(tmp_path)) == 3


def test_sets_that_are_moved_aside_are_never_lost(tmp_path):
    for _ in range(3):
        place = write_set(tmp_path, 4, some_arrays(), STATE)
        (moved,) = set_aside([place])
        verify_copy = moved.rename(tmp_path / place.name)
        verify(verify_copy)
        verify_copy.rename(moved)
    names = sorted(path.name for path in (tmp_path / "aside").iterdir())
    assert names == ["iteration-000000004", "iteration-000000004.1", "iteration-000000004.2"]


def resealed(place, change):
    """The set with a changed manifest, and a seal that fits."""
    manifest = json.loads((place / "manifest.json").read_text())
    text = change(manifest)
    text = (json.dumps(manifest) if text is None else text).encode()
    (place / "manifest.json").write_bytes(text)
    (place / "manifest.sha256").write_text(hashlib.sha256(text).hexdigest() + "\n")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: "not json", "is not the manifest of a set"),
        (lambda m: "[]", "is not the manifest of a set"),
        (lambda m: m.pop("files") and None, "is not the manifest of a set"),
        (lambda m: m.update(format=2), "is of format 2, this version reads format 1"),
        (lambda m: m.update(iteration=2), "belongs to another iteration or lists other files"),
        (lambda m: m["files"].update({"../../x": {}}), "belongs to another iteration or lists other files"),
    ],
)
def test_a_manifest_that_says_something_else(tmp_path, change, reason):
    place = write_set(tmp_path, 1, some_arrays(), STATE)
    resealed(place, change)
    with pytest.raises(CheckpointError, match=reason):
        verify(place)


class Bomb:
    def __reduce__(self):
        return (os.system, ("touch exploded",))


def test_a_pickle_under_the_right_name_is_never_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = write_set(tmp_path, 1, some_arrays(), STATE)
    content = pickle.dumps(Bomb())
    for name in ("params.safetensors", "optimizer.safetensors"):
        (place / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"params\.safetensors has bytes"):
        verify(place)
    described = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    resealed(place, lambda m: m["files"].update(dict.fromkeys(m["files"], described)))
    verify(place)  # every byte is what the manifest says
    with pytest.raises(CheckpointError, match="the arrays cannot be read"):
        read_arrays(place)
    (place / "manifest.json").write_bytes(content)
    with pytest.raises(CheckpointError, match="do not fit together"):
        verify(place)
    assert not (tmp_path / "exploded").exists()
    pickle.loads(content)
    assert (tmp_path / "exploded").exists()  # the bomb is live


def test_our_files_are_what_the_library_writes_in_content(tmp_path):
    arrays = some_arrays()["parameters"]
    place = write_set(tmp_path, 1, {"parameters": arrays, "slots": {}}, STATE)
    save_file(arrays, tmp_path / "theirs")
    theirs, ours = load_file(tmp_path / "theirs"), load_file(place / "params.safetensors")
    assert all(theirs[name].tobytes() == ours[name].tobytes() for name in arrays)


def names_of_calls(folder, monkeypatch):
    calls = []
    fsync, rename = os.fsync, os.rename

    def noting_fsync(descriptor):
        calls.append(("fsync", Path(os.readlink(f"/proc/self/fd/{descriptor}"))))
        fsync(descriptor)

    def noting_rename(source, target):
        calls.append(("rename", Path(target)))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "rename", noting_rename)
    write_set(folder, 1, some_arrays(), STATE)
    return calls


def test_the_order_in_which_a_set_reaches_the_disk(tmp_path, monkeypatch):
    calls = names_of_calls(tmp_path, monkeypatch)
    assert [(call, path.name) for call, path in calls[:4]] == [
        ("fsync", name) for name in ("params.safetensors", "optimizer.safetensors", "manifest.json", "manifest.sha256")
    ]
    assert [call for call, _ in calls[4:]] == ["fsync", "rename", "fsync"]
    assert calls[4][1].name.startswith(".writing-iteration-000000001")
    assert calls[5][1] == tmp_path / "iteration-000000001"
    assert calls[6][1] == tmp_path


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_order_of_system_calls(tmp_path):
    code = (
        "import sys, numpy as np; from pathlib import Path; from harness.checkpoint import write_set;"
        "write_set(Path(sys.argv[1]), 1, {'parameters': {'a': np.zeros(9)}, 'slots': {}}, {})"
    )
    trace = tmp_path / "trace"
    folder = tmp_path / "sets"
    folder.mkdir()
    command = ["strace", "-f", "-y", "-e", "trace=fsync,rename,renameat,renameat2", "-o", trace, sys.executable, "-c"]
    ran = subprocess.run([*command, code, folder], cwd=ROOT, capture_output=True, text=True)
    if "ptrace" in ran.stderr:
        pytest.skip(f"strace may not trace here: {ran.stderr.strip()}")
    assert ran.returncode == 0, ran.stderr
    lines = [line for line in trace.read_text().splitlines() if str(folder) in line]
    words = [line.split("(")[0].split()[-1] for line in lines]
    assert [word[:6] for word in words] == ["fsync"] * 5 + ["rename", "fsync"]
    ends = ["params.safetensors>", "optimizer.safetensors>", "manifest.json>", "manifest.sha256>"]
    assert all(end in line for end, line in zip(ends, lines, strict=False))
    assert ".writing-iteration-000000001" in lines[4]
    assert lines[6].split("<")[1].startswith(f"{folder}>")


def test_debris_goes_and_nothing_else(tmp_path):
    place = write_set(tmp_path, 1, some_arrays(), STATE)
    (tmp_path / ".writing-iteration-000000002-77").mkdir()
    (tmp_path / ".writing-iteration-000000002-77" / "params.safetensors").write_bytes(b"half")
    (tmp_path / "mine").mkdir()
    remove_debris(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [place.name, "mine"]
    assert newest_whole(list_sets(tmp_path)).newest == place
