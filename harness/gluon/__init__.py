"""Gluon training on shards: one update, its state, evaluation."""

from harness.comm import shards_of_rank
from harness.gluon.control import Requests
from harness.gluon.evaluation import evaluate
from harness.gluon.learner import Learner
from harness.gluon.learners import Learners
from harness.gluon.operator_times import OperatorTimes
from harness.gluon.options import Averaging, Placement, UpdateOptions
from harness.gluon.state import LearnerState
from harness.gluon.timing import Timing

State = LearnerState  # its earlier name

__all__ = [
    "Averaging",
    "Learner",
    "LearnerState",
    "Learners",
    "OperatorTimes",
    "Placement",
    "Requests",
    "State",
    "Timing",
    "UpdateOptions",
    "evaluate",
    "shards_of_rank",
]
