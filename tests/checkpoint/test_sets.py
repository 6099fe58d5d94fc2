"""Sets on disk: what is written is what is read, by the harness and by others, and nothing else is accepted."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from harness.checkpoint import (
    checkpoint_path,
    list_checkpoints,
    locate,
    newest_valid,
    read_arrays,
    read_manifest,
    remove_debris,
    set_aside,
    verify,
    write_checkpoint,
)
from harness.checkpoint.store import keep_newest
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
    place = write_checkpoint(tmp_path, 1, {"parameters": {"odd": odd, "a": array}, "slots": {"t": array.T}}, STATE)
    assert verify(place)["state"] == STATE["state"]
    found = read_arrays(place)
    for name, expected in (("odd", odd), ("a", array)):
        assert found["parameters"][name].dtype == expected.dtype
        np.testing.assert_array_equal(found["parameters"][name], expected)
    np.testing.assert_array_equal(found["slots"]["t"], array.T)


def test_any_number_of_arrays_in_any_order_and_layout(tmp_path):
    generator = random.Random(1)
    dtypes = ["f8", "i8", "f4", "i4", "f2", "u1", "i1", "b1"]
    names = [f"{word}.{n}" for n, word in enumerate(["größe", "重み", "a b", 'quoted"\\', "line\nfeed", "/", "é"] * 8)]
    generator.shuffle(names)
    arrays = {name: RANDOM.integers(0, 2, (n % 4, 3)).astype(dtypes[n % 8]) for n, name in enumerate(names)}
    arrays["by columns"] = np.asfortranarray(RANDOM.normal(size=(4, 3)))
    arrays["every second"] = RANDOM.normal(size=(9, 4))[::2, ::-1]
    place = write_checkpoint(tmp_path, 1, {"parameters": arrays, "slots": {}}, STATE)
    found = read_arrays(place)
    assert found["slots"] == {}
    assert found["parameters"].keys() == arrays.keys()
    for name, array in arrays.items():
        assert found["parameters"][name].dtype == array.dtype
        np.testing.assert_array_equal(found["parameters"][name], array)
    content = (place / "params.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    for name, entry in json.loads(content[8 : 8 + length]).items():  # so that other programs may map the file
        assert (8 + length + entry["data_offsets"][0]) % arrays[name].dtype.itemsize == 0


def test_the_manifest_comes_back_to_the_last_bit(tmp_path):
    told = {"numbers": [0.1, 1e-320, 2**70, -0.0], "größe": {"b": None, "a": [True, "✓"]}}
    manifest = read_manifest(write_checkpoint(tmp_path, 3, some_arrays(), told))
    assert {key: manifest[key] for key in told} == told
    assert repr(manifest["numbers"]) == repr(told["numbers"])
    assert list(manifest) == ["format", "iteration", "numbers", "größe", "files"]


def test_others_can_read_it_with_safetensors_and_json_alone(tmp_path):
    arrays = some_arrays()
    place = write_checkpoint(tmp_path, 12, arrays, STATE)
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


def test_the_reader_in_the_documentation(tmp_path):
    """It runs in an interpreter that has never heard of the harness."""
    text = (ROOT / "docs/checkpoint-format.md").read_text()
    reader = text.split("```python\n")[1].split("```")[0]
    tail = (
        "import sys\nmanifest, weights, slots = read_set(Path(sys.argv[1]))\n"
        "assert not {'harness', 'mxnet'} & sys.modules.keys()\n"
        "print(json.dumps([manifest['iteration'], weights['w'].tolist(), slots['w/0'].tolist()]))"
    )
    arrays = {"parameters": {"w": np.arange(3, dtype="f")}, "slots": {"w/0": np.ones((2, 1))}}
    place = write_checkpoint(tmp_path, 12, arrays, STATE)
    command = [sys.executable, "-I", "-c", reader + tail, place]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == [12, [0, 1, 2], [[1], [1]]]
    with (place / "optimizer.safetensors").open("ab") as file:
        file.write(b"0")
    ran = subprocess.run(command, capture_output=True, text=True)
    assert "AssertionError" in ran.stderr


def test_a_set_of_the_same_iteration_is_replaced_each_time(tmp_path):
    for value in (1, 2, 3):
        write_checkpoint(tmp_path, 5, {"parameters": {"a": np.full(3, value)}, "slots": {}}, STATE)
        assert read_arrays(tmp_path / "iteration-000000005")["parameters"]["a"][0] == value
        assert [path.name for path in tmp_path.iterdir()] == ["iteration-000000005"]


def test_sets_are_found_by_any_path_that_stands_for_them(tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    places = [write_checkpoint(folder, iteration, some_arrays(), STATE) for iteration in (20, 100, 3)]
    ordered = [places[2], places[0], places[1]]
    (folder / "iteration-12").mkdir()  # too short to be one of ours
    (folder / "notes.txt").write_text("x")
    assert list_checkpoints(folder) == locate(folder) == locate(tmp_path / "run") == ordered
    assert locate(places[0]) == [places[0]]
    for nothing, reason in ((tmp_path / "absent", "there is no such folder"), (tmp_path, "holds no checkpoints")):
        with pytest.raises(CheckpointError, match=f"{nothing}: {reason}; give a checkpoint"):
            locate(nothing)
    assert list_checkpoints(tmp_path / "absent") == []
    missing = folder / "iteration-000000021"
    with pytest.raises(CheckpointError, match=f"{missing}: there is no such folder; give a checkpoint"):
        locate(missing)


def test_sets_stand_in_the_order_of_their_iterations(tmp_path):
    iterations = [2_000_000_000, 9, 999_999_999, 1_000_000_000, 0, 10]
    for iteration in iterations:
        write_checkpoint(tmp_path, iteration, some_arrays(), STATE)
    places = list_checkpoints(tmp_path)
    assert places == [checkpoint_path(tmp_path, iteration) for iteration in sorted(iterations)]
    assert [read_manifest(place)["iteration"] for place in places] == sorted(iterations)
    keep_newest(tmp_path, 2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["iteration-1000000000", "iteration-2000000000"]


def test_the_newest_stay_and_the_protected(tmp_path):
    places = [write_checkpoint(tmp_path, iteration, some_arrays(), STATE) for iteration in range(1, 7)]
    keep_newest(tmp_path, 2, protected=[places[1]])
    assert list_checkpoints(tmp_path) == [places[1], places[4], places[5]]
    keep_newest(tmp_path, 9)
    assert len(list_checkpoints(tmp_path)) == 3
    keep_newest(tmp_path, 1, protected=[tmp_path / "iteration-000000077"])  # of a best set that is not there any more
    assert [path.name for path in tmp_path.iterdir()] == [places[5].name]


def test_a_set_that_is_removed_loses_its_name_before_its_files(tmp_path, monkeypatch):
    places = [write_checkpoint(tmp_path, iteration, some_arrays(), STATE) for iteration in (1, 2, 3)]

    def refuse(source, target):
        raise PermissionError(source)

    with monkeypatch.context() as patches:
        patches.setattr(os, "rename", refuse)
        keep_newest(tmp_path, 1)
    assert list_checkpoints(tmp_path) == places  # what cannot be removed stays as it is
    for place in places:
        verify(place)
    with monkeypatch.context() as patches:
        patches.setattr(shutil, "rmtree", lambda *arguments, **options: None)  # as if killed here
        keep_newest(tmp_path, 1)
    assert list_checkpoints(tmp_path) == places[2:]
    assert len(list(tmp_path.iterdir())) == 3
    remove_debris(tmp_path)
    assert list(tmp_path.iterdir()) == places[2:]


def test_sets_that_are_moved_aside_are_never_lost(tmp_path):
    for _ in range(3):
        place = write_checkpoint(tmp_path, 4, some_arrays(), STATE)
        (moved,) = set_aside([place])
        verify_copy = moved.rename(tmp_path / place.name)
        verify(verify_copy)
        verify_copy.rename(moved)
    names = sorted(path.name for path in (tmp_path / "aside").iterdir())
    assert names == ["iteration-000000004", "iteration-000000004.1", "iteration-000000004.2"]
    places = [write_checkpoint(tmp_path, iteration, some_arrays(), STATE) for iteration in (5, 4)]
    moved = set_aside(places)
    assert moved == [tmp_path / "aside" / name for name in ("iteration-000000005", "iteration-000000004.3")]
    assert set_aside([]) == list_checkpoints(tmp_path) == []
    assert list_checkpoints(tmp_path / "aside") == [tmp_path / "aside" / f"iteration-{n:09d}" for n in (4, 5)]


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
        (lambda m: "not json", "is not the manifest of a checkpoint"),
        (lambda m: "[]", "is not the manifest of a checkpoint"),
        (lambda m: "", "is not the manifest of a checkpoint"),
        (lambda m: m.pop("format") and None, "is not the manifest of a checkpoint"),
        (lambda m: m.pop("iteration") and None, "is not the manifest of a checkpoint"),
        (lambda m: m.update(files=None), "is not the manifest of a checkpoint"),
        (lambda m: m.pop("files") and None, "is not the manifest of a checkpoint"),
        (lambda m: m.update(format=2), "is of format 2, this version reads format 1"),
        (lambda m: m.update(iteration=2), "belongs to another iteration or lists other files"),
        (lambda m: "[" * 200_000, "is not the manifest of a checkpoint"),
        (lambda m: m.update(files=list(m["files"])), "is not the manifest of a checkpoint"),
        (lambda m: m.update(files=dict.fromkeys(m["files"], 1)), "belongs to another iteration or lists other files"),
        (lambda m: m.update(files={}), "belongs to another iteration or lists other files"),
        (
            lambda m: m["files"].pop("optimizer.safetensors") and None,
            "belongs to another iteration or lists other files",
        ),
        (lambda m: m["files"].update({"../../x": {}}), "belongs to another iteration or lists other files"),
        (lambda m: m["files"].update({"/etc/passwd": {}}), "belongs to another iteration or lists other files"),
        (
            lambda m: m["files"].update({"params.safetensors": {}}),
            r"params\.safetensors has bytes [0-9]+, .* says None",
        ),
    ],
)
def test_a_manifest_that_says_something_else(tmp_path, change, reason):
    place = write_checkpoint(tmp_path, 1, some_arrays(), STATE)
    resealed(place, change)
    with pytest.raises(CheckpointError, match=f"^{place}: .*{reason}"):
        verify(place)


def test_a_manifest_that_is_no_text(tmp_path):
    place = write_checkpoint(tmp_path, 1, some_arrays(), STATE)
    content = b"\xff\xfe{}"
    (place / "manifest.json").write_bytes(content)
    (place / "manifest.sha256").write_text(hashlib.sha256(content).hexdigest() + "\n")
    with pytest.raises(CheckpointError, match="is not the manifest of a checkpoint"):
        verify(place)


class Bomb:
    def __reduce__(self):
        return (os.system, ("touch exploded",))


def test_a_pickle_under_the_right_name_is_never_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = write_checkpoint(tmp_path, 1, some_arrays(), STATE)
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


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3"])
def test_arrays_of_a_kind_that_numpy_does_not_know(tmp_path, dtype):
    place = write_checkpoint(tmp_path, 1, some_arrays(), STATE)
    nbytes = 4 if dtype == "BF16" else 2
    header = json.dumps({"a": {"dtype": dtype, "shape": [2], "data_offsets": [0, nbytes]}}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(nbytes)
    (place / "params.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="the arrays cannot be read"):
        read_arrays(place)


def test_our_files_are_what_the_library_writes_in_content(tmp_path):
    arrays = some_arrays()["parameters"]
    place = write_checkpoint(tmp_path, 1, {"parameters": arrays, "slots": {}}, STATE)
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
    write_checkpoint(folder, 1, some_arrays(), STATE)
    return calls


def test_the_order_in_which_a_set_reaches_the_disk(tmp_path, monkeypatch):
    calls = names_of_calls(tmp_path, monkeypatch)
    assert [(call, path.name) for call, path in calls[:4]] == [
        ("fsync", name) for name in ("params.safetensors", "optimizer.safetensors", "manifest.json", "manifest.sha256")
    ]
    assert [call for call, _ in calls[4:]] == ["fsync", "rename", "fsync"]
    assert calls[4][1].name.startswith(".writing-iteration-000000001")
    assert {path.parent for _, path in calls[:4]} == {calls[4][1]}
    assert calls[5][1] == tmp_path / "iteration-000000001"
    assert calls[6][1] == tmp_path


def test_the_order_when_a_set_is_replaced(tmp_path, monkeypatch):
    write_checkpoint(tmp_path, 1, some_arrays(), STATE)
    calls = names_of_calls(tmp_path, monkeypatch)
    assert [call for call, _ in calls[4:]] == ["fsync", "rename", "rename", "fsync"]
    assert calls[5][1].name.endswith("-replaced")
    assert [path for _, path in calls[6:]] == [tmp_path / "iteration-000000001", tmp_path]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_order_of_system_calls(tmp_path):
    code = (
        "import sys, numpy as np; from pathlib import Path; from harness.checkpoint import write_checkpoint;"
        "write_checkpoint(Path(sys.argv[1]), 1, {'parameters': {'a': np.zeros(9)}, 'slots': {}}, {})"
    )
    trace = tmp_path / "trace"
    folder = tmp_path / "sets"
    folder.mkdir()
    command = ["strace", "-f", "-y", "-s", "4096", "-e", "trace=openat,fsync,rename,renameat,renameat2", "-o", trace]
    ran = subprocess.run([*command, sys.executable, "-c", code, folder], cwd=ROOT, capture_output=True, text=True)
    if "ptrace" in ran.stderr:
        pytest.skip(f"strace may not trace here: {ran.stderr.strip()}")
    assert ran.returncode == 0, ran.stderr
    every = [line for line in trace.read_text().splitlines() if str(folder) in line]
    opened = [line for line in every if "openat(" in line and ("O_WRONLY" in line or "O_RDWR" in line)]
    lines = [line for line in every if "openat(" not in line]
    # each file is new, under the temporary name, and on disk before the next is begun
    assert all("O_CREAT|O_EXCL" in line and "/.writing-iteration-000000001" in line for line in opened)
    assert [line for line in every if line in opened or line in lines[:4]] == [
        line for pair in zip(opened, lines[:4], strict=True) for line in pair
    ]
    words = [line.split("(")[0].split()[-1] for line in lines]
    assert [word[:6] for word in words] == ["fsync"] * 5 + ["rename", "fsync"]
    ends = ["params.safetensors>", "optimizer.safetensors>", "manifest.json>", "manifest.sha256>"]
    assert all(end in line for end, line in zip(ends, lines, strict=False))
    assert ".writing-iteration-000000001" in lines[4]
    assert lines[6].split("<")[1].startswith(f"{folder}>")


def test_debris_goes_and_nothing_else(tmp_path):
    place = write_checkpoint(tmp_path, 1, some_arrays(), STATE)
    (tmp_path / ".writing-iteration-000000002-77").mkdir()
    (tmp_path / ".writing-iteration-000000002-77" / "params.safetensors").write_bytes(b"half")
    (tmp_path / ".writing-removed-iteration-000000000").mkdir()
    (tmp_path / "mine").mkdir()
    for _ in range(2):
        remove_debris(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == [place.name, "mine"]
    remove_debris(tmp_path / "absent")
    assert newest_valid(list_checkpoints(tmp_path)).newest == place


def test_a_set_that_was_being_replaced_gets_its_name_back(tmp_path):
    place = write_checkpoint(tmp_path, 1, some_arrays(), STATE)
    place.rename(tmp_path / f".writing-{place.name}-77-replaced")  # killed between the two renames
    (tmp_path / f".writing-{place.name}-77").mkdir()
    remove_debris(tmp_path)
    verify(place)
    assert [path.name for path in tmp_path.iterdir()] == [place.name]
