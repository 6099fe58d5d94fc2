"""Choices by name: one rule for where modules are found, one form of messages, guesses that take no time."""

import sys
from contextlib import suppress

import pytest

from harness.data import load
from harness.errors import ConfigError, DataError, HarnessError
from harness.model.metrics import build_metrics
from harness.model.networks import build_loss, build_network
from harness.named import brief, call, choose, did_you_mean, load_function
from harness.schedules import Frame, parse_spec

FRAME = Frame(iterations_per_epoch=10, span=100, x=0.1)
USERS = {  # how each setting that takes module:function loads it
    "network.name": lambda path: build_network(path, {}, None),
    "network.loss": lambda path: build_loss(path, {}),
    "evaluation.metrics": lambda path: build_metrics([path]),
    "data.name": lambda path: load(path),
    "lr.schedule": lambda path: parse_spec({path: {}}).build(FRAME),
}
MODULE = """
import {sibling}
FOUND = []
def make(*_, **__):
    from mxnet.gluon import nn
    FOUND.append({sibling}.PLACE)
    return nn.Dense(1)
"""


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A module of one name in the working directory, on Python's path, and each with another sibling."""
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "one_of_two.py").write_text(MODULE.format(sibling="beside_one_of_two"))
        (tmp_path / place / "beside_one_of_two.py").write_text(f"PLACE = {place!r}")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "there"), *sys.path])
    monkeypatch.chdir(tmp_path / "here")
    forget()
    yield tmp_path
    forget()


def forget():
    for name in ("one_of_two", "beside_one_of_two", "written_later", "of_a_user"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("key", USERS)
def test_every_setting_finds_the_module_of_the_working_directory(places, key):
    with suppress(HarnessError, ValueError):  # what it returns suits networks alone
        USERS[key]("one_of_two:make")
    if key != "evaluation.metrics":  # which are called with predictions
        assert sys.modules["one_of_two"].FOUND == ["here"]
    assert sys.modules["one_of_two"].__file__ == str(places / "here" / "one_of_two.py")
    assert sys.path[0] == str(places / "there")
    assert sys.path[-1] == str(places / "here"), "what the module imports later is found too"


@pytest.mark.parametrize("key", USERS)
def test_a_module_that_was_written_a_moment_ago_is_found(places, key):
    with pytest.raises((HarnessError, ValueError), match=r"there is no module 'written_later' in .*; start from"):
        USERS[key]("written_later:make")
    (places / "here" / "written_later.py").write_text("def make(*_, **__): raise RuntimeError('it ran')")
    if key == "evaluation.metrics":
        assert USERS[key]("written_later:make")
        return
    with pytest.raises((HarnessError, ValueError), match="it ran"):
        USERS[key]("written_later:make")


@pytest.mark.parametrize("key", USERS)
@pytest.mark.parametrize(
    ("body", "path", "said"),
    [
        ("import not_there_at_all", "of_a_user:make", "of_a_user imports 'not_there_at_all', which is not installed"),
        ("1 / 0", "of_a_user:make", "importing of_a_user raised ZeroDivisionError: division by zero; fix the module"),
        ("exit(3)", "of_a_user:make", "importing of_a_user raised SystemExit: 3; fix the module"),
        ("def make(", "of_a_user:make", "importing of_a_user raised SyntaxError"),
        ("def maker(): pass", "of_a_user:make", "of_a_user.py; did you mean 'maker'? name a function"),
        ("make = 5", "of_a_user:make", "an int in "),
        ("", "of_a_user:", "incomplete; write it as package.module:function"),
        ("", ":make", "incomplete; write it as package.module:function"),
        ("", "..x:make", "importing ..x raised TypeError"),
    ],
)
def test_every_setting_says_the_same_of_what_cannot_be_loaded(places, key, body, path, said):
    (places / "here" / "of_a_user.py").write_text(body)
    forget()
    kind = {"data.name": DataError, "lr.schedule": ValueError}.get(key, ConfigError)
    with pytest.raises(kind) as caught:
        USERS[key](path)
    assert said in str(caught.value)
    assert f"{key.removeprefix('lr.')}: {path!r}: " in str(caught.value)


@pytest.mark.parametrize("path", ["os:sep", "os:environ", "math:pi"])
@pytest.mark.parametrize("key", USERS)
def test_what_is_no_function_is_refused(key, path):
    with pytest.raises((HarnessError, ValueError), match=r"; .*name a function"):
        USERS[key](path)


def test_functions_that_do_not_tell_their_parameters_are_called():
    assert call(load_function("builtins:dict", "x"), {"a": 1}, "x") == {"a": 1}
    with pytest.raises(ConfigError, match=r"x: \{'a': 1\} is not accepted"):
        call(load_function("builtins:iter", "x"), {"a": 1}, "x")


def test_an_error_in_the_users_code_comes_with_its_line(places):
    """`takes: hidden` alone would send them to the arguments, which may be right."""
    body = "def make(hidden=3):\n    import math\n    return math.sqroot(hidden)\ndef deep():\n    return make()\n"
    (places / "here" / "of_a_user.py").write_text(body)
    forget()
    with pytest.raises(ConfigError, match=r"attribute 'sqroot', raised at of_a_user\.py:3\); it takes: hidden$"):
        call(load_function("of_a_user:make", "x"), {}, "x")
    with pytest.raises(ConfigError, match=r"raised at of_a_user\.py:3\); it takes: nothing$"):
        call(load_function("of_a_user:deep", "x"), {}, "x")
    with pytest.raises(ConfigError) as of_the_harness:
        build_network("mlp", {"hidden": 5}, 10)
    assert "raised at" not in str(of_the_harness.value)


def test_an_unknown_name_comes_with_a_guess_and_all_names():
    with pytest.raises(DataError) as caught:
        choose("minst", {"mnist": 1, "digits": 2}, "data.name", DataError)
    assert str(caught.value) == "data.name: unknown name 'minst'; did you mean 'mnist'? known: digits, mnist"
    assert did_you_mean("x" * 10**6, ["x"]) == ""


def test_an_error_names_its_file_once_whoever_says_it():
    error = ConfigError("lr: wrong").found_in("c.yaml").found_in("c.yaml").found_in("other.yaml")
    assert str(error) == "c.yaml: lr: wrong"
    assert type(error.on_all_ranks()) is ConfigError


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("short", "'short'"),
        ("x" * 10**6, "'" + "x" * 59 + "..."),
        ([[1] * 10**6] * 10**6, "[[" + "1, " * 19 + "1..."),
        ({"a": {"b": None}}, "{'a': {'b': None}}"),
        (10**10_000, "a whole number of 33220 bits"),
        (1.5, "1.5"),
    ],
    ids=["text", "long text", "lists", "mappings", "a whole number", "a number"],
)
def test_values_are_cut_before_they_are_written_out(value, shown):
    assert brief(value) == shown
