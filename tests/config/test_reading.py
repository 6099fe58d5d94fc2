import math

import pytest
import yaml

from harness.config import load_config
from harness.config.reading import apply_override, dump_yaml, parse_yaml
from harness.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("+1.5e+2", 150.0),
        ("-.5", -0.5),
        ("5", 5),
        ("+5", 5),
        ("-5", -5),
        ("010", 10),
        ("08", 8),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("1:30", "1:30"),
        ("off", "off"),
        ("yes", "yes"),
        ("No", "No"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("2020-01-01", "2020-01-01"),
        ("=", "="),
        ("1x", "1x"),
        ("1e", "1e"),
        (".", "."),
        ("'5'", "5"),
        ("[1e-3, off]", [0.001, "off"]),
    ],
)
def test_scalars(text, value):
    found = parse_yaml(text, "here")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("seed: 1\nseed: 2\n", ":2: the key 'seed' appears twice in one mapping; keep one of the two"),
        ("a: 1\ntrain: {epochs: 1, epochs: 2}\n", ":2: the key 'epochs' appears twice"),
        ("a: 1\n'a': 2\n", ":2: the key 'a' appears twice"),
        ("seed: 1\n\tname: a\n", ":2: a tab; indent with spaces"),
        ("seed: 1\na: b: c\n", ":2: a ':' cannot start a value here"),
        ("a: 1\nb: [1, 2\n", "the text ends before every bracket and quote is closed"),
        ("a: 1\n---\nb: 2\n", ":2: a second document ('---'); a configuration is one"),
        (
            "a: 1\nb: !!python/object:os.system x\n",
            ":2: the tag tag:yaml.org,2002:python/object:os.system is not allowed",
        ),
        ("a: 1\nb: *c\n", ":2: the alias *c has no anchor"),
        ("a: 1\n[1, 2]: b\n", ":2: a key must be text, not a list or a mapping"),
        ("a: 1\n? {b: 1}\n: 2\n", ":2: a key must be text, not a list or a mapping"),
        ("a: &x {b: *x}\n", "an alias (*name) appears inside the value that it repeats"),
        ("a: &x [*x]\n", "an alias (*name) appears inside the value that it repeats"),
        ("a: !!float x\n", "a tag does not fit its value"),
        ("a: !!bool x\n", "a tag does not fit its value"),
        ("a: 1\nb: !!int x\n", ":2: 'x' is not a usable whole number"),
        ("a: 1\nb: " + "9" * 5000, ":2: '99999999999999999999' is not a usable whole number"),
        ("[" * 5000, "nested too deeply"),
        ("a: \x00", "this is not valid YAML: "),
    ],
)
def test_what_is_no_yaml_is_refused_in_words(text, problem):
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "c.yaml")
    assert str(caught.value).startswith("c.yaml")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_merges_and_aliases_may_repeat_a_key_that_they_bring():
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: *b, y: 4}\nd: *a\n"
    found = parse_yaml(text, "here")
    assert found == {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 2}, "c": {"x": 3, "y": 4}, "d": {"x": 1, "y": 2}}


@pytest.mark.parametrize(
    "value",
    [
        "1e5",
        "08",
        "1.e3",
        "off",
        "yes",
        "1:30",
        "null",
        "~",
        "",
        "0x10",
        "1_000",
        "2020-01-01",
        "=",
        "<<",
        "a: b",
        "*",
        ".5",
        "1.",
        ".inf",
        "é",
        "a\nb",
        1e-5,
        1e22,
        0.1,
        5,
        True,
        None,
        [1, "1"],
        {"a": {"b": []}},
    ],
)
def test_what_is_written_is_read_back_and_by_yaml_1_1_too(value):
    text = dump_yaml({"a": value})
    assert parse_yaml(text, "here") == {"a": value}
    assert yaml.safe_load(text) == {"a": value}


def test_what_is_written_has_no_anchors():
    shared = {"x": 1}
    assert "&" not in dump_yaml({"a": shared, "b": shared})


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed=3", {"seed": 3}),
        (" seed = 3", {"seed": 3}),
        ("lr.base=1e-3", {"lr": {"base": 0.001}}),
        ("a.b.c=text", {"a": {"b": {"c": "text"}}}),
        ("network.params.hidden=[32, 16]", {"network": {"params": {"hidden": [32, 16]}}}),
        ("optimizer.params={momentum: 0.9}", {"optimizer": {"params": {"momentum": 0.9}}}),
        ("name=a=b", {"name": "a=b"}),
        ("name=", {"name": None}),
        ("lr.warmup=null", {"lr": {"warmup": None}}),
    ],
)
def test_set_path(override, expected):
    raw = {}
    apply_override(raw, override)
    assert raw == expected


def test_set_path_goes_through_null_and_keeps_what_stands_beside():
    raw = {"lr": {"warmup": None, "base": 1}, "seed": 1}
    apply_override(raw, "lr.warmup.length=5ep")
    assert raw == {"lr": {"warmup": {"length": "5ep"}, "base": 1}, "seed": 1}


@pytest.mark.parametrize("override", ["seed", "", "=5", ".a=5", "a.=5", "a..b=5", " =5"])
def test_set_path_wants_a_key_and_a_value(override):
    with pytest.raises(ConfigError, match=r"^must be key\.path=value, such as lr\.base=0\.1$"):
        apply_override({}, override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lr.base.x=1", "lr.base holds 0.1, which has no keys; set all of it: lr.base=..."),
        ("lr.list.0=1", "lr.list holds [1, 2], which has no keys; set all of it: lr.list=..."),
        ("lr.base=[", "its value: the text ends before every bracket and quote is closed"),
        ("lr.base={a: 1, a: 2}", "its value: the key 'a' appears twice in one mapping; keep one of the two"),
    ],
)
def test_set_path_refuses(override, message):
    raw = {"lr": {"base": 0.1, "list": [1, 2]}}
    with pytest.raises(ConfigError) as caught:
        apply_override(raw, override)
    assert str(caught.value) == message
    assert raw == {"lr": {"base": 0.1, "list": [1, 2]}}


def test_a_file_that_is_missing_names_its_neighbour(tmp_path):
    (tmp_path / "digits.yaml").touch()
    for wrong in ("digit.yaml", "digits.yml", "digits"):
        with pytest.raises(ConfigError) as caught:
            load_config(tmp_path / wrong)
        assert str(caught.value) == (
            f"{tmp_path / wrong}: cannot be read (No such file or directory); did you mean '{tmp_path}/digits.yaml'?"
        )


def test_what_cannot_be_read(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9")
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "latin.yaml", "it is not UTF-8 text")):
        with pytest.raises(ConfigError) as caught:
            load_config(path)
        assert f"{path}: cannot be read ({reason}); " in str(caught.value)
        assert f"did you mean '{path}'" not in str(caught.value)
