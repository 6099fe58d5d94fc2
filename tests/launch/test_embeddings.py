"""Embeddings with gradients by rows in runs: one digest on any ranks, resumed, found; and wrong uses."""

from __future__ import annotations

import json
import re

import pytest

HERE = "tests.programs.embeddings"
BASE = (
    "batch={size: 7, shards: 6}",
    "train={iterations: 12, last_batch: keep}",
    "evaluation={every: 6it, metrics: [mse]}",
    "threads_per_rank=1",
    f"data.name={HERE}:data",
)
NETS = {
    "factors": (f"network={{name: '{HERE}:factors', loss: l2}}", "optimizer={name: sgd, params: {momentum: 0.9}}"),
    "bag": (
        f"network={{name: '{HERE}:bag', loss: l2}}",
        "optimizer={name: adamw, params: {wd: 0.1}, clip_norm: 0.1}",
        "lr={schedule: 0.01}",
    ),
}


@pytest.fixture
def train(launch, tmp_path):
    def run(*settings, folder="runs", options=(), program="launch/train.py", **more):
        words = [word for setting in (*BASE, *settings) for word in ("--set", setting)]
        return launch(program, *options, *words, "--set", f"output={tmp_path / folder}", **more)

    return run


def digest(done):
    return re.search(r"digest ([0-9a-f]{64})", done.stdout)[1]


@pytest.mark.parametrize("net", NETS)
def test_one_digest_on_any_ranks_and_resumed(train, tmp_path, net):
    settings = NETS[net]
    alone = train(*settings)
    expected = digest(alone)
    by_horovod = train(*settings, "comm=horovod", folder="by-horovod", np=2, launcher="horovodrun")
    assert digest(by_horovod) == expected
    begun = train(*settings, "checkpoint={every: 5it, keep: 5}", folder="resumed", np=2, launcher="mpirun")
    assert digest(begun) == expected
    checkpoint = tmp_path / "resumed/digits/checkpoints/iteration-000000005"
    resumed = train(*settings, "name=again", options=["--resume", str(checkpoint)], np=3, launcher="mpirun")
    assert digest(resumed) == expected


@pytest.mark.parametrize("np", [None, 2])
def test_the_finder_leaves_rows_as_they_were(train, tmp_path, np):
    launched = {} if np is None else {"np": np, "launcher": "mpirun"}
    finder = "finder={lr_start: 1e-3, lr_multiplier: 1.5, max_iterations: 30}"
    options = ["--output", str(tmp_path / "finder")]
    train(*NETS["factors"], finder, program="launch/find_lr.py", options=options, exit_code=None, **launched)
    result = json.loads((tmp_path / "finder/result.json").read_text())
    assert len(result["proof"]["digest"]) == 64
    assert len(result["sweeps"][0]["points"]) > 10


WRONG = [
    (
        ("optimizer={name: lamb, params: {}}",),
        2,
        "optimizer.name: 'lamb': scales a step by norms of the whole weight",
    ),
    (("optimizer={name: adam, params: {lazy_update: false}}",), 2, "optimizer.name: 'adam': lazy_update is false"),
    (
        ("data.params={largest: 300}", "train={epochs: 1, last_batch: keep}"),
        3,
        "an embedding with sparse_grad was asked for a row that it does not have (user.weight has rows 0 to 299, "
        "item.weight has rows 0 to 299); give it more rows, or other ids",
    ),
]


@pytest.mark.parametrize(
    ("settings", "code", "message", "np"),
    [
        *((*one, None) for one in WRONG),
        # what is seen while training ends ranks in another way than what is seen before
        *(pytest.param(*one, 2, marks=() if one[1] == 3 else pytest.mark.thorough) for one in WRONG),
    ],
)
def test_wrong_uses_are_one_message(train, settings, code, message, np):
    launched = {} if np is None else {"np": np, "launcher": "mpirun"}
    done = train(*NETS["factors"], *settings, exit_code=code, **launched)
    text = done.stdout + done.stderr
    assert message in text
    assert "Traceback" not in text
