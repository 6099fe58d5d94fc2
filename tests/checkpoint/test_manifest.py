"""A manifest that somebody else has sealed: one message that names the key, what was found and what is allowed."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import random
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from harness.checkpoint import Best, Manifest, locate, read_arrays, read_manifest, verify, write_checkpoint
from harness.checkpoint.consistency import COUNTS_ALWAYS
from harness.comm import SingleWorld
from harness.config import load_config
from harness.errors import CheckpointError
from harness.gluon import LearnerState
from harness.model.optimizers import NOT_UPDATED_AT_0, known_optimizers
from harness.train.build import build_learner
from harness.train.prepare import prepare_run
from harness.train.resume import StartOptions
from tests.conftest import THOROUGH

OLD = Path(__file__).parent / "format_1"  # written by version 0.1.0, as it was before manifests were typed
NAME = "iteration-000000004"


@pytest.fixture
def place(tmp_path):
    """A copy of the old checkpoint, to be changed."""
    shutil.copytree(OLD / NAME, tmp_path / NAME)
    return tmp_path / NAME


def seal(place, manifest):
    text = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    (place / "manifest.json").write_bytes(text)
    (place / "manifest.sha256").write_text(hashlib.sha256(text).hexdigest() + "\n")


def changed(place, keys, value):
    """Seal the manifest with another value at some keys; `...` removes the last one."""
    manifest = json.loads((place / "manifest.json").read_text())
    inner = manifest
    for key in keys[:-1]:
        inner = inner[key]
    if keys == ["state"] and isinstance(value, dict):
        inner["state"].update(value)
    elif value is ...:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    seal(place, manifest)


def resumed(place, *settings, **start):
    """The digest of a run's learner, resumed from a checkpoint elsewhere."""
    config = load_config(OLD / "config.yaml", ["name=x", f"output={place.parent}/runs", *settings])
    run = prepare_run(config, SingleWorld(), threads=1, start=StartOptions(resume=str(place), **start))
    return build_learner(run).digest()


def outcome(place):
    """The digest of what was resumed, or `None` and the message of what was refused."""
    try:
        return resumed(place), ""
    except CheckpointError as error:
        return None, str(error)


def test_a_checkpoint_of_the_first_version_is_read_and_resumed(place):
    digest = "991dc948eb038064ce1d767aacc3dc171cf5c4c899110c1d081ea6f6581ac0f0"
    assert LearnerState.load(place).digest() == resumed(place) == digest
    manifest = Manifest.of(read_manifest(place), place)
    assert (manifest.iteration, manifest.shards, manifest.batch_size, manifest.num_samples) == (4, 1, 32, 1437)
    assert manifest.state.best == Best(4, "test.accuracy", 0.11944444444444445)
    assert manifest.state.best.to_json() == manifest.content["state"]["best"]
    assert (manifest.state.skipped, manifest.state.evaluation_due, manifest.init) == (0, False, None)


REWIND = {"iteration": 2, "choice": "rewind", "lr_factor": 0.5, "diverged_at": 3}
INIT = {"from": "w.params", "way": "name", "taken": {"a": "b"}, "fresh": {}, "left": ["c"]}
WRONG = [
    (["shards"], 0, "shards is 0; allowed: 1 to 1,000,000,000"),
    (["shards"], -1, "shards is -1"),
    (["shards"], "1", "shards is the text '1', not a whole number"),
    (["shards"], 10**400, "shards is a number of 401 digits; allowed"),
    (["batch_size"], None, "batch_size is null, not a whole number"),
    (["batch_size"], 31, "sizes.iterations_per_epoch is 44; allowed: 46 to 47"),
    (["sizes"], ..., "sizes is missing"),
    (["sizes", "num_samples"], 3, "sizes.num_samples is 3; allowed: 32 to"),
    (["sizes", "num_samples"], 1438, "the training data are not those"),
    (["sizes", "iterations_per_epoch"], 43, "sizes.iterations_per_epoch is 43; allowed: 44 to 45"),
    (["sizes", "iterations_per_epoch"], 45, "sizes.iterations_per_epoch is 45, but by config.train it is 44"),
    (["sizes", "num_iterations"], 3, "sizes.num_iterations is 3; allowed: 4 to"),
    (["sizes", "num_iterations"], 9, "sizes.num_iterations is 9, but by config.train it is 8"),
    (["state"], ..., "state is missing"),
    (["state"], [], "state is a list, not an object"),
    (["state", "iteration"], 5, "state.iteration is 5; allowed: 4 to 4"),
    (["state", "applied_lr"], math.nan, "state.applied_lr is nan"),
    (["state", "applied_lr"], -0.1, "state.applied_lr is -0.1; allowed: 0 to 3.40282e+38"),
    (["state", "applied_lr"], 1e39, "state.applied_lr is 1e+39"),
    (["state", "num_update"], 5, "state.num_update is 5; allowed: 0 to 4"),
    (["state", "num_update"], True, "state.num_update is true, not a whole number"),
    (["state", "update_counts"], {}, "state.update_counts is an object, not a list"),
    (["state", "update_counts"], [4], "update_counts has 1 entries, expected 7"),
    (["state", "update_counts", 6], -4, "state.update_counts[6] is -4"),
    (["state", "update_counts", 6], 1, "state.update_counts[6] is 1; allowed: 4 to 4"),
    (["state", "scalars"], {"m_schedule": 1.0}, "scalars are m_schedule, expected none"),
    (["state", "scalars"], {"m_schedule": None}, "state.scalars.m_schedule is null, not a number"),
    (["state", "amendments"], {}, "state.amendments is an object, not a list"),
    (["state", "amendments"], [1], "state.amendments[0] is 1, not an object"),
    (["state", "amendments"], [{"iteration": 1}], "state.amendments[0].choice is missing"),
    (
        ["state", "amendments"],
        [{**REWIND, "choice": "x"}],
        "choice is the text 'x'; allowed: config, checkpoint",
    ),
    (["state", "amendments"], [{**REWIND, "lr_factor": 2}], "state.amendments[0].lr_factor is 2; allowed"),
    (["state", "amendments"], [{**REWIND, "iteration": 9}], "state.amendments[0].iteration is 9; allowed: 0 to 4"),
    (["state", "amendments"], [{"iteration": 2, "choice": "config", "changes": {}}], "amendments[0].lr is missing"),
    (
        ["state", "amendments"],
        [{"iteration": 2, "choice": "config", "changes": {}, "lr": {"schedule": "1y"}, "train": {}}],
        "the plan that held until iteration 2 cannot be used",
    ),
    (["state", "best"], 4, "state.best is 4, not an object"),
    (["state", "best", "metric"], "accuracy", "state.best.metric is the text 'accuracy'; allowed: a split and a name"),
    (["state", "best", "value"], math.nan, "state.best.value is nan"),
    (["state", "best", "iteration"], 5, "state.best.iteration is 5; allowed: 1 to 4"),
    (["state", "evaluation_due"], "no", "state.evaluation_due is the text 'no', not true or false"),
    (["state", "skipped"], -1, "state.skipped is -1"),
    (["state", "replaced"], 3, "state.replaced is 3, not an object"),
    (["state", "replaced"], {"count": 1, "in_epoch": 2, "first": []}, "state.replaced.in_epoch is 2; allowed: 0 to 1"),
    (["data"], 3, "data is 3, not text"),
    (["data"], "x", "the training data are not those"),
    (["items"], 3, "items is 3, not text"),
    (["plan"], [], "plan is a list, not an object"),
    (["plan", "lr", "3"], "x", "plan.lr.3 is the text 'x', not a number"),
    (["environment"], "x", "environment is the text 'x', not an object"),
    (["environment", "numpy"], [], "environment.numpy is a list, not a whole number"),
    (["world", "size"], 0, "world.size is 0"),
    (["world", "sum"], "ring", "world.sum is the text 'ring'; allowed: tree, engine"),
    (["config"], [], "config is a list, not an object"),
    (["config", "lr", "base"], "auto", "config.lr.base is auto, but by a run's base it is a number"),
    (["config", "batch", "shards"], 2, "shards is 1, but by config.batch.shards it is 2"),
    (["config", "seed"], -1, "its configuration cannot be used by this version"),
    (["config", "name"], "../x", "its configuration cannot be used by this version"),
    (["config", "lr", "momentum"], 1, "its own plan cannot be used by this version"),
    (["init"], 3, "init is 3, not an object"),
    (["init"], {"from": 5}, "init.from is 5, not text"),
    (["init"], {**INIT, "fresh": {"w": 1}}, "init.fresh.w is 1, not text"),
    (["init"], {**INIT, "taken": []}, "init.taken is a list, not an object"),
    (["init"], {**INIT, "left": ["a", None]}, "init.left[1] is null, not text"),
    (["state", "num_update"], 3, "state.update_counts[0] is 4; allowed: 0 to 3"),
    (["state"], {"num_update": 3, "update_counts": [3] * 7}, "state.num_update is 3 and state.skipped is 0; allowed"),
    (["state"], {"num_update": 0, "update_counts": [0] * 7, "applied_lr": None}, "num_update is 0 and state.skipped"),
    (["state"], {"num_update": 0, "update_counts": [0] * 7, "skipped": 4}, "applied_lr is 0.07; allowed: null where"),
    (["state", "skipped"], 4, "state.num_update is 4 and state.skipped is 4; allowed: together 4"),
    (["state", "skipped"], 1, "state.num_update is 4 and state.skipped is 1; allowed: together 4"),
    (["state", "weightless"], -1, "state.weightless is -1"),
    (["state", "weightless"], 1, "state.num_update is 4 and state.skipped is 0 and state.weightless is 1; allowed"),
    (["state", "applied_lr"], None, "state.applied_lr is null, not a number"),
    (["state", "applied_lr"], 0.7, "state.applied_lr is 0.7, but by plan.lr.4 it is 0.07"),
    (
        ["state", "amendments"],
        [{**REWIND, "iteration": t, "diverged_at": 9} for t in (4, 3)],
        "state.amendments[1].iteration is 3; allowed: 4 to 4",
    ),
    (["state", "amendments"], [{**REWIND, "diverged_at": 2}], "state.amendments[0].diverged_at is 2; allowed: 3 to"),
    (["state", "amendments"], [{**REWIND, "lr_factor": 1.0}], "state.amendments[0].lr_factor is 1.0; allowed"),
    (["state", "amendments"], [{**REWIND, "lr_factor": 1e-320}], "state.amendments[0].lr_factor is 1e-320; allowed"),
    (["state", "amendments"], [{**REWIND, "lr_factor": 1e-37}] * 2, "rewinds (state.amendments[0].lr_factor 1e-37, st"),
    (["state", "amendments"], [REWIND], "plan.lr.3 is 0.1, but by config.lr and state.amendments it is 0.05"),
    (["plan", "lr"], {"3": 0.1, "4": 0.07, "5": 7.0}, "plan.lr.5 is 7, but by config.lr and state.amendments it is"),
    (["plan", "lr"], {"3": 0.1, "4": 0.07}, "plan.lr holds iterations 3, 4; allowed: 3, 4, 5"),
    (["plan", "lr", "40"], 5.0, "plan.lr holds iterations 3, 4, 40, 5; allowed: 3, 4, 5"),
    (["config", "optimizer", "name"], 3, "config.optimizer.name is 3, not text"),
]


@pytest.mark.parametrize(("keys", "value", "part"), WRONG, ids=lambda value: str(value)[:40])
def test_one_message_names_the_key_what_was_found_and_what_is_allowed(place, keys, value, part):
    changed(place, keys, value)
    verify(place)
    with pytest.raises(CheckpointError) as caught:
        resumed(place)
    assert part in str(caught.value)
    assert str(place) in str(caught.value)


def test_the_weights_that_a_run_began_with_are_read(place):
    changed(place, ["init"], INIT)
    assert resumed(place)
    assert Manifest.of(read_manifest(place), place).init == INIT


@pytest.mark.parametrize(
    ("updates", "counts", "applied"), [(4, [4, 0, 4, 4, 4, 4, 4], 0.07), (3, [3] * 7, 0.1), (0, [0] * 7, None)]
)
def test_an_optimizer_that_rests_at_0_counts_fewer_updates(place, updates, counts, applied):
    changed(place, ["state"], {"num_update": updates, "update_counts": counts, "applied_lr": applied})
    with pytest.raises(CheckpointError):
        Manifest.of(read_manifest(place), place)
    changed(place, ["config", "optimizer", "name"], "FTRL")
    assert Manifest.of(read_manifest(place), place).state.numbers["num_update"] == updates


def test_every_optimizer_counts_always_or_rests_at_0():
    assert set(known_optimizers()) == {*COUNTS_ALWAYS, *NOT_UPDATED_AT_0}


def nested(depth):
    return json.loads("[" * depth + "]" * depth)


@pytest.mark.parametrize("depth", [101, 300, 900])
def test_a_manifest_that_is_nested_deeply(place, depth):
    changed(place, ["more"], nested(depth))
    with pytest.raises(CheckpointError, match=r"manifest\.json is not the manifest of a checkpoint .*nested"):
        verify(place)


def test_an_unbounded_metric_of_an_old_run_stays_readable(place):
    changed(place, ["state", "best", "value"], math.inf)
    assert resumed(place)


@pytest.mark.parametrize("content", [b"[" + b"{}," * 2_800_000 + b"{}]", b'{"a": "' + b"x" * 9_000_000 + b'"}'])
def test_a_large_manifest_takes_little_memory(place, content):
    seal(place, content)
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=r"manifest\.json (has [0-9,]+ bytes; at most|is not the manifest)"):
        verify(place)
    assert tracemalloc.get_traced_memory()[1] < 2 * len(content) + 50_000_000
    tracemalloc.stop()


def test_a_manifest_that_could_not_be_read_is_not_written(tmp_path):
    arrays = {"parameters": {}, "slots": {}}
    with pytest.raises(CheckpointError, match=r"its manifest would have [0-9,]+ bytes, and at most 8,388,608 are read"):
        write_checkpoint(tmp_path, 1, arrays, {"config": {"data": {"params": {"ids": ["x" * 1000] * 9000}}}})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256", "params.safetensors"])
def test_a_pipe_in_the_place_of_a_file(place, name):
    (place / name).unlink()
    os.mkfifo(place / name)
    with pytest.raises(CheckpointError, match=f"{name} cannot be read"):
        verify(place)


def test_a_path_that_no_file_system_takes(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot be read|there is no such folder"):  # from Python 3.14 on
        locate(tmp_path / ("x" * 5000))
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="file: is a file; give a checkpoint"):
        locate(tmp_path / "file")


@pytest.mark.parametrize("key", ["config", "amendment"])
def test_a_checkpoint_from_elsewhere_brings_no_code(place, tmp_path, key):
    bomb = {"os:system": {"command": f"touch {tmp_path}/exploded"}}
    lr = {"base": None, "schedule": bomb}
    if key == "config":
        changed(place, ["config", "lr"], lr)
    else:
        amendment = {"iteration": 2, "choice": "config", "changes": {}, "lr": lr, "train": {"iterations": 8}}
        changed(place, ["state", "amendments"], [amendment])
    for choice in ("error", "config", "checkpoint"):
        with pytest.raises(CheckpointError, match=r"its configuration names code that .* does not: os:system"):
            resumed(place, on_conflict=choice)
    assert not (tmp_path / "exploded").exists()


def describe_again(place, name):
    content = (place / name).read_bytes()
    manifest = json.loads((place / "manifest.json").read_text())
    manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    seal(place, manifest)


def header(entries, data=b""):
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"w": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        (2**63 - 1).to_bytes(8, "little"),
        header(b"{"),
        header(b"[" * 100_000),
        header(b'{"w":' * 50_000),
        header(entry("F33"), bytes(4)),
        header(entry(shape=(2**62,)), bytes(4)),
        header(entry(shape=(2**40, 0), offsets=(0, 0))),
        header(entry(shape=(2**63, 2), offsets=(0, 0))),
        header(entry(shape=(1,) * 70), bytes(4)),
        header(entry(offsets=(0, 2**40)), bytes(4)),
        header(entry(offsets=(4, 0)), bytes(4)),
        header(entry(offsets=(-4, 0)), bytes(4)),
        header({"a": entry()["w"], "b": entry()["w"]}, bytes(4)),
        header(entry("BF16", offsets=(0, 2)), bytes(2)),
        header(entry(), bytes(400)),
        header({str(n): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(50_000)}),
        header(b'{"__metadata__":{' + b'"a":"b",' * 1_700_000 + b'"c":"d"}}'),
        header(b"{" * 300_000),
    ],
    ids=lambda content: f"{len(content)} bytes",
)
@pytest.mark.parametrize("name", ["params.safetensors", "optimizer.safetensors"])
def test_a_header_of_somebody_elses(place, name, content):
    (place / name).write_bytes(content)
    describe_again(place, name)
    verify(place)
    with pytest.raises(CheckpointError) as caught:
        resumed(place)
    assert str(place) in str(caught.value)
    assert len(str(caught.value)) < 5000


def test_numbers_that_are_not_finite_are_not_resumed_from(place):
    for name, kind in (("optimizer.safetensors", "slots"), ("params.safetensors", "parameters")):
        arrays = read_arrays(place)[kind]
        first = next(iter(arrays))
        arrays[first] = np.full_like(arrays[first], np.nan)
        save_file(arrays, place / name)
        describe_again(place, name)
        with pytest.raises(CheckpointError, match="holds numbers that are not finite, in"):
            resumed(place)


VALUES = (
    *(None, True, False, 0, -1, 1, 3, 10**9, 10**18, 10**400, 1.5, -0.5, math.nan, math.inf, "", "x", "\x1b[2J"),
    *("1", [], [1], {}, {"a": 1}, [[[[]]]], {"a": {"b": {"c": []}}}, "A" * 100_000),
)


def keys_in(value, above=()):
    if above:
        yield above
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from keys_in(value[key], (*above, key))


def damaged(manifest, generator):
    manifest = copy.deepcopy(manifest)
    *parents, last = generator.choice(list(keys_in(manifest)))
    inner = manifest
    for key in parents:
        inner = inner[key]
    match generator.randrange(6):
        case 0:
            del inner[last]
        case 1:
            inner[last] = [[[inner[last]]]] if generator.randrange(2) else nested(generator.choice([90, 300]))
        case 2 if isinstance(inner, dict):
            inner["extra"] = generator.choice(VALUES)
        case _:
            inner[last] = generator.choice(VALUES)
    return manifest


@pytest.mark.parametrize("number", range(10 if THOROUGH else 1))
def test_structural_damage_is_refused_or_changes_nothing(place, number):
    manifest = json.loads((place / "manifest.json").read_text())
    undamaged = resumed(place)
    refused = 0
    for seed in range(40 * number, 40 * number + 40):
        seal(place, damaged(manifest, random.Random(seed)))
        digest, message = outcome(place)
        assert digest in (None, undamaged), seed
        assert len(message) < 5000, seed
        refused += digest is None
    assert refused > 20


@pytest.mark.parametrize("number", range(5 if THOROUGH else 1))
def test_any_byte_under_a_right_seal(place, number):
    content = (place / "manifest.json").read_bytes()
    undamaged = resumed(place)
    generator = random.Random(number)
    for _ in range(40):
        changed_bytes = bytearray(content)
        changed_bytes[generator.randrange(len(content))] = generator.randrange(256)
        seal(place, bytes(changed_bytes))
        digest, message = outcome(place)
        assert len(message) < 5000
        if digest not in (None, undamaged):  # another number, such as the applied rate, that could have been written
            assert LearnerState.load(place).numbers != LearnerState.load(OLD / NAME).numbers
