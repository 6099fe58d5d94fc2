"""A profile's table and trace, from times written by hand."""

from __future__ import annotations

import json

import pytest

from harness.report.profile import RankProfile, Span, profile_table, profile_trace

PARTS = ("input", "forward", "step")
MS = 1_000_000


def rank_of(begin_ms=0, *, clock="one", zero_ms=0, slower=1, operators=(), num_operators=None, remark=None):
    """Two iterations of 1, 2 and 3 ms, and 4 ms between."""
    spans, now = [], begin_ms * MS
    for number, t in ((0, 6), (1, 7)):
        for part, duration in (("input", 1), ("forward", 2 * slower), ("step", 3), ("log", 4)):
            spans.append(Span(part, number, t, now, duration * MS))
            now += duration * MS
    count = len(operators) if num_operators is None else num_operators
    return RankProfile("host", clock, zero_ms * MS, 9 * MS, spans, list(operators), count, remark)


def test_the_table():
    operators = [
        ("a", 1 * MS, 1 * MS, 0),
        ("b", 2 * MS, MS // 2, 0),
        ("a", 11 * MS, 1 * MS, 0),
        ("b" * 70, 14 * MS, 1, 0),
    ]
    lines = profile_table([rank_of(operators=operators), rank_of(slower=3, remark="unreadable")], PARTS)
    assert lines == [
        "profile of updates 6 to 7, mean ms; the device is waited for after every part",
        "rank       input   forward      step    update     other",
        "   0       1.000     2.000     3.000     6.000     4.000",
        "   1       1.000     6.000     3.000    10.000     4.000",
        "an iteration took 9.000 ms before the profile, and 10.000 ms in it",
        "operators of rank 0: 1.250 ms of an iteration, these most of all",
        "     1.000  forward         1.0 x a",
        "     0.250  forward         0.5 x b",
        f"     0.000  step            0.5 x {'b' * 57}...",
        "unreadable",
    ]


def test_of_many_ranks_the_terminal_shows_eight():
    lines = profile_table([rank_of()] * 20, PARTS)
    assert "      and 12 more ranks" in lines
    assert sum(line.endswith("6.000     4.000") for line in lines) == 8
    assert sum(line.endswith("6.000     4.000") for line in profile_table([rank_of()] * 20, PARTS, most=None)) == 20


def test_ranks_of_one_host_are_placed_by_its_clock_and_others_by_the_moment_at_which_all_began():
    here, there, far = rank_of(100, zero_ms=100), rank_of(101, zero_ms=90), rank_of(5000, clock="two", zero_ms=4998)
    trace = json.loads(profile_trace([here, there, far]))
    begun = {event["pid"]: event["ts"] for event in reversed(trace["traceEvents"]) if event["ph"] == "X"}
    assert begun == {0: 0.0, 1: 1000.0, 2: 2000.0}
    assert trace["otherData"] == {}


def test_the_trace_nests_parts_in_iterations_and_has_a_thread_for_each_of_mxnets():
    profile = rank_of(operators=[("dot", 1 * MS, 1500, 1), ("sum", 2 * MS, 500, 0)], num_operators=5)
    trace = json.loads(profile_trace([profile]))
    slices = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert [(one["name"], one["ts"], one["dur"]) for one in slices[:5]] == [
        ("iteration 6", 0, 10_000),
        ("input", 0, 1000),
        ("forward", 1000, 2000),
        ("step", 3000, 3000),
        ("log", 6000, 4000),
    ]
    assert [(one["name"], one["ts"], one["dur"], one["tid"]) for one in slices[-2:]] == [
        ("dot", 1000, 1.5, 2),
        ("sum", 2000, 0.5, 1),
    ]
    names = {
        (one["pid"], one.get("tid")): one["args"]["name"]
        for one in trace["traceEvents"]
        if "name" in one.get("args", {})
    }
    assert names == {(0, None): "rank 0 (host)", (0, 0): "training", (0, 1): "MXNet 0", (0, 2): "MXNet 1"}
    assert trace["otherData"] == {"left out": "3 operators, the last ones of each rank"}


def test_it_survives_json():
    profile = rank_of(operators=[("dot", 1, 2, 0)])
    assert RankProfile.read(json.loads(json.dumps(profile))) == profile


def test_nothing_between_updates_is_zero():
    only = RankProfile("host", "", 0, 0, [Span("step", 0, 1, 0, MS)], [], 0, None)
    assert only.mean_ms(PARTS) == {"input": 0, "forward": 0, "step": 1, "update": 1, "other": pytest.approx(0)}
    assert profile_table([only], PARTS)[0].startswith("profile of update 1,")
