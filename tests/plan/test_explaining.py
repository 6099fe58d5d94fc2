"""Why the learning rate is what it is: every line of it, worked by hand."""

from __future__ import annotations

import pytest

from harness.config import LRConfig
from harness.data import Batching
from harness.plan import Cut, LRPlan, Sizes
from harness.plan.explaining import explain

SIZES = Sizes(Batching(num_samples=3200, shards=2, batch_size=16), num_iterations=1000)


def explained(t, cuts=(), earlier=(), **lr):
    return explain(LRPlan(LRConfig.model_validate(lr), SIZES, cuts=cuts, earlier=earlier), t)


def test_a_warm_up_and_what_comes_after_it():
    lr = {
        "base": 0.1,
        "warmup": {"length": "1ep"},
        "schedule": {"poly": {"base_lr": "1x", "max_update": "100%", "pwr": 1}},
    }
    head = "  1x: 0.1 at batch 16 x 2 shards (linear) = 0.2"
    assert explained(25, **lr) == [
        "iteration 25 of 1000 (epoch 0.25 of 10): learning rate 0.05",
        head,
        "  warm-up, iteration 25 of 100, from 0 to: 0.05",
        "    poly (base_lr 0.2, max_update 900, pwr 1, final_lr 0) at its iteration 0 of 900: 0.2",
    ]
    assert explained(550, **lr) == [
        "iteration 550 of 1000 (epoch 5.5 of 10): learning rate 0.1",
        head,
        "  after the warm-up of 100, which postpones the schedule: 0.1",
        "    poly (base_lr 0.2, max_update 900, pwr 1, final_lr 0) at its iteration 450 of 900: 0.1",
    ]


def test_what_changed_on_the_way():
    lr = {"schedule": 0.1}
    before = LRPlan(LRConfig.model_validate({"schedule": 0.4}), SIZES)
    assert explained(301, cuts=[Cut(300, 0.5)], earlier=[(200, before)], **lr)[2:] == [
        "  the plan that holds since iteration 200: 0.05",
        "    x 0.5 after iteration 300: 0.05",
        "      constant (lr 0.1) at its iteration 301: 0.1",
    ]
    assert explained(300, cuts=[Cut(300, 0.5)], **lr)[2] == "  not yet x 0.5 after iteration 300: 0.1"
    assert explained(200, earlier=[(200, before)], **lr)[2:] == [
        "  the plan that held until iteration 200: 0.4",
        "    constant (lr 0.4) at its iteration 200: 0.4",
    ]


def test_thousands_of_cuts_are_one_line():
    cuts = [Cut(100, 0.5), Cut(200, 0.5, 0.04), *(Cut(t, 0.999) for t in range(300, 900))]
    lines = explained(250, cuts=cuts, schedule=0.1)
    said = "x 0.5 after iteration 100, x 0.5 (at least 0.04) after iteration 200, not yet x 0.999 after iteration 300"
    assert lines[2].startswith(f"  {said}, ")
    assert lines[2].endswith("not yet x 0.999 after iteration 307, and 592 more: 0.04")
    assert lines[3] == "    constant (lr 0.1) at its iteration 250: 0.1"


@pytest.mark.parametrize(
    ("schedule", "t", "lines"),
    [
        (
            {"sequential": {"boundaries": ["2ep"], "schedules": [0.5, {"scaled": {"schedule": 0.1, "factor": 3}}]}},
            250,
            [
                "sequential, part 2 of 2, since 200: 0.3",
                "  scaled, 3 times: 0.3",
                "    constant (lr 0.1) at its iteration 50: 0.1",
            ],
        ),
        (
            {"triangular2": {"min_lr": 0.1, "max_lr": 0.5, "cycle_length": "1ep"}},
            250,
            [
                "cyclical, cycle 3, iteration 50 of its 100, 0.25 times as high above 0.1: 0.2",
                "  triangular (min_lr 0.1, max_lr 0.5, cycle_length 100, inc_fraction 0.5) at its iteration 50 of "
                "100: 0.5",
            ],
        ),
        (
            {"cool_down": {"schedule": 0.4, "start_idx": "1ep", "length": "1ep", "finish_fraction": 0.5}},
            150,
            ["cool-down, iteration 50 of 100, to 0.2 from: 0.3", "  constant (lr 0.4) at its iteration 100: 0.4"],
        ),
        (
            {"linear_cool_down": {"schedule": 0.4, "start_idx": "1ep", "length": "1ep", "finish_lr": 0}},
            50,
            ["before its cool-down, which begins after 100: 0.4", "  constant (lr 0.4) at its iteration 50: 0.4"],
        ),
        (
            {"multiplied": {"schedules": [0.4, {"raised": {"schedule": 0.5, "floor_lr": 0.25}}]}},
            7,
            [
                "the product of: 0.3",
                "  constant (lr 0.4) at its iteration 7: 0.4",
                "  raised, 0.25 plus: 0.75",
                "    constant (lr 0.5) at its iteration 7: 0.5",
            ],
        ),
        ({"maximum": {"schedules": [0.4, 0.5]}}, 7, ["the highest of: 0.5"]),
        ({"minimum": {"schedules": [0.4, 0.5]}}, 7, ["the lowest of: 0.4"]),
    ],
)
def test_the_terms_of_a_schedule(schedule, t, lines):
    assert explained(t, schedule=schedule)[2 : 2 + len(lines)] == [f"  {line}" for line in lines]


def test_noise_is_told_as_a_factor():
    line = explained(7, schedule={"noisy": {"schedule": 0.5, "noise": 0.3}})[2]
    factor = eval(line.partition("x ")[2].partition(":")[0])
    assert 0.5 * factor == pytest.approx(float(line.rpartition(": ")[2]), rel=1e-3)
    assert factor != 1


def test_momentum_and_stretch():
    triangle = {"triangular": {"min_lr": 0.1, "max_lr": 0.5, "cycle_length": "2ep"}}
    lines = explained(50, schedule=triangle, momentum={"opposite": {"high": 0.95, "low": 0.85}}, stretch=0.5)
    assert lines[2] == "  lengths: x 0.5 (lr.stretch)"
    assert lines[4:] == [
        "momentum 0.85",
        "  opposite, 0.95 - (0.95 - 0.85) times the height: 0.85",
        "    triangular (min_lr 0, max_lr 1, cycle_length 100, inc_fraction 0.5) at its iteration 50 of 100: 1",
    ]


def test_a_function_of_a_program_is_named():
    def third(t):
        return 0.1 / (1 + t)

    assert explained(9, schedule=third)[2:] == ["  third at its iteration 9: 0.01"]
