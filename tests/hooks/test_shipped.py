"""The hooks that ship with the harness, in real runs with the real packages; those that are not installed are skipped.

Prometheus' textfile needs no package, and is read with Prometheus' own parser where that is installed.
"""

from __future__ import annotations

import json
import os
import re
import struct
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from harness.checkpoint import list_checkpoints
from harness.folder import AttemptStart, MetricsLine
from harness.hooks import Hooks, load_hooks

SETTINGS = (
    "network={name: mlp, params: {hidden: [8]}}",
    "batch.shards=1",
    "train={iterations: 12}",
    "lr={base: null, schedule: 0.1}",
    "evaluation={every: 4it}",
    "checkpoint={every: 6it}",
    "log={every: 2it, tensorboard: false}",
    "threads_per_rank=1",
)

NUMBERS = (("train/loss", "train", "loss"), ("lr", "train", "lr"), ("test/accuracy", "test", "accuracy"))


@pytest.fixture
def trained(start, tmp_path):
    """Trains in two attempts, the first of which a hook stops; returns the run's folder."""

    def run(hook, **environ):
        stop = "{'tests.programs.own_hooks:ask': {at: 6, stop: true}}"
        for hooks, more, code in ((f"[{hook}, {stop}]", (), 75), (f"[{hook}]", ("--resume", "auto"), 0)):
            chosen = (*SETTINGS, f"output={tmp_path}", "name=tracked", f"hooks={hooks}")
            words = [word for one in chosen for word in ("--set", one)]
            done = start("launch/train.py", *words, *more, exit_code=code, fresh=True, HOME=str(tmp_path), **environ)
            assert "warning: hooks" not in done.stdout + done.stderr, done.stdout + done.stderr
        return tmp_path / "tracked"

    return run


def lines_of(folder: Path, split: str) -> dict[int, dict]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return {line["iteration"]: line for line in lines if line["split"] == split}


def test_mlflow_has_one_record_of_both_attempts(trained, tmp_path):
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed (the extra tracking)")
    store = f"file:{tmp_path}/mlruns"
    environ = {"MLFLOW_TRACKING_URI": store, "MLFLOW_EXPERIMENT_NAME": "tests", "MLFLOW_ALLOW_FILE_STORE": "true"}
    folder = trained("harness.hooks.mlflow:track", **environ)
    metrics = {  # its store is files: one for each metric, parameter and tag
        path: [(float(value), int(step)) for _, value, step in map(str.split, path.read_text().splitlines())]
        for path in tmp_path.glob("mlruns/*/*/metrics/**/*")
        if path.is_file()
    }
    (run,) = {Path(*path.parts[: path.parts.index("metrics")]) for path in metrics}
    found = {
        str(path.relative_to(run / "metrics")): {step: value for value, step in values}
        for path, values in metrics.items()
    }
    for name, split, key in NUMBERS:
        assert found[name] == {t: line[key] for t, line in lines_of(folder, split).items()}
    assert (run / "params/train.iterations").read_text() == "12"
    assert (run / "tags/checkpoint").read_text() == str(list_checkpoints(folder / "checkpoints")[-1])
    assert (run / "tags/cause").read_text() == "done"
    assert (run / "meta.yaml").read_text().count("status: 3") == 1  # finished
    assert {path.name for path in (run / "artifacts").iterdir()} == {"report.html", "config.yaml", "metrics.jsonl"}
    assert (folder / "mlflow-run.txt").read_text().strip() == run.name


def test_wandb_has_one_record_of_both_attempts(trained, tmp_path):
    pytest.importorskip("wandb", reason="wandb is not installed (the extra tracking)")
    folder = trained("harness.hooks.wandb:track", WANDB_MODE="offline")
    logged, configs, codes, ids = wandb_records(sorted(folder.glob("wandb/offline-run-*/run-*.wandb")))
    assert ids == {(folder / "wandb-run.txt").read_text().strip()}
    assert (len(configs), codes) == (2, [0, 0])
    assert all(config["train"]["iterations"] == 12 for config in configs)
    for name, split, key in NUMBERS:
        found = {one["iteration"]: one[name] for one in logged if name in one}
        assert found == {t: line[key] for t, line in lines_of(folder, split).items()}


def wandb_records(paths):
    """What the files of offline runs hold: records of protobuf, in the log format of LevelDB after 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    logged, configs, codes, ids = [], [], [], set()
    for data in (data for path in paths for data in leveldb_records(path.read_bytes(), 7)):
        record = Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "history":
            items = record.history.item
            logged.append({one.key or ".".join(one.nested_key): json.loads(one.value_json) for one in items})
        elif kind == "run":
            ids.add(record.run.run_id)
            configs.append({one.key: json.loads(one.value_json) for one in record.run.config.update})
        elif kind == "exit":
            codes.append(record.exit.exit_code)
    return logged, configs, codes, ids


def leveldb_records(data, place):
    """The records of a log: pieces with a checksum, a length and a kind, none of them across a block of 32 KiB."""
    block, head, pieces = 1 << 15, struct.Struct("<IHB"), []
    while place + head.size <= len(data):
        if block - place % block < head.size:
            place += block - place % block
            continue
        _, size, kind = head.unpack_from(data, place)
        place += head.size
        pieces.append(data[place : place + size])
        place += size
        if kind in (1, 4):  # whole, or the last piece
            yield b"".join(pieces)
            pieces = []


def test_the_textfile_has_the_newest_numbers_and_is_replaced_as_a_whole(tmp_path, monkeypatch):
    folder = tmp_path / "node_exporter"
    hooks = Hooks(load_hooks([{"harness.hooks.prometheus:textfile": {"folder": str(folder)}}]), "stop")
    start, renamed = AttemptStart(began_at=5.0, ranks=2), []
    replace = Path.rename
    monkeypatch.setattr(Path, "rename", lambda old, new: (renamed.append((old.suffix, new.name)), replace(old, new))[1])
    hooks.open(Path('runs/a"b'), "x", start, dict, lambda: np.full(9, 0.5), print)
    path = folder / 'harness_a"b.prom'
    for t, loss in ((1, float("nan")), (2, 2.5)):
        hooks.recorded([MetricsLine("train", t, 1, 0.5, None, {"loss": loss}, 6.0 + t)])
    hooks.recorded([MetricsLine("digest", 2, 1, 0.5, None, {}, 9.0)])
    hooks.recorded([MetricsLine("test", 2, 1, 0.5, None, {"loss": float("inf"), "accuracy": 0.25}, 8.5)])
    hooks.saved(2, Path("iteration-2"))
    hooks.world_changed(2, 2, 3, "a host was added")
    hooks.ended(75, "stopped")
    hooks.raise_failure()
    assert samples_of(path.read_text()) == {
        ("harness_begun_timestamp_seconds",): 5.0,
        ("harness_checkpoint_iteration",): 2,
        ("harness_exit_code",): 75,
        ("harness_iteration",): 2,
        ("harness_iterations",): 9,
        ("harness_learning_rate",): 0.5,
        ("harness_updated_timestamp_seconds",): 8.5,
        ("harness_value", "train", "loss"): 2.5,
        ("harness_value", "test", "loss"): float("inf"),
        ("harness_value", "test", "accuracy"): 0.25,
        ("harness_workers",): 3,
    }
    assert set(renamed) == {(renamed[0][0], path.name)}
    assert renamed[0][0] != ".prom"  # the node exporter does not read it before
    assert os.listdir(folder) == [path.name]
    hooks = Hooks(load_hooks([{"harness.hooks.prometheus:textfile": {"folder": str(folder)}}]))
    hooks.open(Path('runs/a"b'), "x", start, dict, lambda: np.full(9, 0.5), print)
    assert ("harness_exit_code",) not in samples_of(path.read_text())  # of the attempt before


SAMPLE = re.compile(r"""(\w+)\{run="a\\"b"((?:,\w+="\w+")*)\} (\S+)""")


def samples_of(text):
    """The samples of a textfile, by name and labels; Prometheus' own parser has to find the same."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, labels, value = SAMPLE.fullmatch(line).groups()
            found[(name, *re.findall('"(.*?)"', labels))] = float(value)
    assert text.count("# TYPE ") == text.count(" gauge\n") == text.count("# HELP ") == len({name for name, *_ in found})
    if find_spec("prometheus_client") is not None:
        from prometheus_client.parser import text_string_to_metric_families

        samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
        assert {one.labels.pop("run") for one in samples} == {'a"b'}
        assert {(one.name, *one.labels.values()): one.value for one in samples} == found
    return found
