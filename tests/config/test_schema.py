"""The schema that editors use, and the page of reference: fresh, complete, and of one mind with the reader."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import jsonschema
import pytest

from harness.config import RunConfig, parse_config
from harness.config.reading import parse_yaml
from harness.config.schema import json_schema, reference
from harness.errors import ConfigError

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(ROOT.glob("configs/*.yaml"))
SCHEMA = json.loads(json_schema())
BASE = """
network: {name: mlp}
train: {epochs: 10}
lr: {base: 0.1, schedule: {constant: {lr: 1x}}}
"""


def problems(text: str) -> list[str]:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    return [error.message for error in validator.iter_errors(parse_yaml(text, "a.yaml"))]


def test_what_is_made_of_the_code_is_fresh(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    generate = importlib.import_module("generate")
    for path, text in generate.files().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is stale: python docs/generate.py"


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_configurations_that_are_shipped_fit(path):
    assert path.read_text().startswith("# yaml-language-server: $schema=schema.json\n")
    assert problems(path.read_text()) == []


ACCEPTED = (
    "",
    "devices: [gpu(0), gpu(12)]",
    "threads_per_rank: 2",
    "checkpoint: {every: 10min}",
    "evaluation: {every: 2.5ep}",
    "data: {validation: 0.1}",
    "finder: {rule: null}",
)
REFUSED = (
    "sede: 1",
    "seed: -1",
    "seed: one",
    "comm: gloo",
    "devices: []",
    "devices: [gpu]",
    "threads_per_rank: 0",
    "batch: {size: 0}",
    "batch: {sise: 8}",
    "checkpoint: {every: 10}",
    "evaluation: {every: 3 weeks}",
    "optimizer: {clip_norm: 0}",
    "guard: {divergence: {policy: pray}}",
)


@pytest.mark.parametrize("more", ACCEPTED)
def test_schema_and_reader_accept(more):
    assert problems(BASE + more) == []
    parse_config(parse_yaml(BASE + more, "a.yaml"), "a.yaml")


@pytest.mark.parametrize("more", REFUSED)
def test_schema_and_reader_refuse(more):
    assert problems(BASE + more)
    with pytest.raises(ConfigError):
        parse_config(parse_yaml(BASE + more, "a.yaml"), "a.yaml")


SCHEDULES = {
    "1x": True,
    "{cosine: {max_lr: 1x, min_lr: 0, cycle_length: 100%}}": True,
    "{linear_warm_up: {schedule: {poly: {base_lr: 1x, max_update: 5ep}}, start_lr: 0, length: 10it}}": True,
    "{cyclical: {schedule_class: cosine, cycle_length: 1ep, min_lr: 0, max_lr: 1x}}": True,
    "{sequential: {schedules: [1x, {constant: {lr: 0.1x}}], boundaries: [50%]}}": True,
    "{'mine:curve': {length: 5ep}}": True,
    "{cosine: {max_lr: 1x, cycle_length: 100%}}": False,
    "{cosine: {max_lr: 1x, min_lr: 0, cycle_lenght: 100%}}": False,
    "{cosin: {max_lr: 1x, min_lr: 0, cycle_length: 100%}}": False,
    "{cosine: {max_lr: 1x, min_lr: 0, cycle_length: 100}}": False,
    "{triangular: {max_lr: 1x, min_lr: 0, cycle_length: 5ep, inc_fraction: 1}}": False,
    "{warmup_stable_decay: {peak_lr: 1x, warmup_length: 0, stable_length: 0, decay_length: 1ep, decay: sin}}": False,
}


@pytest.mark.parametrize(("schedule", "fits"), SCHEDULES.items())
def test_schedules(schedule, fits):
    text = f"network: {{name: mlp}}\ntrain: {{epochs: 10}}\nlr: {{base: 0.1, schedule: {schedule}}}\n"
    assert (problems(text) == []) == fits
    if not fits:
        with pytest.raises(ConfigError):
            parse_config(parse_yaml(text, "a.yaml"), "a.yaml")
    elif "mine:" not in schedule:
        parse_config(parse_yaml(text, "a.yaml"), "a.yaml")


def test_every_key_is_described_once():
    def undescribed(model, prefix=""):
        for name, field in model.model_fields.items():
            if not field.description:
                yield prefix + name
            for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
                if hasattr(inner, "model_fields"):
                    yield from undescribed(inner, f"{prefix}{name}.")

    assert list(undescribed(RunConfig)) == []
    keys = [line.split("|")[1] for line in reference().splitlines()[2:]]
    assert len(keys) == len(set(keys)) > 60


def test_train_prints_it(start):
    assert start("launch/train.py", "--print-schema").stdout == json_schema()
