"""Schedules that others have published, written in YAML, against their own formulas."""

import math

import pytest

from harness.config import LRConfig
from harness.data import Batching
from harness.plan import LRPlan, Sizes

N, PER_EPOCH = 1200, 100


def rates(section: str, total: int = N) -> list[float]:
    """The learning rates of the updates 1 to `total`, by the section `lr` of a configuration."""
    import yaml

    sizes = Sizes(Batching(num_samples=32 * PER_EPOCH, shards=1, batch_size=32), num_iterations=total)
    plan = LRPlan(LRConfig.model_validate(yaml.safe_load(section)), sizes)
    return [plan.lr(t) for t in range(1, total + 1)]


def cycle_of_torch(step: int, up: int, down: int) -> tuple[int, float]:
    """The cycle, from 0, and the height in it, 0 to 1, of PyTorch's CyclicLR."""
    cycle, rest = divmod(step, up + down)
    return cycle, rest / up if rest <= up else (up + down - rest) / down


def after_first(schedule: str) -> str:
    """A schedule whose 0 is the first update: how PyTorch counts."""
    return f"{{schedule: {{sequential: {{boundaries: [1it], schedules: [0, {schedule}]}}}}}}"


def triangular2(step: int) -> float:
    cycle, height = cycle_of_torch(step, 5, 5)
    return 5e-5 + 5e-5 * height * 2.0**-cycle


def exp_range(step: int) -> float:
    return 0.01 + 0.09 * cycle_of_torch(step, 40, 60)[1] * 0.9994**step


def restarts(step: int, t_0: int = 100, t_mult: int = 2, low: float = 1e-3, high: float = 0.1) -> float:
    while step >= t_0:
        step, t_0 = step - t_0, t_0 * t_mult
    return low + (high - low) * (1 + math.cos(math.pi * step / t_0)) / 2


def lower_restarts(step: int) -> float:
    cycle, rest = divmod(step, 100)
    return 0.01 + 0.09 * 0.7**cycle * (1 + math.cos(math.pi * rest / 100)) / 2


def gpt3(step: int) -> float:
    """A line over 120 updates, a cosine down to a tenth over 780, then a tenth."""
    if step <= 120:
        return 6e-4 * step / 120
    part = min((step - 120) / 780, 1)
    return 6e-5 + (6e-4 - 6e-5) * (1 + math.cos(math.pi * part)) / 2


def noam(step: int, width: int = 512, warmup: int = 400) -> float:
    return width**-0.5 * min(step**-0.5, step * warmup**-1.5)


def polynomial(step: int) -> float:
    """Of Hugging Face, with warm-up and an end: power 2."""
    return 0.1 * step / 100 if step < 100 else 1e-4 + (0.1 - 1e-4) * (1 - (step - 100) / (N - 100)) ** 2


def steps_after_warmup(step: int) -> float:
    """Of torchvision's detection references: from a thousandth, then two drops."""
    factor = 0.001 + 0.999 * step / 200 if step < 200 else 1.0
    return 0.02 * factor * 0.1 ** ((step >= 800) + (step >= 1100))


@pytest.mark.parametrize(
    ("formula", "section", "first"),
    [
        (
            triangular2,
            after_first(
                "{cyclical: {schedule_class: triangular, cycle_length: 10it, min_lr: 5.0e-5, max_lr: 1.0e-4, "
                "cycle_magnitude_decay: 0.5, floor_lr: 5.0e-5}}"
            ),
            0,
        ),
        (
            lambda step: 0.01 + 0.09 * cycle_of_torch(step, 30, 70)[1],
            after_first(
                "{cyclical: {schedule_class: triangular, cycle_length: 1ep, min_lr: 0.01, max_lr: 0.1, "
                "inc_fraction: 0.3}}"
            ),
            0,
        ),
        (
            exp_range,
            after_first(
                "{cyclical: {schedule_class: triangular, cycle_length: 100it, min_lr: 0.01, max_lr: 0.1, "
                "inc_fraction: 0.4, floor_lr: 0.01, iteration_magnitude_decay: 0.9994}}"
            ),
            0,
        ),
        (
            restarts,
            after_first(
                "{cyclical: {schedule_class: cosine, cycle_length: 1ep, cycle_length_decay: 2, min_lr: 0.001, "
                "max_lr: 0.1}}"
            ),
            0,
        ),
        (
            lower_restarts,
            after_first(
                "{cyclical: {schedule_class: cosine, cycle_length: 1ep, cycle_magnitude_decay: 0.7, floor_lr: 0.01, "
                "min_lr: 0.01, max_lr: 0.1}}"
            ),
            0,
        ),
        (
            gpt3,
            "{base: 6.0e-4, warmup: {length: 10%}, "
            "schedule: {cosine: {max_lr: 1x, min_lr: 0.1x, cycle_length: 780it}}}",
            1,
        ),
        (
            noam,
            "{warmup: {length: 400it, mode: overlap}, "
            f"schedule: {{inverse_sqrt: {{base_lr: {(512 * 400) ** -0.5!r}, timescale: 400it}}}}}}",
            1,
        ),
        (
            polynomial,
            "{schedule: {linear_warm_up: {start_lr: 0, length: 1ep, schedule: "
            "{poly: {base_lr: 0.1, final_lr: 0.0001, max_update: 11ep, pwr: 2}}}}}",
            1,
        ),
        (
            steps_after_warmup,
            "{base: 0.02, warmup: {length: 2ep, start: 0.001x, mode: overlap}, "
            "schedule: {multi_factor: {base_lr: 1x, step: [799it, 1099it], factor: 0.1}}}",
            1,
        ),
        (
            lambda step: 0.01 + 0.09 * 0.5 ** (step // 100),
            "{schedule: {raised: {floor_lr: 0.01, schedule: {factor: {base_lr: 0.09, step: 1ep, factor: 0.5}}}}}",
            0,
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_equal_to_its_formula(formula, section, first):
    """`first` is the formula's step of update 1."""
    assert rates(section) == pytest.approx([formula(step) for step in range(first, N + first)], rel=1e-12, abs=1e-15)


def test_the_floor_of_triangular2_stays_for_7003_cycles():
    total = 70_030
    section = (
        "{schedule: {cyclical: {schedule_class: triangular, cycle_length: 10it, min_lr: 5.0e-5, max_lr: 1.0e-4, "
        "cycle_magnitude_decay: 0.5, floor_lr: 5.0e-5}}}"
    )
    found = rates(section, total)
    assert found[9::10] == [5e-5] * 7003
    assert min(found) == 5e-5
    assert found[14] == pytest.approx(7.5e-5, rel=1e-14)
    assert found == pytest.approx([triangular2(t) for t in range(1, total + 1)], rel=1e-12)


def test_without_a_floor_everything_shrinks_as_it_did():
    """Configurations that were written before there was a floor keep their meaning."""
    section = (
        "{schedule: {cyclical: {schedule_class: triangular, cycle_length: 10it, min_lr: 1.0, max_lr: 2.0, "
        "cycle_magnitude_decay: 0.5}}}"
    )
    assert rates(section, 30)[9:20:5] == [0.5, 1.0, 0.25]
