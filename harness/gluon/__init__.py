"""Gluon training on shards: one update, its state, evaluation."""

from harness.gluon.control import Requests
from harness.gluon.evaluation import evaluate
from harness.gluon.learner import Learner
from harness.gluon.replica import shards_of_rank
from harness.gluon.state import State

__all__ = ["Learner", "Requests", "State", "evaluate", "shards_of_rank"]
