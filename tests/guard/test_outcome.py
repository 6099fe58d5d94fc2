"""The history of a run's attempts."""

from __future__ import annotations

import json

from harness.guard.outcome import OutcomeFiles, read_outcome


def history_of(folder):
    return [json.loads(line) for line in (folder / "attempts.jsonl").read_text().splitlines()]


def test_attempts_and_their_outcomes_are_kept(tmp_path):
    for number, end in enumerate([(75, "stopped"), None, (0, "done")]):
        files = OutcomeFiles(rank=0, attempt=f"attempt {number}", environ={})
        files.settle(tmp_path, {"after": 10 * number})
        assert read_outcome(tmp_path) is None
        if end is not None:
            files.write(*end)
    lines = [(line["attempt"], line.get("after"), line.get("cause")) for line in history_of(tmp_path)]
    assert lines == [
        ("attempt 0", 0, None),
        ("attempt 0", None, "stopped"),
        ("attempt 1", 10, None),
        ("attempt 2", 20, None),
    ]
    assert read_outcome(tmp_path)["cause"] == "done"


def test_only_rank_0_keeps_the_history(tmp_path):
    OutcomeFiles(rank=1, attempt="a", environ={}).settle(tmp_path, {"after": 0})
    assert not list(tmp_path.iterdir())
