"""What is too large is refused before it is read, composed, counted or compared: in a second, with one message."""

import resource
import time

import pytest

from harness.config import load_config, parse_config
from harness.config.messages import MOST_PROBLEMS
from harness.config.reading import MOST_BYTES, MOST_DEPTH, MOST_VALUES, parse_yaml
from harness.errors import ConfigError

ANCHORS = "".join(
    f"  l{level}: &l{level} [{', '.join([f'*l{level - 1}' if level else 'x'] * 9)}]\n" for level in range(9)
)
MERGES = "  l0: &l0 {k: v}\n" + "".join(
    f"  l{level}: &l{level} {{<<: [{', '.join([f'*l{level - 1}'] * 9)}]}}\n" for level in range(1, 9)
)
NESTED = "  l0: &l0 {a: 1, b: 2}\n" + "".join(
    f"  l{level}: &l{level} {{{', '.join(f'k{i}: *l{level - 1}' for i in range(9))}}}\n" for level in range(1, 9)
)


@pytest.fixture
def in_a_second():
    """The block takes a few seconds of the processor at most, on a slow machine too, and little memory."""
    begin_s, before_kb = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - begin_s < 8
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 200_000


@pytest.mark.parametrize("bomb", [ANCHORS, MERGES, NESTED], ids=["lists", "merges", "mappings"])
@pytest.mark.parametrize("key", ["batch", "data", "optimizer"])
def test_nested_anchors(refusal, in_a_second, bomb, key):
    (line,) = refusal(**{key: f"\n{bomb}"})
    assert line.split(": ", 1)[1].startswith(
        f"more than {MOST_VALUES:,} values, counting aliases (*name) each time they"
    )


def test_nested_anchors_in_an_override(refusal, in_a_second):
    levels = ", ".join(f"&l{n} [{', '.join([f'*l{n - 1}' if n else 'x'] * 9)}]" for n in range(9))
    (line,) = refusal(f"seed=[{levels}]")
    assert line.startswith("--set seed=[&l0 [x, x")
    assert "more than 20,000 values" in line
    assert len(line) < 400


def test_a_few_aliases_are_fine(load):
    config = load(train="&length {epochs: 2}", data="{params: {a: &a [1, 2], b: *a, c: *a}}")
    assert config.data.params["c"] == [1, 2]


def test_many_unknown_keys(write_config, in_a_second):
    for number, least in ((20_000, 1), (5_000, MOST_PROBLEMS)):
        text = "".join(f"key{i}: {i}\n" for i in range(number))
        with pytest.raises(ConfigError) as caught:
            load_config(write_config(text))
        lines = str(caught.value).splitlines()
        assert least <= len(lines) <= MOST_PROBLEMS + 1
    assert lines[-1].endswith(": and 4,983 more problems; fix these first")


@pytest.mark.parametrize(
    "section",
    [
        {"lr": "{schedule: {cosine: {" + ", ".join(f"key{i}: {i}" for i in range(3000)) + "}}}"},
        {"optimizer": "{lr_mult: {" + ", ".join(f"key{i}: x" for i in range(3000)) + "}}"},
        {"data": "{params: {" + ", ".join(f"key{i}: .nan" for i in range(3000)) + "}}"},
        {"lr": "{schedule: {multi_factor: {base_lr: 1, factor: 0.5, step: [" + "x, " * 8000 + "]}}}"},
    ],
    ids=["schedule", "patterns", "parameters", "steps"],
)
def test_many_problems_in_one_section(refusal, in_a_second, section):
    lines = refusal(**section)
    assert len(lines) == MOST_PROBLEMS + 1
    assert " more problems; fix these first" in lines[-1]


@pytest.mark.parametrize(
    ("section", "start"),
    [
        ({"seed": "x" * 50_000}, "seed: found 'xxx"),
        ({"seed": "[" + "1, " * 15_000 + "]"}, "seed: found [1, 1, 1"),
        ({"seed": "1" * 50_000 + "y"}, "seed: found '111"),
        ({"name": "x" * 50_000}, "name: found 'xxx"),
        ({"y" * 1000: "1"}, "yyyyy"),
        ({"batch": "{" + "z" * 1000 + ": 1}"}, "batch.zzz"),
        (
            {"network": "{name: " + "n" * 50_000 + ", initializer: [" + "1, " * 9_000 + "]}"},
            "network.initializer: found",
        ),
        ({"lr": "{schedule: {" + "s" * 1000 + ": {}}}"}, "lr.schedule.sss"),
        ({"lr": "{schedule: '" + "1" * 50_000 + "y'}"}, "lr.schedule: must be"),
        ({"lr": "{schedule: 1, warmup: {length: " + "1" * 50_000 + "ep}}"}, "lr.warmup.length: '111"),
        ({"lr": "{schedule: 1, warmup: {length: 1ep, start: " + "1" * 50_000 + "}}"}, ""),
        ({"log": "{every: " + "9" * 3000 + "it}"}, "log.every: '999"),
    ],
    ids=lambda value: next(iter(value))[:10] if isinstance(value, dict) else "",
)
def test_long_values_are_cut_in_messages(refusal, in_a_second, section, start):
    lines = refusal(**section)
    assert lines[0].startswith(start)
    assert all(len(line) < 700 for line in lines)


def test_a_large_file_is_not_parsed(tmp_path, in_a_second):
    path = tmp_path / "c.yaml"
    path.write_text("a: [" + "1, " * MOST_BYTES + "]")
    with pytest.raises(ConfigError, match=r"is larger than 500,000 bytes, too large for a configuration"):
        load_config(path)
    with pytest.raises(ConfigError, match="is larger than"):
        load_config("/dev/zero")


@pytest.mark.parametrize("text", ["[" * 50_000, "{a: " * 1000, "- " * 1000, "? " * 1000, "a: " + "&a [" * 200])
def test_deep_nesting(in_a_second, text):
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "c.yaml")
    assert len(str(caught.value).splitlines()) == 1


def test_deep_overrides(refusal, load):
    (line,) = refusal("data.params" + ".a" * 5000 + "=1")
    assert "the key is nested too deeply, with 5002 levels" in line
    config = load("data.params" + ".a" * (MOST_DEPTH - 2) + "=" + "[" * (MOST_DEPTH - 1) + "1" + "]" * (MOST_DEPTH - 1))
    assert parse_config(config.plain()) == config


def test_deep_schedules(load):
    nested = "{scaled: {factor: 1, schedule: " * 25 + "1" + "}}" * 25
    assert load(f"lr.schedule={nested}").lr.schedule.name == "scaled"


@pytest.mark.parametrize(
    ("override", "start"),
    [
        (
            "threads_per_rank=5000",
            "threads_per_rank: found 5000; must be auto, or at most 1024: no host has",
        ),
        ("threads_per_rank=99999999999999999999", "threads_per_rank: found 99999999999999999999; must be auto, or at"),
        ("log.every=1e400ep", "log.every: '1e400ep' is not a length"),
        ("log.every=999999999999999999999it", "log.every: '999999999999999999999it' is longer than any run"),
        ("guard.verify_every=9999999999999999999ep", "guard.verify_every: '9999999999999999999ep' is longer than any"),
        ("checkpoint.every=99999999999h", "checkpoint.every: '99999999999h' is not a length"),
        ("guard.stall_after_s=1e300", "guard.stall_after_s: found 1e+300; must be at most 1000000000"),
        ("train.epochs=1000000001", "train.epochs: found 1000000001; must be at most 1000000000"),
        ("finder.min_iter=10000000000", "finder.min_iter: found 10000000000; must be at most 1000000000"),
        ("lr.base=1e-60", "lr.base: found 1e-60; must be a number that float32 can hold: 0, or 1.2e-38 to 3.4e+38"),
        ("lr.base=1e39", "lr.base: found 1e+39; must be a number that float32 can hold"),
        (
            "lr.warmup={length: 1ep, start: 1e-50}",
            "lr.warmup.start: found 1e-50; must be a number that float32 can hold",
        ),
        ("optimizer.clip_norm=1e-50", "optimizer.clip_norm: found 1e-50; must be a number that float32 can hold"),
        ("optimizer.clip_value=1e50", "optimizer.clip_value: found 1e+50; must be a number that float32 can hold"),
        ("optimizer.lr_mult={a: 1e-50}", "optimizer.lr_mult.a: found 1e-50; must be a number that float32 can hold"),
        ("optimizer.params={wd: 1e60}", "optimizer.params.wd: found 1e+60; must be a number that float32 can hold"),
        ("optimizer.params={momentum: 1e-60}", "optimizer.params.momentum: found 1e-60; must be a number that float32"),
        ("optimizer.params={epsilon: 1e-300}", "optimizer.params.epsilon: found 1e-300; must be a number that float32"),
        ("finder.lr_start=1e-60", "finder.lr_start: found 1e-60; must be a number that float32 can hold"),
        ("finder.lr_end=1e60", "finder.lr_end: found 1e+60; must be a number that float32 can hold"),
        ("data.augment.mean=[1e60]", "data.augment.mean.0: found 1e+60; must be a number that float32 can hold"),
    ],
)
def test_numbers_that_are_too_large_or_too_small(refusal, override, start):
    lines = refusal(override, lr="{base: 0.1, schedule: 1x}")
    assert lines[0].startswith(start), lines
