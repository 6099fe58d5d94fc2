"""How workers have changed within an attempt: written beside its start, and read with it."""

from __future__ import annotations

import pytest

from harness.folder import AttemptStart, OutcomeFiles, Unread, WorldChange, read_attempts

LOST = WorldChange("", 1000.0, 17, 2, "rank 2 was killed", 0.25)


def test_changes_are_read_with_their_attempt(tmp_path):
    first, second = OutcomeFiles(0, "a", environ={}), OutcomeFiles(0, "b", environ={})
    first.use_folder(tmp_path, AttemptStart(ranks=3))
    OutcomeFiles(0, "a", environ={}).continue_in(tmp_path, LOST)
    OutcomeFiles(1, "a", environ={}).continue_in(tmp_path, LOST)  # another rank: rank 0 writes for all
    second.use_folder(tmp_path, AttemptStart(after=17, ranks=2))
    unread = Unread()
    one, other = read_attempts(tmp_path, unread)
    assert (one.start.ranks, [change.reason for change in one.changes]) == (3, ["rank 2 was killed"])
    assert (one.changes[0].after, one.changes[0].ranks, one.changes[0].took_s) == (17, 2, 0.25)
    assert other.changes == ()
    assert not unread.parts


def test_a_rank_that_goes_on_says_how_the_attempt_ends(tmp_path):
    OutcomeFiles(0, "a", environ={}).use_folder(tmp_path, AttemptStart())
    files = OutcomeFiles(0, "a", environ={})
    files.continue_in(tmp_path, LOST)
    files.write(0, "done")
    assert (tmp_path / "outcome.json").exists()


@pytest.mark.parametrize(("name", "value"), [("ranks", 0), ("after", -1), ("took_s", "long")])
def test_what_cannot_be_is_told(tmp_path, name, value):
    OutcomeFiles(0, "a", environ={}).use_folder(tmp_path, AttemptStart())
    OutcomeFiles(0, "a", environ={}).continue_in(tmp_path, WorldChange(**{**vars(LOST), name: value}))
    unread = Unread()
    assert read_attempts(tmp_path, unread)[0].changes == ()
    assert [part.line for part in unread.parts] == [2]
