"""Where configuration meets sizes: the learning rate and momentum of every iteration of a run."""

from harness.plan.amended import amended_plan, rates_around, with_choice
from harness.plan.amendments import (
    Amendment,
    EarlyStop,
    Extend,
    Judgement,
    PlateauCut,
    Replace,
    Rewind,
    read_amendments,
    with_amendment,
)
from harness.plan.lr_plan import Cut, LRPlan
from harness.plan.sizes import Sizes, at_most, count_workers, imbalance, resolve_shards
from harness.plan.trends import PlateauRule, StopRule, Trend

__all__ = [
    "Amendment",
    "Cut",
    "EarlyStop",
    "Extend",
    "Judgement",
    "LRPlan",
    "PlateauCut",
    "PlateauRule",
    "Replace",
    "Rewind",
    "Sizes",
    "StopRule",
    "Trend",
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
