"""`metrics.jsonl`: what a run takes up of a damaged one, which order can be right, and how much memory it takes."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest

from harness.errors import CheckpointError
from harness.folder import MetricsFile, MetricsLine, Unread, read_metrics_lines
from harness.report.measured import read_metrics
from tests.report.folders import trained


def lines(*iterations):
    return [json.dumps(trained(t, 1.0)).encode() + b"\n" for t in iterations]


def taken_up(path, data, after):
    """What a run that goes on leaves of a file, and the lines that it could not read."""
    path.write_bytes(b"".join(data))
    with MetricsFile(path, after) as metrics:
        return path.read_bytes(), [part.line for part in metrics.unread.parts]


HOSTILE = [
    b"\xff\xfe damaged\n",
    b'{"split": "train", "itera\n',
    b"[" * 100_000 + b"\n",
    b'{"iteration": 1%s}\n' % (b"0" * 4000),
    b'{"iteration": null}\n',
    b"x" * 1_000_000 + b"\n",
    b"\n",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_damaged_line_costs_itself_alone(tmp_path, hostile):
    before, after = lines(1, 2, 3), lines(4, 5)
    kept, unread = taken_up(tmp_path / "metrics.jsonl", [*before, hostile, *after, *lines(6, 7)], 5)
    assert kept == b"".join([*before, hostile, *after])
    assert unread == [4]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_damaged_lines_at_the_end_go_with_what_is_cut(tmp_path, hostile):
    kept, _ = taken_up(tmp_path / "metrics.jsonl", [*lines(1, 2), hostile, *lines(3)], 2)
    assert kept == b"".join(lines(1, 2))


def test_a_line_that_seems_to_be_of_the_future_does_not_take_those_behind_it_along(tmp_path):
    kept, unread = taken_up(tmp_path / "metrics.jsonl", lines(1, 9002, 3, 4, 5), 4)
    assert (kept, unread) == (b"".join(lines(1, 3, 4)), [])
    kept, _ = taken_up(tmp_path / "metrics.jsonl", lines(9001, 2, 3), 4)
    assert kept == b"".join(lines(2, 3))
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_torn_last_line_is_no_damage(tmp_path):
    assert taken_up(tmp_path / "metrics.jsonl", [*lines(1, 2), b'{"split": "tra'], 9) == (b"".join(lines(1, 2)), [])


def test_lines_can_be_written_after_a_file_was_written_anew(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"".join(lines(1, 2, 3, 4)))
    with MetricsFile(path, 4) as metrics:
        metrics.write(trained(5, 1.0))
        path.write_bytes(path.read_bytes().replace(b'"iteration": 2', b'"iteration": 8'))
        metrics.cut_back(4)
        metrics.write(trained(6, 1.0))
    assert [line.iteration for line in read_metrics_lines(path, Unread())] == [1, 3, 4, 6]


def test_a_file_that_is_none_is_told(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(CheckpointError, match=r"metrics.jsonl: cannot be continued \(Is a directory\); move it aside"):
        MetricsFile(tmp_path / "metrics.jsonl")


def test_what_an_event_says_is_read_back_and_never_of_a_measured_line(tmp_path):
    path, said = tmp_path / "metrics.jsonl", ("epoch 1: 2 were replaced", "sample 3 by sample 4: \x1b")
    with MetricsFile(path) as metrics:
        metrics.write(MetricsLine("replaced", 3, 1, 0.1, None, {"count": 2.0}, said=said).to_json())
        metrics.write({**trained(4, 1.0), "said": 7.0})
    event, line = read_metrics_lines(path, Unread())
    assert (event.values, event.said) == ({"count": 2}, (said[0], "sample 3 by sample 4: \\x1b"))
    assert line.said == ()


@pytest.mark.parametrize("said", ["x", 3, [3], ["x"] * 21])
def test_an_event_that_says_something_else_is_unread(tmp_path, said):
    path, unread = tmp_path / "metrics.jsonl", Unread()
    path.write_text(json.dumps({"split": "replaced", "iteration": 3, "said": said}) + "\n")
    assert list(read_metrics_lines(path, unread)) == []
    assert [part.reason.partition(" is ")[0] for part in unread.parts] == ["said"]


@pytest.mark.parametrize(
    ("written", "read", "reasons"),
    [
        ((1, 2, 3), [1, 2, 3], []),
        ((1, 92, 3, 4), [1, 3, 4], ["iteration 92 is between 1 and 3"]),
        ((10, 11, 2, 12), [10, 11, 12], ["iteration 2 comes after iteration 10"]),
        ((1, 2, 101), [1, 2], ["iteration is 101; the run has 100"]),
        ((5, 5, 6), [5, 5, 6], []),
        ((90, 1, 2, 3), [1, 2, 3], ["iteration 90 is between 0 and 1"]),
    ],
)
def test_of_two_lines_in_another_order_one_is_damaged(tmp_path, written, read, reasons):
    (tmp_path / "metrics.jsonl").write_bytes(b"".join(lines(*written)))
    unread = Unread()
    assert [line.iteration for line in read_metrics_lines(tmp_path / "metrics.jsonl", unread, 100)] == read
    assert [part.reason for part in unread.parts] == reasons


def test_memory_does_not_grow_with_the_file(tmp_path):
    path, line = tmp_path / "metrics.jsonl", b'{"split": "train", "iteration": %d, "loss": 0.5}\n'
    with path.open("wb") as file:
        file.writelines(line % t for t in range(1, 3001))
        file.write(b"[" * 10_000_000)  # without an end
    tracemalloc.start()
    metrics = read_metrics(path, Unread())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert metrics.training["iteration"].size == 3000
    assert metrics.num_unreadable == 1
    assert peak < 2_500_000


def test_many_lines_are_thinned_and_keep_extremes_and_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.report.measured.MOST_LINES", 1000)
    path = tmp_path / "metrics.jsonl"
    with path.open("wb") as file:
        for t in range(1, 10_001):
            loss = {777: 9.0, 778: float("nan"), 5000: -9.0}.get(t, 1.0)
            file.write(json.dumps(trained(t, loss, images_per_s=100.0)).encode() + b"\n")
    metrics = read_metrics(path, Unread(), 10_000)
    t, loss = metrics.training["iteration"], metrics.training["loss"]
    assert metrics.is_thinned
    assert t.size < 1000
    assert (np.diff(t) > 0).all()
    assert t[-1] == metrics.last_iteration == 10_000
    assert (t[np.nanargmax(loss)], t[np.nanargmin(loss)]) == (777, 5000)
    assert metrics.num_not_finite == 1


def test_more_curves_than_a_page_has_room_for(tmp_path):
    record = {"split": "test", "iteration": 1, **{f"m{k}": 1.0 for k in range(60)}}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    unread = Unread()
    assert len(read_metrics(tmp_path / "metrics.jsonl", unread).evaluations["test"]) == 50
    assert "has more than 50 curves" in unread.parts[0].reason
