"""Configurations with random values in random keys: one message or a plan, and what has a plan also trains.

By default a small sample; `HARNESS_THOROUGH=1` tries 500. The same ones every time.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from harness.config.schema import reference
from tests.conftest import THOROUGH

ROOT = Path(__file__).parents[2]
NUM_PLANS, NUM_RUNS = (500, 500) if THOROUGH else (60, 6)
LONGEST_S = 30
KEYS = re.findall(r"^\| `([a-z_.]+)` \|", reference(), re.MULTILINE)
VALUES = (
    *("null", "true", "false", "-1", "-0.5", "0", "1", "2", "7", "0.25", "1e30", "1e300", "1e-60", "9" * 20, "9" * 400),
    *(
        ".nan",
        ".inf",
        "-.inf",
        "''",
        "' '",
        "[]",
        "{}",
        "[null]",
        "text",
        "1x",
        "0.1x",
        "5ep",
        "3it",
        "100%",
        "1e400ep",
    ),
    *("'ключ'", "'名前:関数'", '"\\u202e\\u0007"', "'../x'", "'a b'", "/", "os:getcwd", "json:loads"),
    *("no.module:name", "x" * 5000, "[[[[1]]]]", "{a: {b: {c: [1, {d: 2}]}}}", "[1, 2, 3]", "{a: 1}", "{1: 2}"),
    *("[a, a]", "{cosine: {}}", "{xavier: {magnitude: -1}}", "{os:getcwd: {}}", "accuracy", "loss", "adam", "cpu(0)"),
    *("[cpu(0)]", "[cpu(0), cpu(1)]", "2000-01-01", "!!python/object:os.system x", "&a [*a]", "'", "[1", "a: b: c"),
)
NUMBERS = ("1", "2", "7", "1000000000")
FITTING = {  # what a key may well be, and what is just allowed
    "name": ("a", "A.b_c-1", "9"),
    "output": ("runs2", "'a b'", "'ключ'"),
    "seed": ("0", "1", "2147483647"),
    "comm": ("auto", "single"),
    "device": ("auto", "cpu"),
    "threads_per_rank": ("1", "1024"),
    "data.name": ("digits", "mnist", "npy", "tests.programs.own:data"),
    "data.validation": ("0", "1", "100", "0.5", "0.999"),
    "data.augment.pad_crop": ("1", "100", "1000000000"),
    "data.augment.flip": ("true",),
    "data.augment.mean": ("[0.5]", "[3.4e38]", "[-1]"),
    "data.augment.std": ("[0.5]", "[1e-30]", "[3.4e38]"),
    "batch.size": ("1", "7", "1437", "1000000000"),
    "batch.shards": NUMBERS,
    "train.epochs": ("1", "2", "1000000000"),
    "train.last_batch": ("keep",),
    "evaluation.every": ("1it", "0.5ep", "100%", "999999999999it", "null"),
    "evaluation.metrics": ("[]", "[mae]", "[accuracy, accuracy]", "[top_5_accuracy, rmse]", "[os:getcwd]"),
    "network.name": ("mlp", "lenet", "mnist_cnn", "resnet18_v1", "tests.programs.own:exits_at_once"),
    "network.params": ("{}", "{hidden: [1]}", "{hidden: []}", "{dropout: 0.9}", "{dropout: 7}", "{hidden: [0]}"),
    "network.initializer": (
        "zero",
        "normal",
        "{normal: {sigma: 1e30}}",
        "bilinear",
        "orthogonal",
        "{constant: {value: x}}",
    ),
    "network.loss": ("l2", "hinge", "poisson_nll", "huber"),
    "network.loss_params": ("{weight: 2}", "{weight: 1e30}", "{axis: 5}", "{weight: x}"),
    "network.hybridize": ("false",),
    "optimizer.name": ("adam", "nag", "ftml", "lamb", "rmsprop", "SGD", "dcasgd", "signum"),
    "optimizer.params": ("{}", "{momentum: 0.999}", "{wd: 3.4e38}", "{wd: 1e-30}", "{momentum: 0, lazy_update: false}"),
    "optimizer.lr_mult": ("{}", "{'.*': 0}", "{'.*': 3.4e38}", "{x: 2}", "{'(': 1}"),
    "optimizer.wd_mult": ("{}", "{'.*': 0}", "{'*': 2}"),
    "optimizer.decay_bias_and_norm": ("true",),
    "optimizer.clip_norm": ("1", "1.2e-38", "3.4e38"),
    "optimizer.clip_value": ("1", "1.2e-38", "3.4e38"),
    "lr.base": ("0.1", "1.2e-38", "3.4e38", "no.json"),
    "lr.reference_batch": NUMBERS,
    "lr.scaling": ("none", "sqrt"),
    "lr.warmup": ("{length: 3it}", "{length: 100%}", "{length: 1it, start: unscaled, mode: overlap}"),
    "lr.momentum_correction": ("false", "true"),
    "lr.schedule": (
        *(
            "1x",
            "0",
            "0.01",
            "{cosine: {min_lr: 0, max_lr: 1x, cycle_length: 100%}}",
            "{ramp: {start_lr: 0, end_lr: 1x, length: 3it}}",
        ),
        *(
            "{exponential: {start_lr: 1x, finish_lr: 1e-30, length: 100%}}",
            "{os:getcwd: {}}",
            "{scaled: {factor: 1e-30, schedule: 1x}}",
        ),
        "{cyclical: {schedule_class: cosine, cycle_length: 1it, min_lr: 0, max_lr: 1x, cycle_length_decay: 1e-30}}",
    ),
    "lr.momentum": ("0.5", "0", "{triangular: {min_lr: 0, max_lr: 0.99, cycle_length: 100%}}"),
    "lr.plateau": (
        "{patience: 0}",
        "{monitor: accuracy, mode: max}",
        "{mode: max}",
        "{min_lr: 0.1x}",
        "{factor: 1e-38}",
    ),
    "train.early_stop": ("{patience: 1}", "{patience: 1, monitor: accuracy, min_delta: 3}", "{patience: 1000000000}"),
    "finder.probes": ("0", "1000000000"),
    "init.from": ("none.params", "/"),
    "checkpoint.every": ("null", "1it", "3it", "1s", "100%"),
    "checkpoint.keep": NUMBERS,
    "checkpoint.best": ("loss", "accuracy"),
    "log.every": ("1it", "0.1ep", "100%", "999999999999ep"),
    "log.tensorboard": ("true",),
    "guard.verify_every": ("1it", "0.1%", "999999999999it"),
    "guard.stall_after_first_s": ("1000000000",),
    "guard.divergence.policy": ("skip", "rewind"),
}
ALLOWED = {0, 2, 3}
# other ends that a configuration may have once it trains: weights that are not there, and a loss that is not finite
ALLOWED_IN_TRAINING = {*ALLOWED, 4, 6}


def configurations(number: int) -> list[list[str]]:
    """Overrides: two thirds of them with one, the others with two to four; each key comes first about equally often."""
    draw = random.Random(21)
    keys = [key for _ in range(number // len(KEYS) + 1) for key in draw.sample(KEYS, len(KEYS))]
    found = []
    for index in range(number):
        others = draw.sample(KEYS, draw.randint(1, 3)) if index % 3 == 2 else []
        found.append([f"{key}={draw_value(draw, key)}" for key in (keys[index], *others)])
    return found


def draw_value(draw: random.Random, key: str) -> str:
    """Half of the values may fit the key."""
    return draw.choice(FITTING[key] if key in FITTING and draw.random() < 0.5 else VALUES)


def words(overrides: list[str]) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


@pytest.fixture
def base(tmp_path, monkeypatch):
    """A small run, in a folder of its own: overrides may name any path."""
    path = tmp_path / "base.yaml"
    path.write_text(
        "batch: {size: 128}\ntrain: {epochs: 1}\nnetwork: {name: mlp, params: {hidden: [8]}}\n"
        "optimizer: {params: {momentum: 0.9}}\nlr: {base: 0.05, schedule: 1x}\nlog: {tensorboard: false}\n"
    )
    return path


@pytest.fixture
def limited():
    """Fail where the main thread takes too long."""

    def late(*_: object) -> None:
        pytest.fail(f"not done after {LONGEST_S} s")

    before = signal.signal(signal.SIGALRM, late)
    yield lambda: signal.setitimer(signal.ITIMER_REAL, LONGEST_S)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def train_all(commands: list[list[str]], folder: Path) -> list[tuple[int, str]]:
    """How each training ended, in processes that are started anew where one dies."""
    ended: list[tuple[int, str]] = []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(ROOT)}
    while len(ended) < len(commands):
        (folder / "commands").write_text("\n".join(map(json.dumps, commands[len(ended) :])), encoding="utf-8")
        program = [sys.executable, str(ROOT / "tests/programs/train_many.py"), "commands"]
        done = subprocess.run(
            program, cwd=folder, env=environment, capture_output=True, text=True, timeout=60 * len(commands) + 60
        )
        answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
        ended += [(code, said) for code, said in answers]
        if len(ended) < len(commands):
            ended.append((-abs(done.returncode) or -1, f"died: {done.stderr[-3000:]}"))
    return ended


def test_fuzzed_configurations(command, base, tmp_path, monkeypatch, limited):
    monkeypatch.chdir(tmp_path)
    accepted, wrong, codes = [], [], Counter()
    for overrides in configurations(NUM_PLANS):
        limited()
        ended = command("plan", "--config", base, "--output", tmp_path / "plans", *words(overrides), cwd=tmp_path)
        codes[ended.code] += 1
        is_clear = ended.code == 0 or ended.err.count("error: ") == 1
        if ended.code not in ALLOWED or "Traceback" in ended.err or not is_clear or len(ended.err) > 12_000:
            wrong.append((overrides, ended.code, ended.err[-2000:]))
        if ended.code == 0:
            accepted.append(overrides)
    assert not wrong, "\n".join(map(str, wrong))
    signal.setitimer(signal.ITIMER_REAL, 0)
    chosen = accepted[:NUM_RUNS]
    commands = [["--config", str(base), "--quiet", "--overwrite", *words(overrides)] for overrides in chosen]
    trained = Counter()
    for overrides, (code, said) in zip(chosen, train_all(commands, tmp_path), strict=True):
        trained[code] += 1
        may_stall = any(override.startswith("guard.stall") for override in overrides)
        if code not in ALLOWED_IN_TRAINING | ({7} if may_stall else set()) or "Traceback" in said:
            wrong.append((overrides, code, said[-2000:]))
    print(f"plans: {dict(codes)}, trainings: {dict(trained)}")
    assert not wrong, "\n".join(map(str, wrong))
    assert codes[0] > 5
    assert trained[0] > 0
