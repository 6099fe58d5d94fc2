"""Bytes of unknown origin to values: what is refused, and in which words."""

from __future__ import annotations

import os

import pytest

from harness.folder import (
    AttemptStart,
    BestCheckpoint,
    Fields,
    MetricsLine,
    Outcome,
    RankFailure,
    RecordError,
    Unread,
    append_line,
    parse_json,
    read_attempts,
    read_object,
    seen,
    write_object,
)

OUTCOME = {"attempt": "a", "exit_code": 6, "cause": "the loss is nan", "ended_at": 1.7e9}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"{", "is not valid JSON at column 2"),
        (b'{\n"a": }', "is not valid JSON at line 2, column 6"),
        (b"\xff{}", "is not UTF-8 text at byte 0"),
        (b"[" * 200_000, "is nested too deeply"),
        (b'{"a": 1, "a": 2}', "has the key 'a' twice"),
        (b'{"a": {"b": 1, "b": 1}}', "has the key 'b' twice"),
        (b'{"a": NaN}', "contains NaN, which is not a JSON number"),
        (b'{"a": -Infinity}', "contains -Infinity"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "contains a number with thousands of digits"),
        (b"[" + b"[]," * 1_000_000 + b"[]]", "contains more than 1,000,000 values"),
    ],
)
def test_json_that_is_none_of_ours(data, reason):
    with pytest.raises(RecordError, match=f"^{reason}"):
        parse_json(data)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"exit_code": None}, "exit_code is null, not a whole number"),
        ({"exit_code": True}, "exit_code is true, not a whole number"),
        ({"exit_code": 6.0}, "exit_code is 6.0, not a whole number"),
        ({"exit_code": 9}, "exit_code is 9; a job ends with 0, 1, 2"),
        ({"exit_code": -6}, "exit_code is -6; allowed: 0 to 255"),
        ({"exit_code": 10**400}, "exit_code is a number of 401 digits; allowed"),
        ({"cause": ["x"]}, "cause is a list, not text"),
        ({"ended_at": 1e300}, r"ended_at is 1e\+300; allowed: 0 to"),
        ({"ended_at": 10**400}, "ended_at is a number of 401 digits, too large for a float"),
        ({"ended_at": "now"}, "ended_at is the text 'now', not a number"),
        ({"attempt": {}}, "attempt is an object, not text"),
    ],
)
def test_an_outcome_says_what_is_wrong_with_it(change, reason):
    with pytest.raises(RecordError, match=f"^{reason}"):
        Outcome.read(Fields({**OUTCOME, **change}))


@pytest.mark.parametrize("name", ["exit_code", "cause"])
def test_what_an_outcome_cannot_do_without(name):
    with pytest.raises(RecordError, match=f"^{name} is missing"):
        Outcome.read(Fields({key: value for key, value in OUTCOME.items() if key != name}))


@pytest.mark.parametrize(
    "record",
    [
        Outcome("a", 7, "rank 1 was killed", 1.7e9),
        RankFailure(3, "it was lost", "a", 7, 1.7e9, "iteration 5", "fold", "Thread 1"),
        RankFailure(0, "the loss is nan", "a", 6),
        AttemptStart(
            "a", 1.7e9, 40, "runs/x/checkpoints/iteration-000000040", 2, "mpi", "node", "python x", {"mxnet": "1"}
        ),
        AttemptStart("a", 1.7e9),
    ],
)
def test_what_is_written_is_read_and_other_versions_may_know_more(record, tmp_path):
    write_object(tmp_path / "record.json", {**record.to_json(), "of another version": [1, {"a": None}]})
    assert type(record).read(read_object(tmp_path / "record.json")) == record


def test_what_is_written_fits_what_is_read(tmp_path):
    write_object(tmp_path / "r.json", RankFailure(0, "x" * 10**7, stacks="y" * 10**7).to_json())
    assert (tmp_path / "r.json").stat().st_size < 2 * 10**6
    assert RankFailure.read(read_object(tmp_path / "r.json", 1 << 21)).cause.endswith(
        "x... (9,980,032 more characters)"
    )


def test_a_file_is_left_unread_where_it_cannot_be_a_record(tmp_path):
    path = tmp_path / "outcome.json"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(RecordError, match=r"has 1,073,741,824 bytes; at most 1,048,576 are read"):
        read_object(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(RecordError, match=r"cannot be read \(is a FIFO, not a regular file\)"):
        read_object(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(RecordError, match="Is a directory"):
        read_object(path)
    path.rmdir()
    path.symlink_to("/dev/zero")
    with pytest.raises(RecordError, match="is a symbolic link"):
        read_object(path)
    with pytest.raises(RecordError, match="is a device"):
        read_object(path, follow=True)
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(RecordError, match="cannot be read"):
        read_object(path, follow=True)


def test_text_shows_what_it_holds():
    assert seen("a\tb\nc") == "a\tb\nc"
    assert seen("\x00\x1b[2J\x9b\u202egnp.exe\ufeff\ud800é") == r"\x00\x1b[2J\x9b\u202egnp.exe\ufeff\ud800é"


def test_a_link_in_a_record_s_place_is_not_followed(tmp_path):
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "outcome.json").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="is a symbolic link"):
        write_object(tmp_path / "outcome.json", OUTCOME)
    assert (tmp_path / "victim").read_text() == "mine"


def test_a_torn_line_of_the_history_costs_itself_alone(tmp_path):
    history = tmp_path / "attempts.jsonl"
    for torn in (b'{"attempt": "a", "began', b'{"attempt": "b"}\n', b"\xff\xfe\n"):
        with history.open("ab") as file:
            file.write(torn)
        append_line(history, AttemptStart("c", 1.7e9).to_json())
    unread = Unread()
    assert [one.start.attempt for one in read_attempts(tmp_path, unread)] == ["c", "c", "c"]
    assert [part.line for part in unread.parts] == [1, 3, 5]


def test_many_attempts_leave_the_first_and_the_newest(tmp_path):
    (tmp_path / "attempts.jsonl").write_text("")
    with (tmp_path / "attempts.jsonl").open("ab") as file:
        for k in range(2000):
            file.write(b'{"attempt": "%d", "began_at": 1}\n{"attempt": "%d", "exit_code": 75, "cause": "x"}\n' % (k, k))
    unread = Unread()
    found = read_attempts(tmp_path, unread)
    assert [found[k].start.attempt for k in (0, 1, -1)] == ["0", "1501", "1999"]
    assert found[-1].ended.exit_code == 75
    assert "contains 1,500 more attempts" in unread.parts[0].reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"set": "../../etc"}, "set is '../../etc', not the name of a checkpoint"),
        ({"set": "iteration-000000020", "iteration": 40}, "iteration is 40, but set is 'iteration-000000020'"),
        ({"set": 20}, "set is 20, not text"),
    ],
)
def test_the_best_checkpoint(content, reason):
    with pytest.raises(RecordError, match=f"^{reason}"):
        BestCheckpoint.read(Fields(content))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"split": "train", "iteration": 0}', "iteration is 0; the first is 1"),
        ('{"split": "train", "iteration": 1.0}', "iteration is 1.0, not a number of updates"),
        ('{"split": "train", "iteration": true}', "iteration is true"),
        ('{"split": "", "iteration": 1}', "split is the text '', not a name"),
        ('{"split": "train", "iteration": 1, "lr": -0.1}', "lr is -0.1; allowed: a number from 0"),
        ('{"split": "train", "iteration": 1, "lr": NaN}', "lr is nan; allowed"),
        ('{"split": "train", "iteration": 1, "loss": "low"}', "loss is the text 'low', not a number"),
        ('{"split": "train", "iteration": 1, "loss": false}', "loss is false, not a number"),
        ('{"split": "train", "iteration": 1, "images_per_s": -5}', "images_per_s is -5; allowed: 0 to inf"),
        ('{"split": "train", "iteration": 1, "epoch": 1.5}', "epoch is 1.5, not a whole number"),
        ('{"split": "test", "iteration": 1, "accuracy": 1.01}', "accuracy is 1.01; allowed: 0 to 1"),
        ('{"split": "test", "iteration": 1, "mine:f": [1]}', "mine:f is a list, not a number"),
        ('{"split": "test", "iteration": 1, "loss": 1%s}' % ("0" * 400), "loss is a number of 401 digits"),
        ('{"split": "train", "iteration": 1, "time": 1e30}', r"time is 1e\+30; allowed"),
        ('["train", 1]', "is a list, not an object"),
    ],
)
def test_a_line_of_metrics_says_what_is_wrong_with_it(text, reason):
    with pytest.raises(RecordError, match=f"^{reason}"):
        MetricsLine.read(text.encode())
