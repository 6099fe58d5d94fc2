"""Networks, losses, data and schedules of the user's own: good ones work, bad ones end with one message."""

from __future__ import annotations

import json
import re

import pytest

BASE = (
    "data.name=tests.programs.own:data",
    "network={name: mlp, params: {hidden: [8]}}",
    "batch.size=16",
    "train={iterations: 20}",
    "lr={base: 0.05, schedule: {constant: {lr: 1x}}}",
    "threads_per_rank=1",
)


@pytest.fixture
def train(launch, tmp_path):
    def run(*settings, options=(), **more):
        words = [word for setting in (*BASE, *settings) for word in ("--set", setting)]
        return launch("launch/train.py", *options, "--overwrite", *words, "--set", f"output={tmp_path}", **more)

    return run


@pytest.mark.parametrize(
    ("setting", "code", "parts"),
    [
        (
            "data.params={how: raises}",
            3,
            ["train: reading item 37 raised OSError: the disk is on strike (at ", "own.py:"],
        ),
        ("data.params={how: exits}", 3, ["train: reading item 37 raised SystemExit"]),
        ("data.params={how: class 9}", 3, ["the label of item 37 is 9, which is not in 0..3"]),
        (
            "network={name: 'tests.programs.own:two_outputs'}",
            2,
            [
                "compares one array of predictions with one of labels",
                "gives (float32 (2, 4), float32 (2, 4))",
                "F.concat",
            ],
        ),
        ("network={name: 'tests.programs.own:exits'}", 2, ["own code ended the process", "it must not"]),
        ("network={name: 'tests.programs.own:exits_at_once'}", 2, ["SystemExit"]),
        (
            "optimizer={name: adam, params: {beta1: 1.0}}",
            2,
            ["optimizer.params.beta1: found 1.0; must be a number of at least 0"],
        ),
        ("optimizer={name: adam, params: {beta1: big}}", 2, ["optimizer.params.beta1: found 'big'; must be a number"]),
        ("optimizer={name: ftrl, params: {lamda1: x}}", 2, ["optimizer.params.lamda1: found 'x'; must be a number"]),
        ("optimizer={name: ftrl, params: {beta: x}}", 2, ["'ftrl' cannot make an update with", "beta"]),
        ("lr={schedule: 1e38}", 6, ["iteration 1: its update made weights or optimizer state that are not finite"]),
        ("lr={schedule: {'tests.programs.own:no_schedule': {}}}", 2, ["5 is not a schedule, a callable"]),
        ("lr={schedule: {'tests.programs.own:hull': {}}}", 2, ["no such name in", "did you mean 'hill'?"]),
        ("lr.schedule={'tests.programs.own:hill': {peek: 1x, length: 5it}}", 2, ["did you mean 'peak'? it takes"]),
        ("lr={schedule: 'tests.programs.own:hill'}", 2, ["must be the key of a mapping of its parameters"]),
    ],
)
def test_bad_ones(train, tmp_path, setting, code, parts):
    more = ["train={iterations: 1}", "optimizer.name=sgd"] if code == 6 else []
    done = train(setting, *more, exit_code=code)
    for part in parts:
        assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error:") == 1
    assert not list(tmp_path.glob("digits/checkpoints/iteration-*"))


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("{'tests.programs.own:hill': {peak: 2x, length: 50%}}", [0.1 * min(t, 10) / 10 for t in range(1, 21)]),
        ("{scaled: {factor: 0.5, schedule: {'tests.programs.own:hill': {peak: 2x, length: 5it}}}}", None),
        ("{'tests.programs.own:of_mxnet': {peak: 1x}}", None),
    ],
)
def test_schedules(train, tmp_path, schedule, rates):
    train(f"lr.schedule={schedule}", "log.every=1it")
    lines = [json.loads(line) for line in (tmp_path / "digits/metrics.jsonl").read_text().splitlines()]
    found = [line["lr"] for line in lines if line["split"] == "train"]
    if rates is None:
        from harness.config import load_config
        from harness.plan import LRPlan, Sizes

        config = load_config("configs/digits.yaml", [*BASE, f"lr.schedule={schedule}"])
        plan = LRPlan(config.lr, Sizes.of(config.train, num_samples=200, shards=1, batch_size=16))
        rates = [plan.lr(t) for t in range(1, 21)]
    assert found == pytest.approx(rates, rel=1e-12)
    assert len(set(found)) > 4


@pytest.mark.parametrize(
    "setting",
    [
        "network.loss=tests.programs.own:noisy_loss",
        "network={name: 'tests.programs.own:unrolled'}",
        "network={name: 'tests.programs.own:numpy_noise'}",
    ],
)
def test_random_numbers_are_seeded_wherever_they_are_drawn(train, setting):
    digests = set()
    for how in ({"options": ["--emulate-np", "2"]}, {"np": 2, "launcher": "mpirun"}):
        out = train(setting, **how).stdout
        digests.add(re.search(r"digest ([0-9a-f]{64})", out)[1])
    assert len(digests) == 1


def test_a_failing_dataset_of_one_rank_ends_both(train):
    """Rank 0 may read item 37, rank 1 not: the other one is told that it waited for nobody."""
    done = train("data.params={how: raises}", np=2, exit_code=1)
    text = done.stdout + done.stderr
    assert "reading item 37 raised OSError" in text
    assert "<stderr>:Traceback" not in text
    assert "another rank left while this one waited in the collective" in text or "Exit code: 3" in text


@pytest.mark.parametrize("name", ["noisy", "of_rank"])
def test_a_schedule_that_is_no_function_of_the_iteration_is_refused_on_two_ranks(train, tmp_path, name):
    schedule = f"{{'tests.programs.own_schedules:{name}': {{lr: 0.1}}}}"
    done = train(f"lr={{schedule: {schedule}}}", np=2, launcher="mpirun", exit_code=2)
    text = done.stdout + done.stderr
    assert text.count("error:") == 1
    assert f"'tests.programs.own_schedules:{name}' g" in text
    assert "a schedule must be a function of the iteration alone" in text
    assert not (tmp_path / "digits").exists()


def test_it_is_refused_before_it_is_drawn(command, tmp_path):
    words = ["--set", "lr={schedule: {'tests.programs.own_schedules:counting': {lr: 0.1}}}"]
    ended = command("plan", "--output", tmp_path / "plans", *words)
    assert ended.code == 2
    assert ended.err.startswith(
        "error: configs/digits.yaml: lr.schedule: 'tests.programs.own_schedules:counting' gave 0."
    )
    assert list(tmp_path.iterdir()) == []
