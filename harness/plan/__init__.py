"""Where configuration meets sizes: the learning rate and momentum of every iteration of a run."""

from harness.plan.lr_plan import LRPlan
from harness.plan.sizes import Sizes, count_workers, resolve_shards

__all__ = [
    "LRPlan",
    "Sizes",
    "count_workers",
    "resolve_shards",
]
