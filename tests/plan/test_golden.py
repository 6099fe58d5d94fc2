"""Plans keep their bits: learning rates, momenta, breakpoints and fingerprints that version 0.1.0 gave.

`golden.json` holds plans of 120 iterations, of 1000 samples in 3 shards of 32, with the section `lr` and the amendments
that each was made of. Floats are hexadecimal, so that they are compared to the bit.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from harness.config import parse_config
from harness.folder import Fields
from harness.plan import LRPlan, Sizes, amended_plan, read_amendments

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())
AT = (0, 1, 7, 13, 40, 41, 61, 120)


def plan_of(golden: dict) -> LRPlan:
    optimizer = {"name": "sgd", "params": {"momentum": 0.9}}
    raw = {"train": {"iterations": 120}, "network": {"name": "mlp"}, "optimizer": optimizer, "lr": golden["lr"]}
    config = parse_config(raw)
    sizes = Sizes.of(config.train, num_samples=1000, shards=3, batch_size=32)
    return amended_plan(config, sizes, read_amendments([Fields(one) for one in golden["amendments"]], 120))


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: "-".join(golden["lr"]["schedule"])[:12])
def test_a_plan_has_the_bits_that_it_always_had(golden):
    plan = plan_of(golden)
    assert [plan.lr(t).hex() for t in AT] == golden["rates"]
    assert [None if (value := plan.momentum(t)) is None else value.hex() for t in AT] == golden["momenta"]
    assert plan.breakpoints() == golden["breakpoints"]
    assert plan.fingerprint() == golden["fingerprint"]
    every = np.arange(121)
    assert plan.lrs(every).tolist() == [plan.lr(t) for t in range(121)]


def test_the_table_has_every_kind_of_amendment_and_warm_up():
    choices = {one["choice"] for golden in GOLDEN for one in golden["amendments"]}
    modes = {(golden["lr"].get("warmup") or {"mode": None}).get("mode", "prefix") for golden in GOLDEN}
    assert (choices, modes) == ({"rewind", "config", "checkpoint"}, {None, "prefix", "overlap"})
    assert {momentum is None for golden in GOLDEN for momentum in golden["momenta"]} == {True, False}
