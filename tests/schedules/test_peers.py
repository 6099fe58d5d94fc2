"""Against the schedules of other packages: 5,000 updates each, with 20 random choices of settings.

`tests/golden/make.py` ran the packages and kept, for each choice, the values of some steps and two sums of all steps
with random signs, in which a step that differs shows. The bound is 1e-12 of the highest learning rate, 20 times that
for a sum, to which roundings of all steps add.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from harness.config import LRConfig
from harness.data import Batching
from harness.plan import LRPlan, Sizes
from harness.schedules import as_mx
from tests.golden.cases import CASES, SETTINGS, N, cases, sampled, signs
from tests.golden.make import our_values

GOLDEN = np.load(Path(__file__).parents[1] / "golden/schedules.npz")
SIZES = Sizes(Batching(num_samples=N, shards=1, batch_size=1), num_iterations=2 * N)
EXACT = 1e-12  # of the highest value
ROUNDED = {  # by packages that compute something on the way in float32
    "fastai.fit_one_cycle": 1e-6,  # where its phases end
    "keras.CosineDecayRestarts": 1e-6,  # many steps at once
    "keras.PolynomialDecay": 1e-6,
}


@pytest.mark.parametrize("name", CASES)
def test_equal_to_the_package(name):
    bound = ROUNDED.get(name, EXACT)
    for number, case in enumerate(cases(name)):
        for row, golden in zip(our_values(case), GOLDEN[name][number], strict=True):
            highest = float(row.max())
            at = sampled(name, number)
            assert golden[: len(at)] == pytest.approx(row[at], rel=0, abs=bound * highest), case.settings
            for sign, sum_ in zip(signs(name, number), golden[len(at) :], strict=True):
                ours = math.fsum(one * value for one, value in zip(sign, row.tolist(), strict=True))
                assert abs(ours - sum_) <= 20 * bound * highest, case.settings


@pytest.mark.parametrize("name", CASES)
def test_a_plan_has_the_bits_of_its_schedules_called_or_as_an_mx_lr_scheduler(name):
    case = cases(name)[0]
    plan = LRPlan(LRConfig.model_validate(case.lr), SIZES)
    steps = np.arange(case.first, N + case.first)
    rows = [plan.lrs(steps), plan.momenta(steps)] if case.momentum else [plan.lrs(steps)]
    assert [row.tolist() for row in rows] == our_values(case).tolist()
    scheduler = as_mx(plan.schedule)
    for number, t in enumerate(steps.tolist()[::7]):
        assert plan.lr(t) == scheduler(t) == rows[0][7 * number]
        assert not case.momentum or plan.momentum(t) == rows[1][7 * number]


def test_the_golden_file_has_every_schedule_and_says_who_gave_it():
    assert sorted(GOLDEN.files) == sorted([*CASES, "versions"])
    versions = json.loads(str(GOLDEN["versions"]))
    assert sorted(versions) == ["fastai", "keras", "mosaicml", "optax", "timm", "torch", "transformers"]
    assert {len(GOLDEN[name]) for name in CASES} == {SETTINGS}


@pytest.mark.parametrize("name", ["torch.OneCycleLR cos", "torch.ChainedScheduler", "timm.Scheduler normal noise"])
def test_a_step_that_differs_shows_in_the_sums(name):
    case = cases(name)[0]
    row = LRPlan(LRConfig.model_validate(case.lr), SIZES).lrs(np.arange(case.first, N + case.first))
    unseen = next(step for step in range(N) if step not in sampled(name, 0))
    row[unseen] *= 1 + 1e-9
    ours = math.fsum(one * value for one, value in zip(signs(name, 0)[0], row.tolist(), strict=True))
    golden = GOLDEN[name][0][0][len(sampled(name, 0))]
    assert abs(ours - golden) > 20 * EXACT * float(row.max())
