"""Who is named when a job makes no progress: sentences made of what ranks report of themselves."""

from __future__ import annotations

from harness.config import GuardConfig
from harness.guard.messages import Message
from harness.guard.stall import explain_end, explain_silence, explain_stall, ranks_behind
from harness.guard.this_rank import stall_limits


def status(num_collectives, collective="update", line="x.py:1 (f)", **more):
    return Message(activity="iteration 50", collective=collective, num_collectives=num_collectives, line=line, **more)


def test_the_rank_that_has_started_fewest_collectives_is_named_with_its_line():
    statuses = {0: status(7), 1: status(6, "agreed.batch", "reader.py:26 (read)"), 2: status(7)}
    said = explain_stall(statuses, {}, own_rank=0)
    assert said == ("rank 1 has not reached the collective 'update'; it is at reader.py:26 (read), in iteration 50")


def test_ranks_that_the_others_wait_for_are_those_that_report_and_have_started_fewer():
    statuses = {0: status(7), 1: status(6), 2: status(5), 3: status(7), 4: Message()}
    assert ranks_behind(statuses, {}) == [1, 2]
    assert ranks_behind(statuses, {2: "rank 2 has been silent"}) == [1]
    assert ranks_behind({0: status(7), 1: status(7)}, {}) == []


def test_if_all_have_started_as_many_nobody_is_named():
    said = explain_stall({0: status(7), 1: status(7)}, {}, own_rank=1)
    assert said == "ranks 0, 1 all wait; rank 1 is at x.py:1 (f)"


def test_a_silent_rank_is_named_once_and_before_those_that_are_behind():
    statuses = {0: status(7), 1: status(3), 2: status(6)}
    said = explain_stall(statuses, {1: "rank 1 has been silent"}, own_rank=0)
    assert said.startswith("rank 1 has been silent; rank 2 has not reached")
    assert said.count("rank 1") == 1


def test_a_rank_that_has_reported_nothing_is_not_behind():
    assert explain_stall({0: status(7), 1: Message()}, {}, own_rank=0).startswith("ranks 0, 1 all wait")


def test_a_lost_and_a_silent_rank_are_named_with_process_and_activity():
    known = status(7, process="pid 42 on host")
    assert explain_end(1, known) == (
        "rank 1 (pid 42 on host) was killed or its host went down; it was last heard of in iteration 50"
    )
    assert explain_end(1, Message()).endswith("last heard of in start")
    assert "rank 1 (pid 42 on host) has been silent for 11 s, last in iteration 50" in explain_silence(1, known, 11.2)


def test_each_kind_of_activity_has_its_own_limit():
    section = GuardConfig(stall_after_s=1, stall_after_first_s=2, stall_after_evaluation_s=3)
    assert stall_limits(section) == {"update": 1, "first": 2, "evaluation": 3}
