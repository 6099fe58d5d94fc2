"""Runs whose items worker processes read: one digest, errors as in one process, and nothing left however they end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from harness.processes import descendants, kill, parent, state
from tests.conftest import ROOT, job_of

HERE = "tests.programs.worked"
CONFIG = f"""
name: worked
data:
  name: {HERE}:points
  validation: 0.2
  augment: {{mean: [0.5], std: [0.25]}}
batch: {{size: 5, shards: 3}}
train: {{iterations: 10, last_batch: keep}}
evaluation: {{every: 5it}}
checkpoint: {{every: 5it, keep: 5}}
network: {{name: mlp}}
optimizer: {{name: sgd, params: {{momentum: 0.9}}}}
lr: {{base: 0.02, schedule: {{constant: {{lr: 1x}}}}}}
"""
PROCESSES = "data.worker_kind=process"


@pytest.fixture
def words(tmp_path):
    """The command of a run with settings."""
    path = tmp_path / "worked.yaml"
    path.write_text(CONFIG)

    def of(*settings, name="run", options=()):
        given = [f"output={tmp_path}", f"name={name}", "log.tensorboard=false", *settings]
        return ["launch/train.py", "--config", path, *(word for one in given for word in ("--set", one)), *options]

    return of


@pytest.fixture
def train(launch, words):
    def run(*settings, name="run", options=(), **how):
        return launch(*words(*settings, name=name, options=options), **how)

    return run


def digest_of(done):
    (digest,) = re.findall(r"digest ([0-9a-f]{64})", done.stdout)
    return digest


@pytest.fixture
def begun(words, fork_server):
    """Starts a run, waits until its workers are there, and gives the process and them."""
    processes, started = [], []
    environ = {**os.environ, **fork_server.environ}

    def begin(*settings, np=None, launcher="mpirun", workers=2):
        command = job_of(words(PROCESSES, f"data.workers={workers}", *settings), np, launcher)
        processes.append(subprocess.Popen(command, cwd=ROOT, env=environ, stdout=-1, stderr=-1, text=True))
        limit = time.monotonic() + 120
        while len(found := workers_below(fork_server.process.pid)) < workers * (np or 1):
            assert processes[-1].poll() is None, processes[-1].communicate()
            assert time.monotonic() < limit
            time.sleep(0.05)
        started.extend(found)
        return processes[-1], found

    yield begin
    kill(pid for pid in started if state(pid) is not None)  # which hold the pipes that are read to their end
    for process in processes:
        process.kill()
        process.communicate()


def workers_below(pid):
    found = []
    for one in descendants(pid):
        try:
            command = Path(f"/proc/{one}/cmdline").read_bytes()
        except OSError:
            continue
        if b"harness.data.workers.process" in command:
            found.append(one)
    return found


def all_end(pids, seconds=2.0):
    limit = time.monotonic() + seconds
    while left := [pid for pid in pids if state(pid) is not None]:
        assert time.monotonic() < limit, left
        time.sleep(0.02)


def until_it_trains(folder):
    limit = time.monotonic() + 120
    while not (folder / "run" / "metrics.jsonl").is_file() or not (folder / "run" / "metrics.jsonl").stat().st_size:
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_one_digest_on_any_number_of_workers_of_either_kind(train, tmp_path):
    alone = digest_of(train())
    for settings, how in [
        (["data.workers=0"], {}),
        ([PROCESSES, "data.workers=0"], {}),
        ([PROCESSES, "data.workers=1", "data.prefetch=1"], {}),
        ([PROCESSES, "data.workers=3"], {}),
        ([PROCESSES, "data.workers=1"], {"np": 3, "launcher": "mpirun"}),
    ]:
        assert digest_of(train(*settings, options=["--overwrite"], **how)) == alone, settings
    place = tmp_path / "run" / "checkpoints" / "iteration-000000005"
    for name, settings in (("a", [PROCESSES, "data.workers=2", "data.timeout_s=30"]), ("b", [])):
        assert digest_of(train(*settings, name=name, options=["--resume", place])) == alone


def test_items_may_draw_from_mxnet_too(train):
    """Whose import is most of what a worker would do in the other tests."""
    drawn = f"data.name={HERE}:points_of_mxnet"
    digests = [digest_of(train(drawn, *more, options=["--overwrite"])) for more in ((), (PROCESSES, "data.workers=2"))]
    assert digests[0] == digests[1]


def test_batches_made_by_functions(train):
    lines = [
        f"data={{name: '{HERE}:lines', transform: '{HERE}:letters', collate: {{pad: {{arrays: ['data[0]', label]}}}}}}"
    ]
    lines += [f"network={{name: '{HERE}:tagger', loss: '{HERE}:over_letters'}}", "evaluation.metrics=[]"]
    alone = digest_of(train(*lines))
    assert digest_of(train(*lines, PROCESSES, "data.workers=2", options=["--overwrite"])) == alone


def test_an_error_in_a_worker_is_the_runs(train):
    data = f"data={{name: '{HERE}:points', params: {{fault: raises}}, validation: 0.2}}"
    said = set()
    for settings, how in [
        ([], {}),
        ([PROCESSES, "data.workers=1"], {}),
        ([PROCESSES, "data.workers=3"], {}),
        ([PROCESSES, "data.workers=2"], {"np": 2, "launcher": "mpirun"}),
    ]:
        done = train(data, *settings, options=["--overwrite"], exit_code=3, **how)
        said |= set(
            re.findall(r"reading item (\d+) raised KeyError: 'nothing for \1' \(at .*worked\.py:\d+\)", done.stderr)
        )
        assert "Traceback" not in done.stderr
    assert len(said) == 1


def test_a_worker_that_was_killed_ends_the_run_by_name(begun, tmp_path):
    process, workers = begun("train.iterations=1000000", np=2)
    until_it_trains(tmp_path)
    os.kill(workers[0], signal.SIGKILL)
    killed = time.monotonic()
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 3, (output, errors)
    assert time.monotonic() - killed < 10
    assert re.search(rf"worker \d of 2 \(process {workers[0]}\) was killed \(SIGKILL\) while it read item", errors)
    all_end(workers)


@pytest.mark.parametrize("np", [None, 2])
def test_workers_end_with_a_rank_that_is_killed_whatever_they_do(begun, tmp_path, np):
    """And nothing is left in /dev/shm, since their memory has no name there (tests/data/test_workers.py)."""
    marker, limit = tmp_path / "sleeps", time.monotonic() + 120
    process, workers = begun(f"data.name={HERE}:points", f"data.params={{fault: deaf, marker: {marker}}}", np=np)
    while not marker.exists():  # until one of them sleeps in an item, and heeds no signal
        assert time.monotonic() < limit
        time.sleep(0.05)
    ranks = {parent(pid) for pid in workers}
    for pid in ranks:
        os.kill(pid, signal.SIGKILL)
    all_end(workers)
    process.communicate(timeout=60)


def test_a_run_that_is_asked_to_stop_saves_and_leaves_nothing(begun, tmp_path):
    process, workers = begun("train.iterations=1000000", "checkpoint.every=null")
    until_it_trains(tmp_path)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 75, (output, errors)
    all_end(workers)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["data={name: digits, workers: 2}"], "data.workers: has no effect on arrays, which are not read item by item"),
        (
            ["data={name: digits, worker_kind: process}"],
            "data.worker_kind: has no effect on arrays, which are not read",
        ),
        (["data={name: digits, timeout_s: 3}"], "data.timeout_s: has no effect on arrays, which are not read item by"),
        (["data.workers=2"], "data.workers: 2 threads would wait for each other, because items are Python code, which"),
        (
            ["data.timeout_s=5"],
            "data.timeout_s: a thread that reads items cannot be ended; set data.worker_kind: process",
        ),
        (["data.workers=0", "data.prefetch=2"], "data.prefetch: has no effect with data.workers: 0; remove it"),
        (["data.worker_kind=fork"], "data.worker_kind: found 'fork'; must be"),
        (["data.workers=2.5"], "data.workers: found 2.5; must be auto, or a whole number from 0 to 1024"),
        (["data.workers=true"], "data.workers: found true; must be auto, or a whole number from 0 to 1024"),
        (["data.prefetch=0"], "data.prefetch: found 0; must be at least 1"),
        (["data.timeout_s=0"], "data.timeout_s: found 0; must be above 0"),
        (["data.params={count: {1: 2}}", PROCESSES], "data.params"),
    ],
)
def test_wrong_uses(here, words, settings, said):
    done = here(*words(*settings), exit_code=2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
