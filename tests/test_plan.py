import csv
import io
import itertools
import math
import random

import numpy as np
import pytest

from harness.config import LRConfig, TrainConfig, parse_config
from harness.data import Batching, Order
from harness.errors import ConfigError
from harness.plan import LRPlan, Sizes, imbalance, resolve_shards
from harness.plan.lr_plan import MAX_CSV_ROWS
from harness.units import Duration

TRIANGLE = {"triangular": {"min_lr": 0, "max_lr": "1x", "cycle_length": "100%"}}
FLOAT32_MAX = 3.4028234663852886e38


def sizes_of(iterations=100, per_epoch=10, shards=1, batch_size=32):
    return Sizes(Batching(per_epoch * shards * batch_size, shards, batch_size), iterations)


def plan_of(schedule="1x", *, sizes=None, source="config", **lr):
    if "base" not in lr and "x" in repr(schedule).replace("max", "").replace("exp", ""):
        lr["base"] = 0.1
    return LRPlan(LRConfig(schedule=schedule, **lr), sizes or sizes_of(), source)


def refusal(schedule="1x", **arguments):
    with pytest.raises(ConfigError) as caught:
        plan_of(schedule, source="c.yaml", **arguments)
    return str(caught.value)


# Sizes


@pytest.mark.parametrize(
    ("samples", "shards", "batch_size", "last_batch", "per_epoch"),
    [
        (100, 1, 10, "drop", 10),
        (100, 1, 10, "keep", 10),
        (109, 1, 10, "drop", 10),
        (101, 1, 10, "keep", 11),
        (100, 4, 8, "drop", 3),
        (100, 4, 8, "keep", 4),
        (32, 4, 8, "drop", 1),
        (1437, 1, 32, "drop", 44),
        (60_000, 8, 64, "keep", 118),
    ],
)
def test_sizes(samples, shards, batch_size, last_batch, per_epoch):
    counts = {"num_samples": samples, "shards": shards, "batch_size": batch_size}
    by_epochs = Sizes.of(TrainConfig(epochs=3, last_batch=last_batch), **counts)
    assert (by_epochs.iterations_per_epoch, by_epochs.num_iterations) == (per_epoch, 3 * per_epoch)
    assert by_epochs.global_batch == shards * batch_size
    by_iterations = Sizes.of(TrainConfig(iterations=7, last_batch=last_batch), **counts)
    assert (by_iterations.iterations_per_epoch, by_iterations.num_iterations) == (per_epoch, 7)


def test_too_few_samples_for_one_global_batch():
    with pytest.raises(ConfigError) as caught:
        Sizes.of(TrainConfig(epochs=1, last_batch="keep"), num_samples=31, shards=4, batch_size=8, source="c.yaml")
    assert str(caught.value) == (
        "c.yaml: batch: a global batch is 4 shards x 8 = 32 samples, but there are only 31 training samples; lower "
        "batch.size, or use fewer shards or workers"
    )


def test_epochs_count_from_one():
    sizes = sizes_of(per_epoch=10)
    assert [sizes.epoch(t) for t in (1, 10, 11, 20, 21)] == [1, 1, 2, 2, 3]
    assert [sizes.iterations(Duration.parse(d)) for d in ("2ep", "5it", "10%", "0.25ep")] == [20, 5, 10, 3]


@pytest.mark.parametrize(
    ("written", "workers", "shards"), [(None, 1, 1), (None, 8, 8), (8, 2, 8), (8, 8, 8), (6, 3, 6)]
)
def test_shards_are_the_workers_unless_written(written, workers, shards):
    raw = {"train": {"epochs": 1}, "network": {"name": "mlp"}, "lr": {"schedule": 0.1}, "batch": {"shards": written}}
    assert resolve_shards(parse_config(raw), workers) == shards


@pytest.mark.parametrize(("shards", "workers", "most"), [(8, 9, "at most 8 workers"), (1, 4, "one worker")])
def test_every_worker_needs_a_shard(shards, workers, most):
    raw = {"train": {"epochs": 1}, "network": {"name": "mlp"}, "lr": {"schedule": 0.1}, "batch": {"shards": shards}}
    with pytest.raises(ConfigError) as caught:
        resolve_shards(parse_config(raw, "c.yaml"), workers)
    assert str(caught.value) == (
        f"c.yaml: batch.shards: {shards} shards are too few for {workers} workers, each of which processes at least "
        f"one; start {most}, or set batch.shards to {workers} or more"
    )


@pytest.mark.parametrize(
    ("shards", "workers", "ends"),
    [
        (8, 4, None),
        (8, 8, None),
        (6, 1, None),
        (8, 3, "the largest share, 3 shards, so workers compute 89% of the time"),
        (8, 5, "the largest share, 2 shards, so workers compute 80% of the time; 4 workers are as fast"),
        (9, 8, "the largest share, 2 shards, so workers compute 56% of the time; 5 workers are as fast"),
    ],
)
def test_shares_that_are_not_even_cost_time(shards, workers, ends):
    expected = [] if ends is None else [f"{shards} shards on {workers} workers: an update waits for {ends}"]
    assert imbalance(shards, workers) == expected


# scaling


@pytest.mark.parametrize(
    ("lr", "shards", "batch_size", "peak", "words"),
    [
        ({"base": 0.1}, 8, 64, 0.8, "0.1 at batch 64 x 8 shards (linear) = 0.8"),
        ({"base": 0.1}, 1, 64, 0.1, "0.1 at batch 64 x 1 shard (linear) = 0.1"),
        ({"base": 0.1, "scaling": "linear"}, 4, 64, 0.4, "0.1 at batch 64 x 4 shards (linear) = 0.4"),
        ({"base": 0.1, "scaling": "sqrt"}, 4, 64, 0.2, "0.1 at batch 64 x 4 shards (sqrt) = 0.2"),
        ({"base": 0.1, "scaling": "none"}, 4, 64, 0.1, "0.1 at batch 64 x 4 shards (not scaled)"),
        # Goyal et al. 2017: 0.1 for 256, so 3.2 for 8192 on 256 GPUs with 32 each
        (
            {"base": 0.1, "reference_batch": 256},
            256,
            32,
            3.2,
            "0.1 for a batch of 256, at batch 32 x 256 shards (linear) = 3.2",
        ),
        (
            {"base": 0.4, "reference_batch": 256, "scaling": "sqrt"},
            1,
            64,
            0.2,
            "0.4 for a batch of 256, at batch 64 x 1 shard (sqrt) = 0.2",
        ),
        ({"base": "auto"}, 8, 64, 1.0, "in units of the base that the finder will find at the global batch of 512"),
    ],
)
def test_scaling_and_its_words(lr, shards, batch_size, peak, words):
    plan = plan_of("1x", sizes=sizes_of(shards=shards, batch_size=batch_size), **lr)
    assert plan.lr(1) == pytest.approx(peak, rel=1e-15)
    assert plan.describe() == words
    assert plan.in_units_of_base == (lr["base"] == "auto")


def test_plain_rates_are_never_scaled():
    for shards in (1, 8):
        plan = plan_of(0.3, sizes=sizes_of(shards=shards))
        assert plan.lr(1) == 0.3
        assert plan.describe() == "as written (nothing is scaled)"
    mixed = plan_of({"cosine": {"min_lr": 0.001, "max_lr": "1x", "cycle_length": "100%"}}, sizes=sizes_of(shards=8))
    assert (mixed.lr(0), mixed.lr(100)) == (0.8, 0.001)
    warmed = plan_of(0.3, base=0.1, warmup={"length": "1ep", "start": "unscaled"}, sizes=sizes_of(shards=8))
    assert (warmed.lr(0), warmed.lr(10)) == (0.1, 0.3)
    assert warmed.describe() == "as written (nothing is scaled), warmed up from the base 0.1"


@pytest.mark.parametrize("schedule", [TRIANGLE, "0.3x", {"poly": {"base_lr": "1x", "max_update": "100%", "pwr": 1.5}}])
@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_linear_scaling_multiplies_every_rate_by_exactly_the_workers(schedule, workers):
    one, many = plan_of(schedule), plan_of(schedule, sizes=sizes_of(shards=workers))
    assert [many.lr(t) for t in range(101)] == [workers * one.lr(t) for t in range(101)]


# the schedule, worked by hand


def test_one_cycle_by_hand():
    cycle = {"start_lr": "0.1x", "max_lr": "1x", "cycle_length": "80%", "cooldown_length": "20%", "finish_lr": "0.01x"}
    plan = plan_of({"one_cycle": cycle}, base=1.0)
    by_hand = {0: 0.1, 1: 0.1225, 20: 0.55, 40: 1.0, 60: 0.55, 80: 0.1, 90: 0.055, 100: 0.01}
    assert {t: plan.lr(t) for t in by_hand} == pytest.approx(by_hand, rel=1e-14)
    assert plan.breakpoints() == [1, 40, 80, 100]


def test_steps_by_hand():
    plan = plan_of({"multi_factor": {"base_lr": "1x", "step": ["4ep", "7ep"], "factor": 0.1}}, base=0.5)
    by_hand = {1: 0.5, 40: 0.5, 41: 0.05, 70: 0.05, 71: 0.005, 100: 0.005}
    assert {t: plan.lr(t) for t in by_hand} == pytest.approx(by_hand, rel=1e-14)
    assert plan.breakpoints() == [1, 41, 71, 100]


# warm-up


@pytest.mark.parametrize(("start", "number"), [(0, 0.0), (0.05, 0.05), ("0.25x", 0.2), ("unscaled", 0.1), ("2x", 1.6)])
def test_prefix_warmup_is_a_line_to_the_schedules_start(start, number):
    cosine = {"cosine": {"min_lr": 0, "max_lr": "1x", "cycle_length": "100%"}}
    warmup = {"length": "2ep", "start": start}
    plan = plan_of(cosine, base=0.1, warmup=warmup, sizes=sizes_of(shards=8))
    assert plan.lr(0) == number
    assert plan.lr(20) == 0.8  # exact
    assert [plan.lr(t) for t in (5, 10, 15)] == pytest.approx([number + f * (0.8 - number) for f in (0.25, 0.5, 0.75)])
    for t in range(81):  # 100% is of the 80 iterations that remain
        assert plan.lr(20 + t) == pytest.approx(0.4 * (1 + math.cos(math.pi * t / 80)), rel=1e-13, abs=1e-16)
    assert plan.lr(100) == 0.0
    assert plan.breakpoints() == [1, 20, 100]


@pytest.mark.parametrize(("start", "number"), [(0, 0.0), (0.05, 0.05), ("0.25x", 0.2), ("unscaled", 0.1)])
def test_overlap_warmup_is_a_line_to_where_the_schedule_is_by_then(start, number):
    line = {"poly": {"base_lr": "1x", "max_update": "100%", "pwr": 1}}
    warmup = {"length": "20%", "start": start, "mode": "overlap"}
    plan = plan_of(line, base=0.1, warmup=warmup, sizes=sizes_of(shards=8))
    bare = plan_of(line, base=0.1, sizes=sizes_of(shards=8))
    assert plan.lr(0) == number
    assert plan.lr(10) == pytest.approx((number + 0.64) / 2)
    assert [plan.lr(t) for t in range(20, 101)] == [bare.lr(t) for t in range(20, 101)]
    assert plan.lr(20) == pytest.approx(0.64)
    assert plan.breakpoints() == [1, 20, 100]


@pytest.mark.parametrize("mode", ["prefix", "overlap"])
@pytest.mark.parametrize("length", ["1it", "7it", "33.3%", "99it"])
def test_warmup_ends_exactly_and_never_leaves_its_interval(mode, length):
    plan = plan_of(TRIANGLE, base=0.7, warmup={"length": length, "start": "0.3x", "mode": mode})
    end = {"1it": 1, "7it": 7, "33.3%": 33, "99it": 99}[length]
    bare = plan_of(TRIANGLE, base=0.7)
    goal = 0.0 if mode == "prefix" else bare.lr(end)
    assert plan.lr(end) == goal
    low, high = sorted((goal, plan.lr(0)))
    assert all(low <= plan.lr(t) <= high for t in range(end + 1))


@pytest.mark.parametrize(
    ("length", "message"),
    [
        (
            "11ep",
            "'11ep' (110 iterations) is longer than the run (100 iterations); shorten the warm-up or make the run ",
        ),
        (
            "100%",
            "'100%' (100 iterations) is as long as the run (100 iterations); shorten the warm-up or make the run ",
        ),
        ("99.9%", "'99.9%' (100 iterations) is as long as the run (100 iterations); shorten"),
        (
            "0.1%",
            "'0.1%' is less than half an iteration here (100 in the run); lengthen the warm-up or remove lr.warmup",
        ),
    ],
)
@pytest.mark.parametrize("mode", ["prefix", "overlap"])
def test_warmup_that_does_not_fit(length, message, mode):
    found = refusal(warmup={"length": length, "mode": mode})
    assert found.startswith(f"c.yaml: lr.warmup.length: {message}")
    assert "\n" not in found


def test_a_warmup_that_starts_beyond_all_numbers_names_its_start():
    found = refusal("1x", base=1e30, warmup={"length": "2it", "start": "1e300x"})
    assert found == "c.yaml: lr.warmup.start: must be a finite number >= 0, found inf"


def test_a_prefix_shifts_the_breakpoints_too():
    steps = {"multi_factor": {"base_lr": "1x", "step": ["40it", "60it"], "factor": 0.1}}
    plan = plan_of(steps, base=0.5, warmup={"length": "2ep"})
    assert plan.breakpoints() == [1, 20, 61, 81, 100]
    assert [plan.lr(t) for t in (60, 61, 80, 81)] == pytest.approx([0.5, 0.05, 0.05, 0.005])


# what does not fit the run


@pytest.mark.parametrize("warmup", [0, 30])
def test_the_schedule_may_end_with_the_run_and_not_one_iteration_later(warmup):
    settings = {"warmup": {"length": f"{warmup}it"}} if warmup else {}
    for length, fits in ((99 - warmup, True), (100 - warmup, True), (101 - warmup, False)):
        schedule = {"triangular": {"min_lr": 0, "max_lr": 1, "cycle_length": f"{length}it"}}
        if fits:
            plan_of(schedule, **settings)
        else:
            assert f"takes {length} iterations but the run has {length - 1}" in refusal(schedule, **settings)


def test_a_schedule_longer_than_the_run_names_where_it_would_end():
    assert refusal({"cosine": {"min_lr": 0.02, "max_lr": "1x", "cycle_length": "20ep"}}) == (
        "c.yaml: lr.schedule.cosine: takes 200 iterations but the run has 100; it would end at LR 0.06 instead of "
        "0.02; shorten the schedule or make the run longer (train)"
    )
    fits = plan_of({"cosine": {"min_lr": 0.02, "max_lr": "1x", "cycle_length": "10ep"}})
    assert fits.lr(100) == 0.02


def test_a_schedule_that_a_prefix_pushes_past_the_end():
    schedule = {"cosine": {"min_lr": 0, "max_lr": "1x", "cycle_length": "10ep"}}
    assert "takes 100 iterations but the run has 90 after its warm-up of 10; it would end at LR 0.00" in refusal(
        schedule, warmup={"length": "1ep"}
    )
    plan_of(schedule, warmup={"length": "1ep", "mode": "overlap"})


def test_with_auto_the_rate_is_told_in_x():
    assert "it would end at LR 0.5x instead of 0x;" in refusal(
        {"cosine": {"min_lr": 0, "max_lr": "1x", "cycle_length": "200%"}}, base="auto"
    )


@pytest.mark.parametrize(
    "schedule",
    [
        {"factor": {"base_lr": "1x", "step": "2ep", "factor": 0.5}},
        {"scaled": {"schedule": {"factor": {"base_lr": "1x", "step": "2ep", "factor": 0.5}}, "factor": 2}},
        {
            "linear_warm_up": {
                "schedule": {"factor": {"base_lr": 1, "step": "1ep", "factor": 0.5}},
                "start_lr": 0,
                "length": "1ep",
            }
        },
        {
            "sequential": {
                "schedules": [1, {"factor": {"base_lr": 1, "step": "1ep", "factor": 0.5}}],
                "boundaries": ["50%"],
            }
        },
        {"inverse_sqrt": {"base_lr": "1x", "timescale": "1ep"}},
    ],
)
def test_a_schedule_without_an_end_fits_any_run(schedule):
    assert plan_of(schedule).lr(100) > 1e-4  # the floor of `factor` is far away


@pytest.mark.parametrize(
    "schedule",
    [
        {"multi_factor": {"base_lr": 1, "step": ["20ep"], "factor": 0.5}},
        {
            "sequential": {
                "schedules": [1, {"factor": {"base_lr": 1, "step": "1ep", "factor": 0.5}}],
                "boundaries": ["11ep"],
            }
        },
        {"linear_warm_up": {"schedule": 1, "start_lr": 0, "length": "11ep"}},
        {"scaled": {"schedule": {"triangular": {"min_lr": 0, "max_lr": 1, "cycle_length": "11ep"}}, "factor": 2}},
    ],
)
def test_a_part_that_the_run_never_reaches_is_refused(schedule):
    assert "iterations but the run has 100; it would end at LR" in refusal(schedule)


def test_a_length_that_rounds_to_nothing_names_its_key():
    found = refusal({"triangular": {"min_lr": 0, "max_lr": 1, "cycle_length": "0.1%"}})
    assert found == "c.yaml: lr.schedule.triangular.cycle_length: must be an int >= 1, found 0 (written '0.1%')"


def test_all_that_does_not_fit_is_told_at_once():
    found = refusal(
        {"cosine": {"min_lr": 0, "max_lr": 1, "cycle_length": "20ep"}},
        warmup={"length": "20ep"},
        momentum={"triangular": {"min_lr": 0, "max_lr": 0.9, "cycle_length": "0.1%"}},
    )
    assert [line.split(": ")[1] for line in found.splitlines()] == [
        "lr.warmup.length",
        "lr.schedule.cosine",
        "lr.momentum.triangular.cycle_length",
    ]


# bounds


@pytest.mark.parametrize("base", [1e38, 3e38])
def test_a_base_that_overflows_is_refused(base):
    found = refusal("1x", base=base, sizes=sizes_of(shards=8))
    assert found.startswith(f"c.yaml: lr.base: {base:g} x factor 8 = ")
    assert found.endswith(" is not a valid learning rate: float32 holds 1.2e-38 to 3.4e+38; lower it")


def test_a_base_that_underflows_is_refused():
    found = refusal("1x", base=2e-38, reference_batch=1000, sizes=sizes_of(batch_size=1))
    assert found.endswith("= 2e-41 is not a valid learning rate: float32 holds 1.2e-38 to 3.4e+38; raise it")


@pytest.mark.parametrize(
    ("schedule", "t"),
    [
        (1e-60, 1),
        (1e-39, 1),
        ({"poly": {"base_lr": 0.1, "max_update": "100%", "pwr": 25}}, 97),
        ({"exponential": {"start_lr": 2, "finish_lr": 2e-60, "length": "100%"}}, 64),
        ({"scaled": {"schedule": 1e-30, "factor": 1e-30}}, 1),
    ],
)
def test_a_rate_that_is_too_small_for_float32_is_refused(schedule, t):
    found = refusal(schedule)
    assert f" at iteration {t}; float32, in which weights are updated, holds 0 and 1.2e-38 to 3.4e+38;" in found


def test_0_and_what_a_floor_keeps_up_are_not_too_small():
    cycles = {"schedule_class": "triangular", "cycle_length": "2it", "min_lr": 0, "max_lr": 1}
    assert "give the schedule a floor" in refusal(
        {"cyclical": {**cycles, "cycle_magnitude_decay": 0.01}}, sizes=sizes_of(iterations=99)
    )
    lower = {"cyclical": {**cycles, "cycle_magnitude_decay": 0.01, "floor_lr": 1e-9}}
    assert plan_of(lower, sizes=sizes_of(iterations=99)).lr(99) == 1e-9
    assert plan_of({"poly": {"base_lr": 0.1, "max_update": "100%"}}).lr(100) == 0


def test_a_rate_that_no_float32_holds_is_refused():
    spike = {"sequential": {"schedules": [0.1, 1e39, 0.1], "boundaries": ["50it", "51it"]}}
    assert refusal(spike) == (
        "c.yaml: lr: the learning rate is 1e+39 at iteration 50; it must be at least 0 and a float32 (at most 3.4e+38)"
    )
    assert "iteration 1; it must be" in refusal({"scaled": {"schedule": 1e300, "factor": 1e300}})
    assert "lr.schedule.constant.lr: must be a finite number" in refusal("1e300x", base=1e20)
    assert "iteration 1; it must be" in refusal("1x", base=1e30, warmup={"length": "2it", "start": "1e200x"})
    assert plan_of(FLOAT32_MAX).lr(1) == FLOAT32_MAX


def test_momentum_outside_its_bounds_is_found_wherever_it_is():
    ending = "; it must be 0, or at least 1.2e-38 and below 1 (in float32)"
    assert refusal(0.1, momentum=1.0) == f"c.yaml: lr.momentum: is 1 at iteration 1{ending}"
    spike = {"sequential": {"schedules": [0.9, 1.5, 0.9], "boundaries": ["5001it", "5002it"]}}
    found = refusal(0.1, momentum=spike, sizes=sizes_of(1_000_000))
    assert found == f"c.yaml: lr.momentum: is 1.5 at iteration 5001{ending}"
    # a climb over 400,000 iterations that only the last of them, before a jump down, takes past 1
    climb = {"linear_warm_up": {"schedule": 1.000003, "start_lr": 0, "length": "400000it"}}
    jump = {"sequential": {"schedules": [climb, 0.5], "boundaries": ["400000it"]}}
    found = refusal(0.1, momentum=jump, sizes=sizes_of(1_000_000))
    assert found == f"c.yaml: lr.momentum: is 1.0000005 at iteration 399999{ending}"
    for fine in (0.0, 0.9999999, {"one_cycle": {"start_lr": 0.95, "max_lr": 0.85, "cycle_length": "100%"}}):
        plan_of(0.1, momentum=fine)


def test_many_momenta_are_those_of_single_calls():
    cycle = {"one_cycle": {"start_lr": 0.95, "max_lr": 0.85, "cycle_length": "100%"}}
    t = np.arange(1, 101)
    with_schedule, without = plan_of(momentum=cycle), plan_of()
    assert with_schedule.momenta(t).tolist() == [with_schedule.momentum(i) for i in range(1, 101)]
    assert np.isnan(without.momenta(t)).all()
    changed = LRPlan(with_schedule.config, with_schedule.sizes, earlier=[(30, without)])
    assert np.isnan(changed.momenta(t)[:30]).all()
    assert changed.momenta(t)[30:].tolist() == with_schedule.momenta(t)[30:].tolist()


def test_momentum_has_a_schedule_of_its_own_and_is_never_scaled():
    cycle = {"one_cycle": {"start_lr": 0.95, "max_lr": 0.85, "cycle_length": "100%"}}
    plan = plan_of(momentum=cycle, warmup={"length": "2ep"}, sizes=sizes_of(shards=8))
    assert [plan.momentum(t) for t in (0, 25, 50, 75, 100)] == pytest.approx([0.95, 0.9, 0.85, 0.9, 0.95])
    assert plan.breakpoints() == [1, 20, 50, 100]  # % of the momentum's is of the whole run
    assert plan_of().momentum(5) is None
    assert refusal(0.1, momentum={"triangular": {"min_lr": 0, "max_lr": 0.9, "cycle_length": "11ep"}}) == (
        "c.yaml: lr.momentum.triangular: takes 110 iterations but the run has 100; it would end at momentum 0.163636 "
        "instead of 0; shorten the schedule or make the run longer (train)"
    )


@pytest.mark.parametrize(
    "schedule",
    [
        TRIANGLE,
        {"cosine": {"min_lr": "0.01x", "max_lr": "1x", "cycle_length": "100%"}},
        {"poly": {"base_lr": "1x", "max_update": "100%", "pwr": 3}},
        {"exponential": {"start_lr": "1x", "finish_lr": "1e-9x", "length": "100%"}},
        {"cyclical": {"schedule_class": "triangular", "cycle_length": "3it", "min_lr": 0, "max_lr": "1x"}},
        {
            "warmup_stable_decay": {
                "peak_lr": "1x",
                "warmup_length": "10%",
                "stable_length": "50%",
                "decay_length": "40%",
            }
        },
    ],
)
@pytest.mark.parametrize("mode", [None, "prefix", "overlap"])
@pytest.mark.parametrize("base", [1e-20, 0.1, 1e30])
def test_every_rate_is_finite_and_not_negative_and_within_the_peak(schedule, mode, base):
    warmup = {"length": "7it", "start": "0.5x", "mode": mode} if mode else None
    plan = plan_of(schedule, base=base, warmup=warmup, sizes=sizes_of(97, shards=3))
    rates = [plan.lr(t) for t in range(98)]
    assert all(math.isfinite(rate) and 0 <= rate <= plan.peak for rate in rates)
    assert max(rates) > 0


# what a plan gives


def _rich(iterations=1000, **changes):
    schedule = {"cyclical": {"schedule_class": "triangular", "cycle_length": "50it", "min_lr": "0.1x", "max_lr": "1x"}}
    warmup = {"length": "30it", "start": "unscaled", "mode": "overlap"}
    momentum = {"one_cycle": {"start_lr": 0.95, "max_lr": 0.85, "cycle_length": "100%"}}
    settings = {"schedule": schedule, "base": 0.1, "warmup": warmup, "momentum": momentum} | changes
    return LRPlan(LRConfig(**settings), sizes_of(iterations, per_epoch=33, shards=4))


def test_the_order_of_questions_makes_no_difference():
    plan, fresh = _rich(), _rich()
    expected = [(fresh.lr(t), fresh.momentum(t)) for t in range(1001)]
    order = list(range(1001))
    random.Random(3).shuffle(order)
    assert {t: (plan.lr(t), plan.momentum(t)) for t in order} == dict(enumerate(expected))
    assert [(_rich().lr(t), _rich().momentum(t)) for t in (1000, 10)] == [expected[1000], expected[10]]


@pytest.mark.parametrize("iterations", [1, 2, 99, MAX_CSV_ROWS, MAX_CSV_ROWS + 1, 1_000_003])
def test_rows_are_few_and_hold_what_matters(iterations):
    plan = plan_of(
        {"multi_factor": {"base_lr": 1, "step": ["1it"], "factor": 0.5}} if iterations > 2 else 1,
        sizes=sizes_of(iterations),
    )
    rows = list(plan.rows())
    assert rows == sorted(set(rows))
    assert (rows[0], rows[-1]) == (1, iterations)
    assert set(plan.breakpoints()) <= set(rows)
    assert len(rows) == iterations if iterations <= MAX_CSV_ROWS else 9_990 <= len(rows) <= MAX_CSV_ROWS
    gaps = [later - earlier for earlier, later in itertools.pairwise(rows)]
    assert max(gaps, default=1) <= (1 if iterations <= MAX_CSV_ROWS else max(2, iterations // 9_000))


@pytest.mark.parametrize("cycle", [1, 2, 70, 1000])
def test_rows_stay_few_with_very_many_breakpoints(cycle):
    schedule = {"cyclical": {"schedule_class": "triangular", "cycle_length": f"{cycle}it", "min_lr": 0, "max_lr": 1}}
    plan = plan_of(schedule, sizes=sizes_of(100_000))
    rows, points = list(plan.rows()), plan.breakpoints()
    assert len(rows) <= MAX_CSV_ROWS
    assert (rows[0], rows[-1]) == (1, 100_000)
    assert rows == sorted(set(rows))
    assert set(points) <= set(rows) or len(points) > MAX_CSV_ROWS // 2


def test_breakpoints_lie_in_the_run_and_hold_its_ends():
    points = _rich().breakpoints()
    assert points == sorted(set(points))
    assert (points[0], points[-1]) == (1, 1000)
    assert {25, 30, 50, 75, 500} <= set(points)
    assert plan_of(0.1, sizes=sizes_of(1)).breakpoints() == [1]


def test_csv_gives_back_exactly_what_the_plan_says():
    for plan in (_rich(), _rich(20_000), plan_of()):
        lines = list(csv.DictReader(io.StringIO(plan.to_csv())))
        assert list(lines[0]) == ["iteration", "epoch", "lr", "momentum"]
        assert [int(line["iteration"]) for line in lines] == list(plan.rows())
        for line in lines:
            t = int(line["iteration"])
            assert float(line["lr"]) == plan.lr(t)
            assert int(line["epoch"]) == plan.sizes.epoch(t)
            assert (float(line["momentum"]) if line["momentum"] else None) == plan.momentum(t)


def test_fingerprints_of_equal_plans_are_equal():
    assert _rich().fingerprint() == _rich().fingerprint()
    assert plan_of("2x", base=0.1).fingerprint() == plan_of("1x", base=0.2).fingerprint() == plan_of(0.2).fingerprint()


@pytest.mark.parametrize(
    "changes",
    [
        {"base": 0.1000001},
        {"scaling": "sqrt"},
        {"reference_batch": 31},
        {"warmup": None},
        {"warmup": {"length": "30it", "start": "unscaled", "mode": "prefix"}},
        {"momentum": None},
        {"momentum": 0.9},
        {"iterations": 1001},
    ],
)
def test_fingerprints_of_different_plans_differ(changes):
    assert _rich(**changes).fingerprint() != _rich().fingerprint()


def test_fingerprint_sees_the_sizes():
    assert plan_of(0.1).fingerprint() != plan_of(0.1, sizes=sizes_of(shards=2)).fingerprint()


@pytest.mark.parametrize("last_batch", ["drop", "keep"])
@pytest.mark.parametrize(("samples", "shards", "size"), [(1437, 2, 32), (1437, 8, 32), (64, 4, 16), (65, 4, 16)])
def test_sizes_and_the_order_of_samples_count_alike(samples, shards, size, last_batch):
    train = TrainConfig(epochs=3, last_batch=last_batch)
    sizes = Sizes.of(train, num_samples=samples, shards=shards, batch_size=size)
    order = Order(samples, shards, size, seed=0, last_batch=last_batch)
    assert sizes.iterations_per_epoch == order.iterations_per_epoch
    for t in (1, sizes.iterations_per_epoch, sizes.iterations_per_epoch + 1, sizes.num_iterations):
        assert sizes.epoch(t) == order.epoch(t)
    assert sum(order.global_count(t) for t in range(1, sizes.iterations_per_epoch + 1)) == (
        samples if last_batch == "keep" else samples - samples % (shards * size)
    )


def test_a_plan_remembers_what_held_before_it_was_changed():
    old = plan_of("1x", base=0.1)
    new = LRPlan(LRConfig.model_validate({"base": 0.4, "schedule": TRIANGLE}), old.sizes, earlier=[(30, old)])
    assert [new.lr(t) for t in (1, 30)] == [0.1, 0.1]
    assert new.lr(50) == 0.4
    assert {30, 31, 50} <= set(new.breakpoints())
    assert new.fingerprint() != old.fingerprint()
    again = LRPlan(LRConfig.model_validate({"schedule": 0.7}), old.sizes, earlier=[(30, old), (60, new)])
    assert [again.lr(t) for t in (30, 50, 60, 61)] == [0.1, 0.4, new.lr(60), 0.7]


def test_a_run_that_ends_on_the_first_update_of_a_cycle_is_remarked_on():
    saw = {"cyclical": {"schedule_class": "cosine", "cycle_length": "50%", "min_lr": 0, "max_lr": "1x"}}
    (remark,) = plan_of(saw, base=0.1).remarks()
    assert "the last update, 100, starts a new cycle: its learning rate is 0.1, after 9.8" in remark
    assert plan_of("1x", base=0.1).remarks() == []


# sizes that memory does not hold

DROPS = {"factor": {"base_lr": 0.1, "step": "2it", "factor": 1}}
LATE = {"boundaries": ["50%"], "schedules": [0.1, {"scaled": {"factor": 2, "schedule": DROPS}}]}


def test_more_iterations_than_can_be_counted_are_refused():
    with pytest.raises(ConfigError) as caught:
        Sizes.of(TrainConfig(epochs=10**9), num_samples=1437, shards=1, batch_size=32, source="c.yaml")
    assert str(caught.value) == (
        "c.yaml: train.epochs: 1000000000 epochs of 44 iterations are 44,000,000,000 iterations; at most 1,000,000,000 "
        "are possible; lower train.epochs"
    )


@pytest.mark.parametrize(
    "schedule",
    [
        {"factor": {"base_lr": 0.1, "step": "1it", "factor": 1.0}},
        {"factor": {"base_lr": 0.1, "step": "1it", "factor": 0.9999999999, "stop_factor_lr": 0}},
        {"cyclical": {"schedule_class": "triangular", "cycle_length": "2it", "min_lr": 0.1, "max_lr": 1}},
        {"linear_warm_up": {"start_lr": 0, "length": "10it", "schedule": {"sequential": LATE}}},
    ],
)
def test_a_billion_breakpoints_are_not_held(schedule):
    plan = plan_of(schedule, sizes=sizes_of(iterations=10**9))
    assert len(plan.breakpoints()) < 10
    assert len(list(plan.rows())) <= MAX_CSV_ROWS
