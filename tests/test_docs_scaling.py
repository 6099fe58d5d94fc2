"""The page of scaling says what the plan computes and what the command prints."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from harness.config import LRConfig, load_config
from harness.plan import LRPlan, Sizes
from harness.schedules import Frame

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/scaling.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"\$ python (launch/plan.py .*)\n((?:(?!```).*\n)*)", PAGE)


def table(heading: str) -> list[list[str]]:
    """The rows of the table whose first row begins so."""
    lines = PAGE[PAGE.index(f"| {heading} |") :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def plan_of(workers: int, **lr) -> LRPlan:
    config = load_config(ROOT / "configs/cifar10_resnet18.yaml")
    sizes = Sizes.of(config.train, num_samples=50_000, shards=workers, batch_size=config.batch.size)
    return LRPlan(LRConfig.model_validate(config.lr.model_dump() | lr), sizes)


def test_factors():
    rows = table("in the section `lr`")
    assert len(rows) == 4
    for section, factor, peak in rows:
        plan = plan_of(8, **yaml.safe_load(section.strip("`")))
        assert [f"{plan.factor:.6g}", f"{plan.peak:.6g}"] == [factor, peak]


def test_the_worked_example():
    rows = table("workers")
    assert [row[0] for row in rows] == ["1", "2", "4", "8"]
    for row in rows:
        plan = plan_of(int(row[0]))
        sizes = plan.sizes
        warmup = 3 * sizes.iterations_per_epoch
        ends = (0, warmup // 2, warmup, warmup + (sizes.num_iterations - warmup) // 2)
        counts = (sizes.global_batch, f"{plan.factor:g}", f"{plan.peak:g}", sizes.iterations_per_epoch, warmup)
        assert row[1:] == [*map(str, counts), *(f"{plan.lr(t):.4g}" for t in ends)]


def test_by_hand():
    plan = plan_of(8)
    numbers = map(float, re.findall(r"[\d.]+\b", PAGE[PAGE.index("By hand") :].split("\n\n")[0].replace(",", "")))
    assert set(numbers) == {
        *(8, 128, 1024, 50_000, 48, 848, 0.05, 0.4, 3, 2),
        *(144, plan.lr(144), 72, round(plan.lr(72), 4), 1296, 792, round(plan.lr(792), 4)),
    }
    assert plan.sizes.num_iterations - 144 == 1296
    assert 50_000 - 48 * plan.sizes.global_batch == 848


@pytest.mark.parametrize(("mode", "shift"), [("prefix", 144), ("overlap", 0)])
def test_the_warm_up_is_by_its_formula(mode, shift):
    plan = plan_of(8, warmup={"length": "3ep", "start": "unscaled", "mode": mode})
    frame = Frame(iterations_per_epoch=48, span=1440 - shift, x=0.4)
    schedule = plan.config.schedule.build(frame)
    end = schedule(144 - shift)
    for t in range(1441):
        expected = 0.05 + (end - 0.05) * t / 144 if t <= 144 else schedule(t - shift)
        assert plan.lr(t) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("typed", "shown"), COMMANDS, ids=["np", "against", "explain"])
def test_commands_print_what_is_shown(here, tmp_path, typed, shown):
    out = here(*shlex.split(typed), "--output", tmp_path / "plans").stdout
    assert out.replace(f"{tmp_path}/", "") == shown


def test_python_blocks_run():
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block, {})
