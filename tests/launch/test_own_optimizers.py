"""Optimizers of the user's own, AdamW and rates by layer in runs: one digest on any ranks, resumed; and wrong ones."""

from __future__ import annotations

import json
import re

import mxnet as mx
import numpy as np
import pytest

OWN = "tests.programs.own_optimizers"
BASE = ("network={name: mlp, params: {hidden: [8, 8, 8]}}", "batch={size: 7, shards: 4}", "train={iterations: 12}")
FALLING = "lr={base: 0.1, schedule: {linear_cool_down: {schedule: 1x, start_idx: 0it, finish_lr: 0, length: 6it}}}"
CHOICES = {
    "adamw": ("optimizer={name: adamw, params: {wd: 0.1}}", "lr={schedule: 0.01}"),
    "own": (f"optimizer={{name: '{OWN}:Noisy', params: {{wd: 0.1}}, clip_value: 0.05}}",),
    "own, at a rate of 0": (f"optimizer={{name: '{OWN}:Dividing', params: {{}}}}", FALLING),
}


@pytest.fixture
def train(launch, tmp_path):
    def run(*settings, folder="runs", options=(), program="launch/train.py", **more):
        words = [word for setting in (*BASE, "threads_per_rank=1", *settings) for word in ("--set", setting)]
        return launch(program, *options, *words, "--set", f"output={tmp_path / folder}", **more)

    return run


def digest(done):
    return re.search(r"digest ([0-9a-f]{64})", done.stdout)[1]


@pytest.mark.parametrize("choice", CHOICES)
def test_one_digest_on_any_ranks_and_resumed(train, tmp_path, choice):
    settings = CHOICES[choice]
    expected = digest(train(*settings))
    begun = train(*settings, "checkpoint={every: 5it, keep: 5}", folder="resumed", np=2, launcher="horovodrun")
    assert digest(begun) == expected
    # interrupted after 5 updates under another number of ranks
    checkpoint = tmp_path / "resumed/digits/checkpoints/iteration-000000005"
    assert checkpoint.is_dir(), sorted(tmp_path.glob("resumed/digits/checkpoints/*"))
    resumed = train(*settings, "name=again", options=["--resume", str(checkpoint)])
    assert digest(resumed) == expected


def test_rates_by_layer_are_told_and_recorded(train, command, tmp_path):
    settings = (
        "optimizer={name: adamw, params: {}, lr_mult: {'*.bias': 2}}",
        "optimizer.layer_decay={rate: 0.5, layers: ['[0-2].*']}",
    )
    words = [word for setting in (*BASE, *settings) for word in ("--set", setting)]
    planned = command("plan", *words, "--output", tmp_path / "plans")
    assert "learning rate by name: x 2 for *.bias\n" in planned.out
    assert "learning rate by layer: x 0.5 for [0-2].*; x 1 for all others\n" in planned.out
    for more in (["--np", "1", "2"], ["--against", "configs/digits.yaml"]):
        assert "learning rate by layer: x 0.5" in command("plan", *words, *more, "--output", tmp_path / "plans").out
    done = train(*settings)
    assert "learning rates of parameters: x 0.5 to x 2, 4 groups by rate and decay" in done.stdout
    groups = json.loads((tmp_path / "runs/digits/plan.json").read_text())["factors"]
    assert [(group["lr"], group["count"]) for group in groups] == [(0.5, 3), (1.0, 3), (1.0, 1), (2.0, 1)]
    assert [group["wd"] for group in groups] == [1.0, 0.0, 1.0, 0.0]
    page = (tmp_path / "runs/digits/report.html").read_text()
    assert "<td>x 0.5</td><td>x 1</td><td>3: 0.weight, 1.weight, 2.weight</td>" in page


def test_a_step_is_as_long_as_its_layer_says(train, tmp_path):
    """After one update of SGD at two rates, the difference of which is that of the steps."""

    def moved(folder, *settings):
        ends = []
        for rate in (0.1, 0.2):
            once = ("train={iterations: 1}", f"lr={{schedule: {rate}}}", "optimizer={name: sgd, params: {}}")
            train(*once, *settings, folder=f"{folder}-{rate}")
            ends.append(mx.nd.load(str(tmp_path / f"{folder}-{rate}/digits/final.params")))
        return {name: (ends[1][name] - ends[0][name]).asnumpy() for name in ends[0]}

    plain, layered = moved("plain"), moved("layered", "optimizer.layer_decay={rate: 0.5, layers: ['0.*', '1.*']}")
    for name, factor in (("0.weight", 0.25), ("1.bias", 0.5), ("2.weight", 1.0), ("3.weight", 1.0)):
        assert np.abs(plain[name]).max() > 1e-4
        np.testing.assert_allclose(layered[name], factor * plain[name], rtol=1e-3, atol=1e-7)


def test_the_finder_puts_everything_back(train, tmp_path):
    """With factors on, and an optimizer that keeps numbers beside its arrays: it compares digests itself."""
    settings = (
        f"optimizer={{name: '{OWN}:Noisy', params: {{}}, layer_decay: {{rate: 0.5, layers: ['[0-2].*']}}}}",
        "finder={lr_start: 1e-3, lr_multiplier: 1.5, max_iterations: 30}",
    )
    train(*settings, program="launch/find_lr.py", options=["--output", str(tmp_path / "finder")], exit_code=None)
    assert len(json.loads((tmp_path / "finder/result.json").read_text())["proof"]["digest"]) == 64


@pytest.mark.parametrize("ranks", [None, pytest.param(2, marks=pytest.mark.thorough)])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            (f"optimizer={{name: '{OWN}:Bad', params: {{how: clock}}}}",),
            f"optimizer.name: '{OWN}:Bad': gives other bits from the same weights and gradients",
        ),
        (
            (f"optimizer={{name: '{OWN}:Bad', params: {{how: own rate}}, lr_mult: {{'1.*': 0.5}}}}",),
            f"optimizer.name: '{OWN}:Bad': does not follow the factors of lr_mult and layer_decay",
        ),
        (
            (f"optimizer={{name: '{OWN}:Bad', params: {{how: no clipping}}, clip_value: 0.5}}",),
            f"optimizer.name: '{OWN}:Bad': does not clip by self.clip_gradient",
        ),
        (
            (f"optimizer.name={OWN}:Lion", "lr.momentum=0.9"),
            f"lr.momentum: has no effect on '{OWN}:Lion' as configured",
        ),
        (("optimizer={name: adamw, params: {momentum: 0.9}}",), "'adamw' has no such parameter"),
        (
            ("optimizer.layer_decay={rate: 0.9, layers: ['cells.#.*']}",),
            "optimizer.layer_decay.layers: the pattern 'cells.#.*' (as in a shell; # is a number) matches no parameter",
        ),
    ],
    ids=["clock", "own rate", "no clipping", "momentum", "parameter", "layers"],
)
def test_a_wrong_one_is_one_message_before_training(train, tmp_path, settings, message, ranks):
    launched = {} if ranks is None else {"np": ranks, "launcher": "mpirun"}
    done = train(*settings, exit_code=2, **launched)
    text = done.stdout + done.stderr
    assert message in text
    assert text.count("error:") == 1
    assert "Traceback" not in text
    assert not list(tmp_path.glob("runs/digits/checkpoints/iteration-*"))


@pytest.mark.parametrize("ranks", [None, 2])
def test_one_that_raises_later_is_named_with_the_iteration(train, ranks):
    launched = {} if ranks is None else {"np": ranks, "launcher": "mpirun"}
    done = train(f"optimizer={{name: '{OWN}:Bad', params: {{how: raises later}}}}", exit_code=2, **launched)
    text = done.stdout + done.stderr
    assert "iteration 6: optimizer: Bad raised RuntimeError (the weights are on strike, at own_optimizers.py:" in text
    assert "Traceback" not in text


def test_one_that_ignores_the_rate_is_told(train):
    done = train(f"optimizer={{name: '{OWN}:Deaf', params: {{}}}}")
    assert "optimizer: Deaf steps alike at every learning rate but 0\n" in done.stdout


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optimizer.layer_decay={rate: 1, layers: [a]}", "optimizer.layer_decay.rate: found 1; must be below 1"),
        ("optimizer.layer_decay={rate: 0, layers: [a]}", "optimizer.layer_decay.rate: found 0; must be above 0"),
        ("optimizer.layer_decay={rate: 0.5}", "optimizer.layer_decay.layers: is missing"),
        (
            "optimizer.layer_decay={rate: 0.5, layers: a}",
            "optimizer.layer_decay.layers: found 'a'; must be a list of patterns from the input to the output, such as "
            "[embed.*, cells.#.*]",
        ),
        (
            "optimizer.layer_decay={rate: 0.5, layers: [a, 3]}",
            "optimizer.layer_decay.layers.1: found 3; must be a pattern (cells.#.*), or a list of those of one layer",
        ),
        (
            "optimizer.layer_decay={rate: 0.5, layers: [[a, 'b.#']]}",
            "optimizer.layer_decay.layers.0: found ['a', 'b.#']; patterns of one layer must have equally many #",
        ),
        ("optimizer.name=':Lion'", "optimizer.name: found ':Lion'; must be a name, or package.module:function"),
    ],
)
def test_settings_that_mean_nothing(command, tmp_path, setting, message):
    ended = command("plan", "--set", setting, "--output", tmp_path / "plans")
    assert ended.code == 2
    assert message in ended.err
