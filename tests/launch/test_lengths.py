"""Lengths in samples and tokens, and stretched ones, in runs: the bits of the same lengths in iterations."""

from __future__ import annotations

import json
import re

import pytest

HERE = "tests.programs.sequences"
BASE = (
    f"data={{name: '{HERE}:sentences', params: {{}}, scale: keep}}",
    f"network={{name: '{HERE}:tagger', loss: '{HERE}:mean_over_tokens'}}",
    "optimizer={name: sgd, params: {}}",
    "batch={size: 4, shards: 2}",
    "evaluation={every: 6it, metrics: []}",
    "threads_per_rank=1",
)  # 12 iterations of 8 samples, of 6 tokens each, are an epoch


def lr(warmup, length, more=""):
    schedule = f"{{poly: {{base_lr: 0.5, max_update: {length}}}}}"
    return f"lr={{warmup: {{length: {warmup}, start: 0.01}}, schedule: {schedule}{more}}}"


IN_ITERATIONS = lr("4it", "12it")
CHOICES = {
    "samples": (lr("32sa", "96sa"), "evaluation={every: 48sa, metrics: []}"),
    "tokens": (lr("192tok", "0.0576e4tok"), "train={iterations: 20, tokens_per_sample: 6}"),
    "stretched": (lr("16it", "4ep", ", stretch: 0.25"),),
}


@pytest.fixture
def train(launch, tmp_path):
    def run(*settings, folder="runs", **more):
        settings = ("train={iterations: 20}", *BASE, *settings)
        words = [word for setting in settings for word in ("--set", setting)]
        return launch("launch/train.py", *words, "--set", f"output={tmp_path / folder}", **more)

    return run


def digest(done):
    return re.search(r"digest ([0-9a-f]{64})", done.stdout)[1]


def test_all_are_the_same_run(train, tmp_path):
    expected = digest(train(IN_ITERATIONS))
    found = {name: digest(train(*settings, folder=name)) for name, settings in CHOICES.items()}
    assert found == dict.fromkeys(CHOICES, expected)
    lines = [json.loads(line) for line in (tmp_path / "samples/digits/metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines if "test" in json.dumps(line)] == [6, 12, 18, 20]
    assert digest(train(*CHOICES["tokens"], folder="two", np=2, launcher="mpirun")) == expected


@pytest.mark.parametrize("ranks", [None, 2])
@pytest.mark.parametrize(
    ("settings", "found", "said"),
    [
        (("train={iterations: 20, tokens_per_sample: 7}",), "48", "7 tokens are 56"),
        (
            ("train={iterations: 20, tokens_per_sample: 6}", "network.loss_params={ignored: 0}"),
            r"\d\d",
            "6 tokens are 48",
        ),
    ],
    ids=["another number", "weights of 0"],
)
def test_other_tokens_than_planned_end_the_run_with_one_message(train, ranks, settings, found, said):
    launched = {} if ranks is None else {"np": ranks, "launcher": "mpirun"}
    done = train(lr("192tok", "576tok"), *settings, exit_code=2, **launched)
    text = done.stdout + done.stderr
    message = (
        rf"train\.tokens_per_sample: iteration 1: the weights of the loss are {found}, but 8 samples of {said}; "
        rf"lengths "
        r"in tokens need a loss that gives every token a weight of 1, and samples of equal length; correct the "
        r"number, or "
        "write lengths as '500it' or '5ep'"
    )
    assert len(re.findall(message, text)) == 1, text
    assert "Traceback" not in text
