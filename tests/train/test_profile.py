"""`--profile`: parts that add up to updates, beside MXNet's operators on one time line, and no other bits."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise

import pytest

from harness.comm import SingleWorld
from harness.config import load_config
from harness.errors import ConfigError
from harness.gluon import LearnerState
from harness.gluon.timing import BETWEEN, UPDATE
from harness.train.loop import train
from harness.train.prepare import prepare_run
from harness.train.profile import WARM_UP, Profile

TOTAL = 14
SETTINGS = (
    "network={name: cnn, params: {channels: [4], hidden: 8, batch_norm: true}}",
    "batch={size: 16, shards: 2}",
    f"train={{iterations: {TOTAL}}}",
    "lr={base: 0.1, schedule: 1x}",
    "checkpoint={every: 8it}",
    "evaluation={every: 7it, metrics: [accuracy]}",
    "log={every: 1it, tensorboard: false}",
    "threads_per_rank=1",
)


@pytest.fixture
def run_of(tmp_path, request):
    def build(name, *settings):
        config = load_config("configs/digits.yaml", [*SETTINGS, f"output={tmp_path}", f"name={name}", *settings])
        run = prepare_run(config, SingleWorld(), threads=1)
        request.addfinalizer(run.folder.close)
        return run

    return build


def profiled(run, count, **parts):
    """The events of a profile's trace by category, after the whole run."""
    train(replace(run, timing=Profile(run, count, **parts)), "error")
    trace = json.loads((run.folder.path / "profile/trace.json").read_text())
    found = {}
    for event in trace["traceEvents"]:
        found.setdefault(event.get("cat"), []).append(event)
    return found


def digest_of(folder):
    return LearnerState.load(folder / f"checkpoints/iteration-{TOTAL:09d}").digest()


def end(event):
    return event["ts"] + event["dur"]


def test_parts_add_up_to_updates_on_the_time_line_of_the_operators_and_no_bit_changes(run_of):
    plain, run = run_of("plain"), run_of("run")
    train(plain, "error")
    events = profiled(run, 4)
    assert digest_of(run.folder.path) == digest_of(plain.folder.path)

    iterations, parts, operators = (events[name] for name in ("iteration", "part", "operator"))
    assert [event["name"] for event in iterations] == [f"iteration {WARM_UP + i}" for i in (1, 2, 3, 4)]
    assert {event["name"] for event in parts} == {*UPDATE, *BETWEEN} - {"wait"}
    for one, following in pairwise(parts):
        assert end(one) == pytest.approx(following["ts"], abs=1e-2)  # without a gap, and none within another
    for number, iteration in enumerate(iterations):
        own = [one for one in parts if iteration["ts"] <= one["ts"] + 1e-2 and end(one) <= end(iteration) + 1e-2]
        assert sum(one["dur"] for one in own) == pytest.approx(iteration["dur"], abs=0.1)
        assert sum(one["name"] == "forward" for one in own) == 2  # of two shards
        assert [one["name"] for one in own if one["name"] not in ("forward", "backward", "sum")] == [
            *("input", "check", "step", "log"),
            *(["evaluation"] if number == 1 else []),  # after iteration 7
            *(["checkpoint"] if number == 2 else []),
        ]

    # what MXNet computed, it computed while the part ran that had asked for it (its clock counts microseconds)
    assert len(operators) > 4 * 10
    for operator in operators:
        assert any(one["ts"] - 2 <= operator["ts"] and end(operator) <= end(one) + 2 for one in parts), operator


def test_the_table_is_the_trace(run_of, capsys):
    run = run_of("run")
    events = profiled(run, 3)
    table = (run.folder.path / "profile/table.txt").read_text()
    names, row = (line.split()[1:] for line in table.splitlines()[1:3])
    assert names == [*UPDATE, "update", "other"]
    means = dict(zip(names, map(float, row), strict=True))
    for name in UPDATE:
        total = sum(event["dur"] for event in events["part"] if event["name"] == name) / 1e3
        assert means[name] == pytest.approx(total / 3, abs=2e-3)
    assert means["update"] == pytest.approx(sum(means[name] for name in UPDATE), abs=5e-3)
    assert means["update"] + means["other"] == pytest.approx(sum(e["dur"] for e in events["iteration"]) / 3e3, abs=5e-3)
    assert re.search(r"an iteration took [\d.]+ ms before the profile, and [\d.]+ ms in it", table)
    assert "log.level" not in capsys.readouterr().out  # shown at the level info, and the run was told error


def test_time_belongs_to_the_part_that_asked_for_it(run_of):
    network = "network={name: 'tests.programs.forgets:slow', params: {products: 30}}"
    events = profiled(
        run_of("slow", network, "batch={size: 16, shards: 1}", "evaluation.every=null", "checkpoint.every=null"), 3
    )
    times = {}
    for event in events["part"]:
        times[event["name"]] = times.get(event["name"], 0.0) + event["dur"]
    # MXNet computes the forward while Python is far beyond it; it is waited for all the same
    assert times["forward"] > 3 * times["backward"]
    assert times["forward"] > 0.5 * sum(times.values())


def test_a_run_that_ends_before_the_profile_is_profiled_as_far_as_it_goes(run_of):
    events = profiled(run_of("run"), 500)
    assert [event["name"] for event in events["iteration"]] == [f"iteration {t}" for t in range(WARM_UP + 1, TOTAL + 1)]


def test_with_a_clock_that_counts(run_of):
    ticks, waits = iter(range(0, 10**9, 1000)), []
    run = run_of("run", "batch={size: 16, shards: 1}", "evaluation.every=null", "checkpoint.every=null")
    events = profiled(run, 2, clock=lambda: next(ticks), wait=lambda: waits.append(1))
    # one microsecond for each part, which is entered once, and waited for once
    assert [event["name"] for event in events["part"]] == 2 * [
        "input",
        "forward",
        "backward",
        "sum",
        "check",
        "step",
        "log",
    ]
    assert {event["dur"] for event in events["part"]} == {1.0}
    assert [event["dur"] for event in events["iteration"]] == [7.0, 7.0]
    assert len(waits) == 14


def test_a_run_that_is_too_short_is_refused(run_of):
    run = run_of("run", f"train={{iterations: {WARM_UP}}}", "evaluation.every=null")
    with pytest.raises(
        ConfigError, match=r"--profile 3: the run has 5 updates left, and a profile begins after 5; make"
    ):
        Profile(run, 3)


def test_a_profile_that_cannot_be_written_does_not_end_the_run(run_of, capsys):
    run = run_of("run")
    run.folder.path.mkdir()
    run.folder.close()

    class Blocked(Profile):
        def end(self):
            (run.folder.path / "profile").write_text("a file")
            super().end()

    train(replace(run, timing=Blocked(run, 500)), "info")
    said = capsys.readouterr().out
    assert "profile: the profile could not be written (" in said
    assert "done after 14 iterations" in said


def test_mxnets_profiler_is_stopped_when_the_run_fails(run_of):
    class Failing(Profile):
        def begin(self, t):
            super().begin(t)
            if t == WARM_UP + 2:
                raise ConfigError("on purpose")

    run = run_of("run")
    with pytest.raises(ConfigError, match="on purpose"):
        train(replace(run, timing=Failing(run, 3)), "error")
    events = profiled(run_of("again"), 1)
    assert len(events["iteration"]) == 1
    first = events["iteration"][0]["ts"]
    assert all(operator["ts"] >= first - 5 for operator in events["operator"])  # none of the run that failed


def test_on_two_ranks(start, tmp_path):
    settings = [word for one in (*SETTINGS, f"output={tmp_path}") for word in ("--set", one)]
    for name, more in (("plain", []), ("run", ["--profile", 4])):
        done = start("launch/train.py", *settings, "--set", f"name={name}", *more, np=2, launcher="mpirun")
    assert re.search(r"^   1 +[\d.]+", done.stdout, re.MULTILINE)
    assert f"{tmp_path}/run/profile/trace.json: open it at https://ui.perfetto.dev" in done.stdout
    assert digest_of(tmp_path / "plain") == digest_of(tmp_path / "run")
    events = json.loads((tmp_path / "run/profile/trace.json").read_text())["traceEvents"]
    by_rank = {rank: [one for one in events if one["pid"] == rank and one.get("cat") == "part"] for rank in (0, 1)}
    assert {one["name"] for one in by_rank[0]} == {one["name"] for one in by_rank[1]} == {*UPDATE, *BETWEEN}
    # on one time line: a rank leaves the wait when the other has come to it
    for one, other in ((0, 1), (1, 0)):
        come = [part["ts"] for part in by_rank[one] if part["name"] == "wait"]
        left = [end(part) for part in by_rank[other] if part["name"] == "wait"]
        assert all(left_at > came_at for came_at, left_at in zip(come, left, strict=True))
    assert {one["pid"] for one in events if one.get("cat") == "operator"} == {0, 1}
