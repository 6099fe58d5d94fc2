"""Killed at random moments and started again, a run ends with the bits of the unbroken one."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import THOROUGH, job_of

ROOT = Path(__file__).parents[2]
KILLS, ITERATIONS = (20, 450) if THOROUGH else (4, 90)
NETWORK = (
    "network={name: cnn, params: {channels: [8, 16], hidden: 32, dropout: 0.3, batch_norm: true}}",
    "data.augment={pad_crop: 1, flip: true, mean: [0.3], std: [0.4]}",
    "batch.size=16",
    f"train={{iterations: {ITERATIONS}}}",
    "evaluation={every: 35it, metrics: [accuracy]}",
    "checkpoint={every: 5it, keep: 2, best: accuracy}",
    "log.every=1it",
    "threads_per_rank=1",
    "lr.schedule={one_cycle: {start_lr: 0.1x, max_lr: 1x, cycle_length: 80%, cooldown_length: 20%, finish_lr: 0.001x}}",
)
OPTIMIZERS = {
    "sgd": "{name: sgd, params: {momentum: 0.9, wd: 1e-4}}",
    "nag": "{name: nag, params: {momentum: 0.9}}",
    "adam": "{name: adam}",
    "lamb": "{name: lamb}",
    "lars": "{name: lars, params: {momentum: 0.9, eta: 0.1}}",
    "nadam": "{name: nadam}",
}
MOMENTUM = "lr.momentum={opposite: {high: 0.95, low: 0.8}}"  # against the learning rate; beta1 of adam
MORE = {"sgd": (MOMENTUM,), "adam": (MOMENTUM,)}
BASES = {"adam": 0.003, "lamb": 0.01, "nadam": 0.003}
# a plateau is almost everywhere, so the rate falls all the time; the end comes 18 iterations before the last
DECISIONS = (
    "ema={decay: 0.95, every: 3it, after: 7it, evaluate: instead}",
    "evaluation={every: 4it, metrics: [accuracy]}",
    "lr.schedule=1x",
    "lr.plateau={patience: 1, cooldown: 1, threshold: 0.3, factor: 0.8, min_lr: 0.05x}",
    f"train.early_stop={{monitor: accuracy, min_delta: 0.9, patience: {ITERATIONS // 4 - 5}}}",
)
# of the run that is killed; the unbroken one has none
HOOKS = ("hooks=['tests.programs.own_hooks:disturb', {'tests.programs.own_hooks:keep': {path: 'OUTPUT.told'}}]",)
CASES = [(name, np) for name in OPTIMIZERS for np in (None, 2)] if THOROUGH else [("nadam", None)]  # ranks below


class Job:
    """One attempt at a run, which can be killed with everything that it started."""

    def __init__(self, server, output: Path, optimizer: str, np: int | None, more=(), *options: str) -> None:
        self.output, self.server = output, server
        settings = [
            *NETWORK,
            *(setting.replace("OUTPUT", str(output)) for setting in more),
            f"optimizer={OPTIMIZERS[optimizer]}",
            f"lr.base={BASES.get(optimizer, 0.1)}",
            f"output={output}",
        ]
        words = [word for setting in settings for word in ("--set", setting)]
        command = job_of(["launch/train.py", *words, *options], np, fresh=THOROUGH)
        self.log = output.with_suffix(".log").open("a+")
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **server.environ},
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def members(self) -> list[int]:
        """The processes of this run, the ranks that horovodrun put into sessions of their own among them."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if f"output={self.output}".encode() in words:
                    found.append(int(entry.name))
        return found

    def kill(self, which: str, generator: random.Random) -> None:
        """SIGKILL everything, or one process and wait until the rest has gone."""
        members = self.members()
        for pid in members if which == "all" else generator.sample(members, 1) if members else []:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(timeout=120)
        for pid in self.members():  # horovodrun gone, its ranks would go on alone
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        deadline = time.monotonic() + 60
        while (self.members() or self.server.num_jobs()) and time.monotonic() < deadline:
            time.sleep(0.02)
        self.log.close()

    def end(self) -> str:
        """Wait for the end, and give everything that was printed."""
        try:
            self.process.wait(timeout=300)
        except subprocess.TimeoutExpired:
            self.kill("all", random.Random(0))
            pytest.fail(f"no end: {self.output.with_suffix('.log').read_text()[-3000:]}")
        self.log.seek(0)
        text = self.log.read()
        self.log.close()
        assert self.process.returncode == 0, text[-3000:]
        return text


def last_iteration(job: Job) -> int:
    """The newest iteration that the run has logged; 0 before the first."""
    path = job.output / "digits" / "metrics.jsonl"
    try:
        return json.loads(path.read_bytes().splitlines()[-1])["iteration"]
    except (OSError, IndexError, ValueError):
        return 0


def wait_for_iteration(job: Job, t: int) -> None:
    """Wait until an iteration is logged by this attempt, or the run has ended."""
    deadline = time.monotonic() + 300
    while job.process.poll() is None and time.monotonic() < deadline and last_iteration(job) < min(t, ITERATIONS - 1):
        time.sleep(0.005)


def result_of(folder: Path) -> dict:
    """Everything that must be equal: every bit of the last set, its JSON, and the metrics without their clocks."""
    last = max((folder / "digits" / "checkpoints").glob("iteration-*"))
    clocks = ("time", "images_per_s")
    lines = (folder / "digits" / "metrics.jsonl").read_text().splitlines()
    return {
        "parameters": (last / "params.safetensors").read_bytes(),
        "slots": (last / "optimizer.safetensors").read_bytes(),
        "averages": (last / "averages.safetensors").read_bytes() if (last / "averages.safetensors").exists() else b"",
        "state": json.loads((last / "manifest.json").read_text())["state"],
        "metrics": [{key: value for key, value in json.loads(line).items() if key not in clocks} for line in lines],
        "best": json.loads((folder / "digits" / "checkpoints" / "best.json").read_text()),
        "weights": (folder / "digits" / "final.params").read_bytes(),
    }


@pytest.mark.long
@pytest.mark.parametrize(("optimizer", "np"), CASES)
def test_killed_at_random_moments(fork_server, tmp_path, optimizer, np):
    steps = (8, 30 if THOROUGH else 20)
    survives(fork_server, tmp_path, optimizer, np, KILLS, steps, MORE.get(optimizer, ()))
    assert (tmp_path / f"killed/digits/checkpoints/iteration-{ITERATIONS:09d}").is_dir()


@pytest.mark.long
@pytest.mark.parametrize("np", [pytest.param(None, marks=pytest.mark.thorough), 2])
def test_killed_at_random_moments_a_run_decides_what_the_unbroken_one_did(fork_server, tmp_path, np):
    kills, steps = (30, (4, 12)) if THOROUGH else (KILLS, (8, 20))
    survives(fork_server, tmp_path, "sgd", np, kills, steps, DECISIONS, HOOKS)
    newest = max((tmp_path / "killed/digits/checkpoints").glob("iteration-*"))
    state = json.loads((newest / "manifest.json").read_text())["state"]
    choices = [amendment["choice"] for amendment in state["amendments"]]
    print(f"np={np}: {choices} until iteration {state['iteration']}")
    assert (newest / "averages.safetensors").exists()
    assert choices.count("plateau") >= 3
    assert (choices.count("early_stop"), choices[-1]) == (1, "early_stop")
    assert state["iteration"] < ITERATIONS
    were_told(tmp_path, state["amendments"], kills)


def were_told(tmp_path, amendments, kills):
    """What a hook has heard of all attempts: everything at least once, in order, and each time the same."""
    events = list(map(json.loads, (tmp_path / "killed.told").read_text().splitlines()))
    lines = [line for line in result_of(tmp_path / "killed")["metrics"] if line["split"] != "input"]  # of clocks
    heard = [
        line for kind, _, of in events if kind in ("Logged", "Evaluated") for line in of if line["split"] != "input"
    ]
    assert [json.dumps(line) for line in lines if line not in heard] == []
    assert [json.dumps(line) for line in heard if line not in lines] == []
    repeated = len(heard) - len(lines)
    assert [one for one in amendments if ["Amended", one["iteration"], one] not in events] == []
    assert [event for event in events if event[0] == "Amended" and event[2] not in amendments] == []
    saved = {name for kind, _, name in events if kind == "Saved"}
    assert {path.name for path in (tmp_path / "killed/digits/checkpoints").glob("iteration-*")} <= saved
    # an attempt begins with Opened, and tells of nothing that it resumed from; one that lost a rank may tell its end
    begins = [place for place, event in enumerate(events) if event[0] == "Opened"]
    attempts = [events[begin:end] for begin, end in zip(begins, [*begins[1:], len(events)], strict=True)]
    assert (begins[0], len(attempts) <= kills + 1) == (0, True)
    *earlier, last = [content for kind, _, content in events if kind == "Ended"]
    assert (events[-1][0], last, {code for code, _ in earlier} <= {7}) == ("Ended", [0, "done"], True)
    for attempt in attempts:
        after = attempt[0][1]
        times = [t for kind, t, _ in attempt if kind in ("Logged", "Evaluated")]
        assert times == sorted(times)
        assert all(t > after for t in times)
        assert [t for kind, t, _ in attempt if kind == "Saved" and t <= after] == ([after] if after else [])
    print(f"{len(events)} events in {len(attempts)} attempts, {repeated} of {len(heard)} lines were repeated")


def survives(fork_server, tmp_path, optimizer, np, kills, steps, more=(), only_killed=()):
    """Kill a run `kills` times, start it again each time, and compare it with one that was not.

    `only_killed` are more settings of that run. `steps` are the fewest and the most iterations from one kill to the
    next; a busy machine may make more of them.
    """
    job, begun = Job(fork_server, tmp_path / "straight", optimizer, np, more), time.monotonic()
    wait_for_iteration(job, 1)
    set_up_s = time.monotonic() - begun
    straight = job.end()

    generator = random.Random(f"{optimizer} {np}")
    killed = tmp_path / "killed"
    survived = 0
    for attempt in range(kills):
        job = Job(fork_server, killed, optimizer, np, (*more, *only_killed), "--resume", "auto")
        if attempt % 4 == 3:  # at any time of the set-up, and a little into training
            time.sleep(generator.uniform(0, 1.1 * set_up_s))
        else:
            wait_for_iteration(job, last_iteration(job) + generator.randint(*steps))
            time.sleep(generator.uniform(0, 0.02))
        survived += job.process.poll() is not None
        job.kill("one" if attempt % 3 == 2 else "all", generator)
    final = Job(fork_server, killed, optimizer, np, (*more, *only_killed), "--resume", "auto").end()

    resumed = sorted({int(n) for n in re.findall(r"resuming after iteration (\d+)", final)})
    print(f"{optimizer} np={np}: {kills} kills, {survived} after the end, went on after {resumed}")
    assert survived <= 1  # the very end may be too quick to be hit
    assert len(resumed) >= 2, "no attempt went on from a set"
    digests = {re.search(r"digest ([0-9a-f]{64})", text)[1] for text in (straight, final)}
    assert len(digests) == 1
    expected, found = result_of(tmp_path / "straight"), result_of(killed)
    for key in expected:
        assert found[key] == expected[key], key
