"""What programs import and call by the names it had before it was moved or renamed."""

from __future__ import annotations

import importlib

import pytest


@pytest.mark.parametrize(
    ("earlier", "now"),
    [("harness.gluon.nets", "harness.model.networks"), ("harness.guard.lifeline", "harness.guard.heartbeat")],
)
def test_an_earlier_name_is_the_same_module(earlier, now):
    assert importlib.import_module(earlier) is importlib.import_module(now)


def test_a_learner_and_its_state_have_their_earlier_names():
    from harness import gluon

    assert gluon.State is gluon.LearnerState
    assert gluon.Learner.finish is gluon.Learner.check_pending
