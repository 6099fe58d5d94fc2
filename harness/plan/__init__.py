"""Where configuration meets sizes: the learning rate and momentum of every iteration of a run."""

from harness.plan.amended import amended_plan, rates_around, with_choice
from harness.plan.amendments import Amendment, Extend, Replace, Rewind, read_amendments, with_amendment
from harness.plan.lr_plan import LRPlan
from harness.plan.sizes import Sizes, at_most, count_workers, imbalance, resolve_shards

__all__ = [
    "Amendment",
    "Extend",
    "LRPlan",
    "Replace",
    "Rewind",
    "Sizes",
    "amended_plan",
    "at_most",
    "count_workers",
    "imbalance",
    "rates_around",
    "read_amendments",
    "resolve_shards",
    "with_amendment",
    "with_choice",
]
