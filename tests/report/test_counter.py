"""How much is done, on standard error; results on standard output."""

from __future__ import annotations

import os
import pty
import re
import sys

import pytest

from harness.report.counter import Counter, say
from tests.report.test_progress import everything


def count(total=40):
    with Counter(total, "pictures checked", 10) as counter:
        counter.tell(11)
        counter.say("a result")
        counter.tell(total)


def test_what_is_done_soon_is_not_told_where_there_is_no_terminal(capsys):
    count()
    assert capsys.readouterr() == ("a result\n", "")


def test_what_takes_long_is_told_in_lines_with_its_speed(capsys, monkeypatch):
    times = iter([0.0, 0.0, 5.0, 5.0, 6.0, 11.0, 11.0])
    monkeypatch.setattr("harness.report.counter.time.monotonic", lambda: next(times))
    with Counter(1200, "pictures checked", 100) as counter:
        for done in (600, 700, 1200):
            counter.tell(done)
    assert capsys.readouterr().err.splitlines() == [
        "[ 600/1200] pictures checked, 100 a second",
        "[1200/1200] pictures checked, 100 a second",
    ]


@pytest.mark.parametrize("both", [True, False], ids=["results above it", "results elsewhere"])
def test_a_terminal_has_a_bar(monkeypatch, capsys, both):
    reader, writer = pty.openpty()
    with os.fdopen(writer, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        if both:
            patch.setattr(sys, "stdout", terminal)
        patch.setenv("COLUMNS", "80")
        patch.setenv("TERM", "xterm")
        count()
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", everything(reader).decode())
    os.close(reader)
    assert "40/40 pictures checked" in shown
    assert ("a result" in shown) == both
    assert capsys.readouterr().out == ("" if both else "a result\n")


def test_names_of_files_that_are_no_text_are_spelt_out(capsys):
    say("a\udcff\x1b[2J.jpg")
    assert capsys.readouterr().out == "a\\udcff\\x1b[2J.jpg\n"


def test_work_goes_on_where_nobody_listens_any_more(start, tmp_path):
    program = tmp_path / "talks.py"
    program.write_text(
        "import os, sys; from harness.report.counter import say; r, w = os.pipe(); os.close(r); os.dup2(w, 1)\n"
        "say('one'); say('two'); print('done', file=sys.stderr)"
    )
    assert start(program).stderr == "done\n"
    say("")
