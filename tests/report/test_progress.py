"""What rank 0 shows, on a terminal and elsewhere, at each level."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import sys

import pytest

from harness.report import LOG_LEVELS, Progress

TOTAL = 123_456


def show(log_level="info", rank=0, begun=0, opening="opening", **how):
    with Progress(TOTAL, rank, begun, log_level, **how) as progress:
        progress.say(opening)
        progress.warn("remark")
        for t in (1, 2, 3):
            progress.update(t, 1, 0.1, 2.5, 640.0)
        progress.evaluated(3, "test", {"loss": 0.5, "accuracy": 0.75})


def everything(reader):
    """What a terminal got before it was closed; one read may give a part."""
    found = b""
    with contextlib.suppress(OSError):  # how Linux says that there is no more
        while part := os.read(reader, 1 << 16):
            found += part
    return found


@pytest.fixture
def on_a_terminal(monkeypatch):
    """What a terminal of 80 columns gets, without colours and movements."""

    def run(**how):
        reader, writer = pty.openpty()
        with os.fdopen(writer, "w") as terminal, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            patch.setenv("COLUMNS", "80")
            patch.setenv("TERM", "xterm")
            show(**how)
            patch.undo()
        text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", everything(reader).decode())
        os.close(reader)
        return re.split(r"[\r\n]+", text)

    return run


def test_numbers_come_as_plain_lines_and_not_faster_than_can_be_read(capsys):
    show()
    assert capsys.readouterr().out.splitlines() == [
        "opening",
        "remark",
        "[     1/123456] epoch 1  lr 0.1  loss 2.5000  640 images/s",
        "[     3/123456] test: loss 0.5000  accuracy 0.7500",
    ]


@pytest.mark.parametrize(
    ("log_level", "lines"), [("error", []), ("warning", ["remark"]), ("debug", ["opening", "remark", 1, 2, 3, 3])]
)
def test_a_level_shows_what_is_at_least_as_urgent(capsys, log_level, lines):
    show(log_level)
    found = capsys.readouterr().out.splitlines()
    assert [int(line[1:7]) if line.startswith("[") else line for line in found] == lines


def test_the_command_knows_the_same_levels(here):
    out = here("launch/train.py", "--log-level", "loud", exit_code=2).stderr
    assert re.findall(r"'?(\w+)'?", out.split("choose from")[1])[:4] == list(LOG_LEVELS)


def test_a_quiet_run_says_nothing_and_the_numbers_are_written(here, tmp_path):
    settings = [word for setting in (f"output={tmp_path}", "train.epochs=1") for word in ("--set", setting)]
    done = here("launch/train.py", "--quiet", *settings)
    assert (done.stdout, done.stderr) == ("", "")
    assert (tmp_path / "digits/metrics.jsonl").read_text()


def test_other_ranks_are_silent(capsys):
    show(rank=1)
    assert capsys.readouterr().out == ""


def test_a_terminal_gets_one_line_of_progress(on_a_terminal):
    long = f"done, digest {'0123456789abcdef' * 6}"
    lines = on_a_terminal(begun=1, opening=long)
    assert long in lines  # to be copied whole
    assert "remark" in lines
    last = [line for line in lines if "3/123456" in line and "━" in line][-1]
    assert re.search(r"epoch 1 +lr 0.1 +loss 2.5000 +640 images/s", last)
    assert len(last) <= 80


def test_through_a_launcher_a_terminal_gets_lines(on_a_terminal):
    assert on_a_terminal(may_draw=False)[2] == "[     1/123456] epoch 1  lr 0.1  loss 2.5000  640 images/s"


def test_whoever_stops_listening_does_not_stop_the_run():
    reader, writer = os.pipe()
    os.close(reader)
    kept = os.dup(1)
    try:
        os.dup2(writer, 1)
        with os.fdopen(writer, "w") as pipe, pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdout", pipe)
            show("debug")
    finally:
        os.dup2(kept, 1)
        os.close(kept)
