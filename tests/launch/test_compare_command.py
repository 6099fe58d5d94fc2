"""`launch/compare.py`: what it prints, and its exit codes."""

from __future__ import annotations

from tests.report.folders import make_run
from tests.report.test_difference import metrics


def test_the_command(command, tmp_path):
    folders = [
        make_run(tmp_path, "a", metrics()),
        make_run(tmp_path, "b", metrics()),
        make_run(tmp_path, "c", metrics(), seed=1, base=0.05),
    ]
    same = command("compare", *folders[:2])
    assert (same.code, same.out.splitlines()[-1]) == (0, "the runs are the same in all that both have recorded")
    other = command("compare", folders[0], folders[2])
    assert other.code == 1
    assert "differs: seed: 0 and 1\n" in other.out
    assert other.out.splitlines()[-1] == "they part in iteration 1 (learning rate), by seed, lr.base"
    wrong = command("compare", folders[0], tmp_path / "none")
    assert wrong.code == 2
    assert wrong.err.startswith(f"error: {tmp_path}/none: is not the folder of a run")
