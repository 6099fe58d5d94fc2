"""What a worker of an elastic job does while there is no world."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from harness.comm import SingleWorld
from harness.errors import StoppedOnRequestError
from harness.train import worlds


class Membership:
    """Of a process that joins a job, and waits to be invited."""

    is_joining, leaves, has_left = True, False, False

    def limit(self, most, wait_s):
        pass

    def next_world(self, iteration, *, is_lost, may_wait, hurries):
        while True:
            may_wait()

    def leave(self):
        self.has_left = True


def test_a_worker_that_is_told_to_stop_while_it_waits_does_not_end_the_job_of_the_others(monkeypatch):
    told = iter([False, False, True])
    world = SingleWorld()
    world.membership = Membership()
    run = SimpleNamespace(
        world=world,
        sizes=SimpleNamespace(shards=2),
        config=SimpleNamespace(elastic=SimpleNamespace(wait_s=1.0)),
        guard=SimpleNamespace(enter=lambda *_: None, is_told_to_stop=lambda: next(told)),
        initial_state=SimpleNamespace(iteration=0),
    )
    monkeypatch.setattr(worlds, "build_learner", lambda run, has_state: None)
    with pytest.raises(StoppedOnRequestError, match="asked to stop while there was no world"):
        worlds.train_in_worlds(run, "info", SimpleNamespace(step_out=lambda is_over: None))
    assert world.membership.has_left
