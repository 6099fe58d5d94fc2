"""The README's examples run, and its digest is what the first command prints."""

from __future__ import annotations

import re
from pathlib import Path

from harness.config import parse_config
from harness.config.reading import parse_yaml
from harness.plan import LRPlan, Sizes

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found
    return found


def test_python_blocks_run():
    for block in blocks("python"):
        exec(block, {})


def test_yaml_blocks_are_configurations_with_plans():
    for block in blocks("yaml"):
        config = parse_config(parse_yaml(block, "README.md"), "README.md")
        sizes = Sizes.of(config.train, num_samples=60_000, shards=4, batch_size=config.batch.size)
        plan = LRPlan(config.lr, sizes)
        assert plan.lr(0) == 0.05
        assert plan.lr(sizes.iterations_per_epoch) == 0.2
        assert plan.lr(sizes.num_iterations) == 0.0


def test_the_digest_in_the_readme_is_told_twice_and_each_command_exists():
    assert len(set(re.findall(r"digest ([0-9a-f]{64})", README))) == 1
    for command in re.findall(r"python (launch/\w+\.py)", README):
        assert (ROOT / command).is_file()
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


def test_the_mistakes_shown_are_told_as_shown(start):
    shown = re.search(r"\$ python (launch/train.py .*)\n((?:error: .*\n)(?:configs/.*\n)*)", README)
    out = start(*shown[1].split(), exit_code=2)
    assert out.stderr == shown[2]
