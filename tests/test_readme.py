"""The README's examples run, and its digest is what the first command prints."""

from __future__ import annotations

import re
from pathlib import Path

from harness.config import parse_config
from harness.config.reading import parse_yaml
from harness.plan import LRPlan
from harness.sizes import Sizes

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
        if not block.startswith("data:"):
            block += (
                "data: {name: mnist}\ntrain: {epochs: 1}\nnetwork: {name: cnn}\nlr: {schedule: {constant: {lr: 0.1}}}\n"
            )
            assert parse_config(parse_yaml(block, "README.md"), "README.md").checkpoint.best == "accuracy"
            continue
        config = parse_config(parse_yaml(block, "README.md"), "README.md")
        sizes = Sizes.of(config.train, num_samples=60_000, shards=4, batch_size=config.batch.size)
        plan = LRPlan(config.lr, sizes)
        assert plan.lr(0) == 0.05
        assert plan.lr(sizes.iterations_per_epoch) == 0.2
        assert plan.lr(sizes.num_iterations) == 0.0


def test_the_digest_of_eight_ranks_is_told_twice_and_each_command_exists():
    trained, on_eight_ranks, on_one_process = re.findall(r"digest ([0-9a-f]{64})", README)
    assert on_eight_ranks == on_one_process != trained
    for command in re.findall(r"python (launch/\w+\.py)", README):
        assert (ROOT / command).is_file()
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


def test_the_mistakes_shown_are_told_as_shown(start):
    shown = re.search(r"\$ python (launch/train.py --set .*)\n((?:error: .*\n)(?:configs/.*\n)*)", README)
    out = start(*shown[1].split(), exit_code=2)
    assert out.stderr == shown[2]


def test_the_changed_plan_is_told_as_shown(start, tmp_path):
    shown = re.search(r"\$ python (launch/train.py --resume auto .*)\n((?:error: .*|  .*|go on .*|\n)*)", README)
    output = ["--set", f"output={tmp_path}/runs"]
    start("launch/train.py", "--emulate-np", "2", *output)
    out = start(*shown[1].split(), *output, exit_code=4)
    assert out.stderr.replace(f"{tmp_path}/", "").strip() == shown[2].strip()


def test_the_reader_in_the_format_reads(start, tmp_path):
    start("launch/train.py", "--set", f"output={tmp_path}", "--set", "train.epochs=1")
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs/checkpoint-format.md").read_text(), re.DOTALL)[1]
    names: dict = {}
    exec(code, names)
    (place,) = (tmp_path / "digits/checkpoints").glob("iteration-*")
    manifest, parameters, slots = names["read_set"](place)
    assert manifest["iteration"] == 44
    assert {name: array.shape for name, array in parameters.items()} == {
        "0.weight": (64, 64),
        "0.bias": (64,),
        "1.weight": (10, 64),
        "1.bias": (10,),
    }
    assert sorted(slots) == [f"{name}/0" for name in sorted(parameters)]
