"""How a soak is judged: what grows is wrong, and what was too short to be judged is said to be."""

from __future__ import annotations

import pytest

from tests.soak.elastic import MOST, OF_A_WHOLE_SOAK, WITH_A_DISK, Soak
from tests.soak.verdicts import Verdict


def looks(memory, files):
    """Nine of them: a third that does not count, and two halves of three."""
    return [{"memory in MiB": mebibytes, "open files": number} for mebibytes, number in zip(memory, files, strict=True)]


WARM = [(50, 900), (90, 7), (99, 8)]


@pytest.mark.parametrize(
    ("late", "wrong"),
    [
        ([(100, 9), (101.9, 9), (130, 50)], []),  # once is a moment, twice would be a habit
        ([(103, 9), (102.5, 9), (101, 9)], ["not level: it: 50 at first, then 100 -> 102.5 memory in MiB"]),
        ([(100, 9), (100, 10), (100, 10)], ["not level: it: 900 at first, then 9 -> 10 open files"]),
    ],
)
def test_the_later_half_may_not_be_above_the_earlier_one(late, wrong):
    verdict = Verdict()
    memory, files = zip(*WARM, (100, 9), (100, 9), (100, 8), *late, strict=True)
    verdict.judge_level("it", looks(memory, files))
    assert (verdict.wrong, verdict.unjudged) == (wrong, [])


def test_too_few_looks_are_not_judged():
    verdict = Verdict()
    verdict.judge_level("it", looks(range(100, 107), range(7)))
    assert (verdict.wrong, verdict.unjudged) == ([], ["whether it stays level: too short for more than 7 looks"])


@pytest.mark.parametrize(
    ("wrong", "unjudged", "code", "text"),
    [
        ([], [], 0, "all is well\n"),
        ([], ["this"], 3, "all is well\nNOT JUDGED: this\n"),
        (["that"], ["this"], 1, "WRONG: that\nNOT JUDGED: this\n"),
    ],
)
def test_what_it_ends_with(capsys, wrong, unjudged, code, text):
    assert Verdict(wrong, unjudged).conclude("all is well") == code
    assert capsys.readouterr().out == text


def test_a_soak_names_what_it_did_not_have(tmp_path):
    one = Soak(tmp_path, tmp_path, seed=0, iterations=1)
    one.done.update(OF_A_WHOLE_SOAK | WITH_A_DISK)
    one.sizes.update(range(1, MOST + 1))
    one.judge_what_happened()
    assert one.verdict.unjudged == []
    one.done["full disk"] = one.sizes[6] = 0
    one.judge_what_happened()
    assert [what.partition(":")[0] for what in one.verdict.unjudged] == ["full disk", "a world of 6"]
