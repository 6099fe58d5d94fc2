"""MXNet's own profiler as it is in 1.9.1: what it writes, and that it can be used twice."""

from __future__ import annotations

import json
import tempfile
import time

import mxnet as mx
import pytest

from harness.gluon import OperatorTimes
from harness.gluon.operator_times import Operator, read_operators

THREADS = (16704551341028874955, 14110695441242310610)


def event(phase, name, ts, thread=0, cat="operator"):
    return {"name": name, "cat": cat, "ph": phase, "ts": ts, "pid": 0, "tid": THREADS[thread]}


EVENTS = [
    event("B", "outer", 10),
    event("B", "DeleteVariable", 11),
    event("E", "DeleteVariable", 12),
    event("B", "inner", 12),
    event("B", "inner", 13),
    event("E", "inner", 14),
    event("E", "inner", 16),
    event("E", "outer", 20),
    event("B", "outer", 5, thread=1),
    event("B", "task", 1, cat="Task"),
    event("E", "lost its beginning", 30),
]


@pytest.mark.parametrize("before", ["", ",\n"])
def test_events_become_operators(before):
    text = f'{{"traceEvents": [\n{before}{", ".join(map(json.dumps, EVENTS))}], "displayTimeUnit": "ms"}}'
    assert read_operators(text, 1000) == [
        Operator("outer", 9_000, 10_000, 0),
        Operator("inner", 11_000, 4_000, 0),
        Operator("inner", 12_000, 1_000, 0),
    ]


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"traceEvents": [{"cat": "operator"}]}', '{"traceEvents": 1}'])
def test_other_text_is_no_profile(text):
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        read_operators(text, 0)


def test_operators_are_noted_by_pythons_clock_as_often_as_it_is_started():
    array = mx.nd.ones((300, 300))
    for _ in range(2):
        times = OperatorTimes()
        mx.nd.sqrt(array).wait_to_read()  # before
        times.start()
        begun_ns = time.perf_counter_ns()
        mx.nd.dot(array, array)
        found, remark = times.stop()
        ended_ns = time.perf_counter_ns()
        mx.nd.exp(array).wait_to_read()  # after
        assert remark is None
        [dot] = [one for one in found if one.name == "dot"]
        assert begun_ns - 100_000 < dot.begin_ns <= dot.begin_ns + dot.duration_ns < ended_ns + 100_000
        assert not {"sqrt", "exp"} & {one.name for one in found}
        assert times.stop() == ([], None)


def test_a_file_that_is_not_there_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    times = OperatorTimes()
    times.start()
    for folder in tmp_path.iterdir():
        folder.rmdir()
    assert times.stop()[0] == []
    times.start()
    times.stop()
