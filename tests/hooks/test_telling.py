"""Hooks without a run: named, called in order, held apart from the process and each other, and heard."""

from __future__ import annotations

import os
import random
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from harness.errors import CheckpointError, ConfigError, HarnessError
from harness.folder import AttemptStart, MetricsLine
from harness.hooks import (
    Amended,
    Ask,
    Ended,
    Evaluated,
    Hooks,
    Logged,
    Opened,
    Saved,
    WorldChanged,
    given_hooks,
    load_hooks,
)
from tests.programs import own_hooks

OWN = "tests.programs.own_hooks"
START = AttemptStart(attempt="one", after=4, ranks=2)
CUT = {"iteration": 6, "choice": "plateau", "monitor": "test.loss", "evaluations": 2, "best_at": 3, "best": 1.0}
CUT |= {"lr_factor": 0.5, "min_lr": 0.0}
FIRST = {**CUT, "iteration": 2}


def rates():
    return np.full(9, 0.5)


def line_of(t, split="train", **values):
    return MetricsLine(split, t, 1, 0.5, None, {"loss": 2.0, **values}, 1e9)


@pytest.fixture
def told(_handlers_put_back):
    """What a hook is told, and the hooks of a run that is open, whose guard would put handlers of signals back."""
    events, warned = [], []

    def build(*more, fails="warn", around=None, first=events.append):
        named = [("first", first), *((f"hook{number}", hook) for number, hook in enumerate(more))]
        hooks = Hooks(named, fails, around) if around else Hooks(named, fails)
        config = partial(dict, seed=3)
        hooks.open(Path("runs/x"), "x", START, config, rates, warned.append, [FIRST])
        return hooks, events, warned

    return build


def test_each_event_has_what_the_files_get(told):
    hooks, events, _ = told()
    lines = [line_of(8, "test"), line_of(8, "validation")]
    hooks.recorded([line_of(5)])
    hooks.amended([FIRST, CUT], rates)
    hooks.saved(6, Path("runs/x/checkpoints/iteration-000000006"))
    hooks.world_changed(7, 4, 3, "rank 3 was lost")
    hooks.recorded(lines)
    hooks.ended(75, "stopped")
    opened, logged, amended, saved, changed, evaluated, ended = events
    assert list(map(type, events)) == [Opened, Logged, Amended, Saved, WorldChanged, Evaluated, Ended]
    assert [event.iteration for event in events] == [4, 5, 6, 6, 7, 8, 8]
    assert {event.folder for event in events} == {Path("runs/x")}
    assert (opened.name, opened.start, opened.config, list(opened.lr)) == ("x", START, {"seed": 3}, [0.5] * 9)
    assert logged.line == line_of(5)
    assert amended.amendment.to_json() == CUT  # an earlier attempt has told the first
    assert saved.checkpoint.name == "iteration-000000006"
    assert (changed.before, changed.after, changed.why) == (4, 3, "rank 3 was lost")
    assert list(evaluated.lines) == lines
    assert (ended.outcome.attempt, ended.outcome.exit_code, ended.outcome.cause) == ("one", 75, "stopped")
    with pytest.raises(CheckpointError):
        _ = saved.manifest


def test_arrays_are_read_only_and_the_rest_is_a_hooks_own(told):
    line, events = line_of(5), []
    hooks, _, warned = told(own_hooks.disturb, events.append, first=own_hooks.disturb)
    hooks.recorded([line])
    hooks.amended([FIRST, CUT], rates)
    opened, logged, amended = events
    assert (warned, opened.config, logged.line, line) == ([], {"seed": 3}, line, line_of(5))
    for event in (opened, amended):
        with pytest.raises(ValueError, match="read-only"):
            event.lr[0] = 1.0


def test_what_a_hook_does_to_the_process_is_undone(told):
    random.seed(5), np.random.seed(5)
    expected = random.random(), *np.random.rand(3)
    tiny, where = np.float32(1e-45), os.getcwd()

    def flush(event):  # what a library does that was compiled for speed
        import ctypes

        modes = ctypes.create_string_buffer(64)
        libm = ctypes.CDLL("libm.so.6")
        libm.fegetenv(modes)
        modes[28:30] = (int.from_bytes(modes[28:30], "little") | 0x8040).to_bytes(2, "little")
        libm.fesetenv(modes)
        assert float(tiny * np.float32(1)) == 0.0
        own_hooks.disturb(event)

    random.seed(5), np.random.seed(5)
    hooks, _, warned = told(flush)
    hooks.recorded([line_of(5)])
    assert warned == []
    assert (random.random(), *np.random.rand(3)) == expected
    assert float(tiny * np.float32(1)) > 0
    assert (os.getcwd(), np.geterr()["divide"]) == (where, "warn")


def test_an_error_is_told_once_for_each_hook_and_cause(told):
    hooks, events, warned = told(own_hooks.fail, own_hooks.count)
    for t in (5, 6, 7):
        hooks.recorded([line_of(t)])
    hooks.ended(0, "done")
    assert [type(event) for event in events] == [Opened, Logged, Logged, Logged, Ended]  # the first is not disturbed
    place = f"{own_hooks.__file__}:"
    assert len(warned) == 3
    assert warned[0].startswith("hooks: hook1 (Opened, iteration 4): returned 3; a hook returns None or an Ask")
    assert f"hooks: hook0 (Logged, iteration 5): KeyError: 'no such thing' ({place}" in warned[1]
    assert f"hooks: hook0 (Ended, iteration 7): SystemExit: 3 ({place}" in warned[2]
    assert not hooks.wants_stop
    hooks.raise_failure()


def test_an_error_may_be_the_end(told):
    hooks, _, warned = told(own_hooks.fail, fails="stop")
    assert not hooks.wants_stop
    hooks.recorded([line_of(5), line_of(6)])
    assert hooks.wants_stop
    with pytest.raises(ConfigError, match=r"hook0 \(Logged, iteration 5\): KeyError: 'no such thing'.*; correct it"):
        hooks.raise_failure()
    hooks.ended(2, "failed")
    assert len(warned) == 1  # nothing is left to stop


def test_what_hooks_ask_for_is_kept_until_it_is_done(told):
    hooks, _, _ = told(partial(own_hooks.ask, at=5, save=True), partial(own_hooks.ask, at=6, stop=True))
    hooks.recorded([line_of(5)])
    assert (hooks.wants_save, hooks.wants_stop) == (True, False)
    hooks.wants_save = False
    hooks.recorded([line_of(6)])
    hooks.recorded([line_of(7)])
    assert (hooks.wants_save, hooks.wants_stop, hooks.asked_to_stop) == (False, True, "the hook hook1: enough")


def test_calls_are_watched_by_name(told):
    around, are_called = [], []

    @contextmanager
    def watch(what):
        around.append(what)
        yield

    hooks, _, _ = told(lambda _: are_called.append(hooks.are_called) if around[2:] else None, around=watch)
    hooks.recorded([line_of(5)])
    assert around[2:] == ["the hook first (Logged, iteration 5)", "the hook hook0 (Logged, iteration 5)"]
    assert (are_called, hooks.are_called) == ([True], False)


@pytest.mark.parametrize(
    ("error", "code", "cause"),
    [
        (None, 0, "done"),
        (CheckpointError("disk full"), 4, "disk full"),
        (HarnessError("what"), 1, "what"),
        (KeyError("x"), 1, "KeyError: 'x'"),
    ],
)
def test_the_end_is_the_last_that_is_told(told, error, code, cause):
    hooks, events, _ = told()
    with pytest.raises(type(error)) if error else hooks, hooks:
        if error:
            raise error
    hooks.recorded([line_of(5)])
    assert [type(event) for event in events] == [Opened, Ended]
    assert (events[-1].outcome.exit_code, events[-1].outcome.cause) == (code, cause)


def test_before_it_is_open_nobody_is_told():
    events = []
    with Hooks([("first", events.append)]) as hooks:
        hooks.recorded([line_of(5)])
        hooks.amended([CUT], rates)
        hooks.saved(5, Path("x"))
    assert events == []


def test_hooks_by_name_with_parameters(tmp_path):
    random.seed(1)
    expected = random.random()
    random.seed(1)
    path = tmp_path / "told"
    (name, plain), (_, keeps) = load_hooks([f"{OWN}:fail", {f"{OWN}:keep": {"path": str(path)}}])
    assert (name, plain) == (f"{OWN}:fail", own_hooks.fail)
    keeps(Saved(tmp_path, 3, Path("iteration-3")))
    assert path.read_text() == '["Saved", 3, "iteration-3"]\n'
    assert random.random() == expected


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (f"{OWN}:keeps", r"hooks\[1\]: 'tests.programs.own_hooks:keeps': no such name in .*did you mean 'keep'"),
        ("no.such:hook", "there is no module 'no'"),
        (f"{OWN}:keep", r"cannot be called with \(event\): missing a required argument: 'path'; a hook takes an event"),
        ({f"{OWN}:keep": {"paht": 1}}, r"cannot be called with \(event, paht=...\): "),
        ({f"{OWN}:fail": {"event": 1}}, "multiple values for argument 'event'; a hook takes an event"),
    ],
)
def test_what_cannot_be_a_hook_is_refused(choice, message):
    with pytest.raises(ConfigError, match=message):
        load_hooks([f"{OWN}:fail", choice])


def test_hooks_of_a_program():
    class Watch:
        def __call__(self, event):
            return None

    found = given_hooks([own_hooks.fail, Watch(), print], "Job: hooks")
    assert [name for name, _ in found] == [f"{own_hooks.__name__}:fail", f"{__name__}:Watch", "builtins:print"]
    assert given_hooks(None, "Job: hooks") == []
    assert len(given_hooks(own_hooks.fail, "Job: hooks")) == 1
    for wrong, message in ((3, "found 3; give a list"), ([3], r"hooks\[0\]: found 3"), ([dict], None)):
        if message is not None:
            with pytest.raises(ConfigError, match=message):
                given_hooks(wrong, "Job: hooks")
    with pytest.raises(ConfigError, match=r"hooks\[0\]: cannot be called with \(event\)"):
        given_hooks([lambda: None], "Job: hooks")


def test_an_ask_is_a_plain_value():
    assert Ask() == (False, False, "")
