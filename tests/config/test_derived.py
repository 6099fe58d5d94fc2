"""What is derived (a name from a file's, a number from workers or a finder) passes the checks of what is read."""

from __future__ import annotations

import json
import math

import pytest

from harness.config import dump_config, load_config, parse_config
from harness.data import Batching
from harness.errors import ConfigError
from harness.finder import read_result, take_result, with_base
from harness.plan import LRPlan, Sizes

RAW = {
    "train": {"epochs": 1},
    "network": {"name": "mlp"},
    "optimizer": {"params": {"momentum": 0.9}},
    "lr": {"base": 0.1, "schedule": "1x"},
}
TEXT = "train: {epochs: 1}\nnetwork: {name: mlp}\nlr: {base: 0.1, schedule: 1x}\n"
ODD = [
    *("a b", ".", "..", ".hidden", "-x", "_x", "größe", "a+b", "a:b", "x'y", "a\nb", "a\tb", "{}", "日本", "*", "x~"),
    *("a" * 101, "a,b", "x\\y", "a\n", "\u202ea"),
]


@pytest.mark.parametrize("stem", ODD)
def test_a_file_whose_name_is_no_run_name(tmp_path, stem):
    file = tmp_path / f"{stem}.yaml"
    file.write_text(TEXT)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    for part in (f"{file}: name: is not set", "must be letters, digits", "at most 100 in all", "--set name=..."):
        assert part in str(caught.value)
    assert load_config(file, ["name=x"]).run_name == "x"


@pytest.mark.parametrize("stem", ["digits", "a.b", "7", "a" * 100, "lr0.1", "x.1", "A_b-c."])
def test_a_name_that_is_taken_from_the_file_can_be_read_back(tmp_path, stem):
    file = tmp_path / f"{stem}.yaml"
    file.write_text(TEXT)
    resolved = load_config(file).resolved(shards=2, threads=1)
    again = tmp_path / "again.yaml"
    again.write_text(dump_config(resolved))
    assert load_config(again).run_name == stem
    assert resolved.source == str(file)


def test_a_configuration_of_a_program_is_checked_when_it_is_resolved():
    config = parse_config(RAW, "my notes: block 3")
    with pytest.raises(ConfigError, match="name: is not set, and the file name gives 'my notes: block 3'"):
        config.resolved(shards=1, threads=1)


@pytest.mark.parametrize(
    ("shards", "threads", "part"),
    [
        (0, 1, "config: batch.shards: found 0; must be at least 1"),
        (10**9 + 1, 1, "config: batch.shards: found 1000000001; must be at most 1000000000"),
        (2.0, 1, "config: batch.shards: found 2.0; must be a whole number"),
        (1, 0, "config: threads_per_rank: found 0; must be auto, or a whole number of at least 1"),
    ],
)
def test_resolved_numbers_pass_the_checks_of_their_fields(shards, threads, part):
    with pytest.raises(ConfigError) as caught:
        parse_config(RAW).resolved(shards=shards, threads=threads)
    assert part in str(caught.value)


@pytest.mark.parametrize("base", [0.0, -0.1, math.inf, math.nan, True])
def test_a_base_from_a_finder_is_a_learning_rate(base):
    with pytest.raises(ConfigError, match=r"config: lr\.base: found .*must be a finite number above 0"):
        with_base(parse_config(RAW), base, 32)


@pytest.mark.parametrize("batch", [0, -1, 10**10])
def test_a_batch_from_a_finder_is_a_count(batch):
    with pytest.raises(ConfigError, match=r"config: lr\.reference_batch: found "):
        with_base(parse_config(RAW), 0.1, batch)


@pytest.mark.parametrize("lr", [True, 10**400, "0.1", [], -1.0, math.inf, 1e300])
def test_a_result_whose_learning_rate_is_none(tmp_path, lr):
    path = tmp_path / "result.json"
    suggestion = {"lr": lr, "low": 0.1, "high": 0.2, "rule": "edge", "rules": {"edge": 0.1}, "refusal": None}
    content = {"format": 1, "kind": "learning-rate finder", "suggestion": suggestion}
    path.write_text(json.dumps({**content, "provenance": {"global_batch": 32}}))
    config = parse_config(RAW)
    with pytest.raises(ConfigError, match=r"result\.json: |config: lr"):
        LRPlan(take_result(config, read_result(path), str(path))[0].lr, Sizes(Batching(64, 1, 32), 2), config.source)


def test_changed_keeps_the_source_and_says_all_that_is_wrong():
    config = parse_config(RAW, "x.yaml")
    assert config.changed({"batch.size": 8}).batch.size == 8
    assert config.changed({}) == config
    assert config.changed({}).source == "x.yaml"
    with pytest.raises(ConfigError) as caught:
        config.changed({"batch.size": 0, "seed": -1})
    assert "x.yaml: batch.size: found 0" in str(caught.value)
    assert "x.yaml: seed: found -1" in str(caught.value)


@pytest.mark.parametrize("path", ["", " ", "a\0b", "\ud800"])
@pytest.mark.parametrize("key", ["output", "data.root", "init.from"])
def test_a_path_that_is_none(key, path):
    section, _, name = key.partition(".")
    with pytest.raises(ConfigError, match=f"config: {key}: found .*must be a path"):
        parse_config({**RAW, section: {name: path} if name else path})
