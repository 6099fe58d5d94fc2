"""A run's folder with one damaged record: a page that says what could not be read, or one message; never a traceback.

`HARNESS_THOROUGH=1` damages every file in 100 places by a byte and in 100 by a value.
"""

from __future__ import annotations

import json
import math
import random
import shutil
from dataclasses import asdict, is_dataclass

import numpy as np
import pytest

from harness.config import parse_config
from harness.config.reading import dump_yaml, parse_yaml
from harness.errors import ConfigError
from harness.finder import read_result, take_result
from harness.plan import Extend, Rewind
from harness.report.record import read_record
from tests.conftest import THOROUGH
from tests.folder.damage import change_byte, change_value
from tests.report.folders import BEGUN, DONE, evaluated, finder_result, make_run, trained

COUNT = 100 if THOROUGH else 5
LINES = ("attempts.jsonl", "metrics.jsonl")
FILES = (
    *("outcome.json", "failures/rank-1.json", "attempts.jsonl", "plan.json", "plan.csv", "metrics.jsonl"),
    *("finder/result.json", "config.yaml", "checkpoints/best.json"),
)
FREE = {"plan.json": ("changes", "train"), "finder/result.json": ("settings", "provenance")}
LOST = {**DONE, "attempt": "b", "exit_code": 7, "cause": "rank 1 was killed"}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A run with every record that there is, and the bytes of each."""
    metrics = [trained(t, 2 / t, images_per_s=1000.0) for t in range(1, 61)]
    metrics += [
        {"split": "rewind", "iteration": 40, "diverged_at": 46, "lr_factor": 0.5},
        {"split": "skipped", "iteration": 62, "lr": 0.1, "count": 1},
        *(evaluated(t, 0.3, 0.8) for t in (20, 40)),
    ]
    attempts = [BEGUN, {**DONE, "exit_code": 75, "cause": "stopped"}, {**BEGUN, "attempt": "b", "after": 40}]
    amendments = [
        Extend(40, {"train.iterations": (100, 90)}),
        Rewind(40, 0.5, diverged_at=46),
    ]
    folder = make_run(tmp_path_factory.mktemp("good"), "digits", metrics, attempts, LOST, amendments)
    (folder / "failures").mkdir()
    failure = {**LOST, "rank": 1, "place": "iteration 60", "collective": "fold", "stacks": "Thread 1"}
    (folder / "failures/rank-1.json").write_text(json.dumps(failure))
    result = finder_result()
    result["provenance"] |= {"shards": 2, "batch_size": 32}
    (folder / "finder").mkdir()
    (folder / "finder/result.json").write_text(json.dumps(result))
    (folder / "checkpoints/iteration-000000040").mkdir(parents=True)
    (folder / "checkpoints/iteration-000000040/manifest.json").write_text("{}")
    best = {"set": "iteration-000000040", "iteration": 40, "metric": "test.accuracy", "value": 0.8}
    (folder / "checkpoints/best.json").write_text(json.dumps(best))
    record = read_record(folder)
    assert record.unread.parts == []
    assert (record.last_iteration, len(record.attempts), record.sets[0].is_best) == (60, 2, True)
    return folder, {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture
def folder(good, tmp_path):
    """A copy of it."""
    return shutil.copytree(good[0], tmp_path / "digits")


def damaged_value(name, data, draw):
    """Bytes with one damaged value of a record, and whether nobody could take it for right."""
    if name == "plan.csv":
        lines = data.split(b"\n")
        lines[draw.randrange(len(lines) - 1)] = draw.choice(
            [b"", b"1,1", b"-3,1,0.1,0.9", b"nan,1,nan,", b"x" * 300_000]
        )
        return b"\n".join(lines), False
    lines = data.splitlines(keepends=True) if name in LINES else [data]
    k = draw.randrange(len(lines))
    content = parse_yaml(lines[k].decode(), name) if name == "config.yaml" else json.loads(lines[k])
    text, kind, path = change_value(content, draw)
    lines[k] = text.encode("utf-8", "surrogatepass") + b"\n"
    is_free = any(word in path for word in FREE.get(name, ())) or "environment" in path
    certain = kind in ("nested", "deep", "twice") and name != "config.yaml" and not is_free
    return b"".join(lines), certain


def numbers_in(value):
    """Every number of a record."""
    if is_dataclass(value):
        value = asdict(value)
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for inner in value:
            yield from numbers_in(inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def assert_possible(record):
    """Nothing is taken for right that cannot be."""
    total = record.num_iterations or 2**53
    assert record.last_iteration <= total
    for typed in (record.plan, *record.attempts, *record.failures, *record.sets):
        for number in numbers_in(typed):
            assert math.isfinite(number)
    for begun, ended, changes in record.attempts:
        assert begun.ranks is None or begun.ranks >= 1
        assert all(change.ranks >= 1 for change in changes)
        assert ended is None or ended.exit_code in (*range(9), 75)
    training = record.metrics.training
    assert (np.diff(training["iteration"]) >= 0).all()
    assert not (training["iteration"] < 1).any()
    assert not (training["lr"] < 0).any()
    assert not (record.curve[1] < 0).any()


@pytest.mark.parametrize("kind", ["byte", "value"])
@pytest.mark.parametrize("name", FILES)
def test_one_damage(command, good, folder, name, kind):
    data = good[1][name]
    page = folder / "report.html"
    for seed in range(COUNT):
        draw = random.Random(f"{name} {kind} {seed}")
        damaged, certain = (change_byte(data, draw), False) if kind == "byte" else damaged_value(name, data, draw)
        (folder / name).write_bytes(damaged)
        page.unlink(missing_ok=True)
        ended = command("report", folder)
        said = f"seed {seed}: {ended}"
        assert "Traceback" not in ended.err, said
        if ended.code == 2:
            assert (name, ended.out, ended.err.count("error: ")) == ("config.yaml", "", 1), said
            assert len(ended.err) < 3000, said
            assert not page.exists(), said
            continue
        assert (ended.code, ended.err) == (0, ""), said
        text = page.read_text()
        assert len(text) < 3_000_000, said
        assert "<script" not in text, said
        assert not certain or "Unreadable parts" in text, said
        record = read_record(folder)
        assert bool(record.unread.parts) == ("Unreadable parts" in text), said
        assert_possible(record)


@pytest.mark.parametrize("kind", ["byte", "value"])
def test_the_number_of_a_damaged_result_is_the_right_one_or_none(good, tmp_path, kind):
    lr = {"base": "result.json", "schedule": "1x"}
    config = parse_config({"train": {"epochs": 1}, "network": {"name": "mlp"}, "lr": lr}, "x.yaml")
    path = tmp_path / "result.json"
    taken, refused = [], []
    for seed in range(4 * COUNT):
        draw = random.Random(seed)
        data = good[1]["finder/result.json"]
        path.write_bytes(change_byte(data, draw) if kind == "byte" else damaged_value(path.name, data, draw)[0])
        try:
            found, _ = take_result(config, read_result(path), "result.json")
        except ConfigError as error:
            refused.append(str(error))
        else:
            taken.append((found.lr.base, found.lr.reference_batch))
    assert set(taken) == {(0.1, 64)}
    assert all(text.startswith(f"{path}: ") and len(text) < 1000 for text in refused)


def test_a_damaged_config_that_reads_is_told(command, folder):
    settings = parse_yaml((folder / "config.yaml").read_text(), "config.yaml")
    settings["train"] = {"iterations": -5}
    (folder / "config.yaml").write_text(dump_yaml(settings))
    assert command("report", folder).code == 0
    assert "this version refuses it" in (folder / "report.html").read_text()
