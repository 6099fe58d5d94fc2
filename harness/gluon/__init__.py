"""Gluon training on shards: networks, optimizers, one update, its state."""

from harness.gluon.build import build_learner, devices_of_rank
from harness.gluon.evaluation import evaluate
from harness.gluon.judge import Requests
from harness.gluon.learner import Learner
from harness.gluon.metrics import build_metrics, try_metrics
from harness.gluon.seat import shards_of_rank
from harness.gluon.shards import seed_generator
from harness.gluon.state import State

__all__ = [
    "Learner",
    "Requests",
    "State",
    "build_learner",
    "build_metrics",
    "devices_of_rank",
    "evaluate",
    "seed_generator",
    "shards_of_rank",
    "try_metrics",
]
