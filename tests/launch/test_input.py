"""Input that cannot keep up: said in the log and the report, and measured alone by the doctor."""

from __future__ import annotations

import json
import re

import pytest

HERE = "tests.programs.worked"
SETTINGS = (
    f"data={{name: '{HERE}:slow_points'}}",
    "batch={size: 15, shards: 1}",
    "train={iterations: 45}",
    "network={name: mlp}",
    "lr={base: 0.05, schedule: {constant: {lr: 1x}}}",
    "evaluation.metrics=[]",
    "log.tensorboard=false",
)


def words_of(*settings):
    return [word for one in (*SETTINGS, *settings) for word in ("--set", one)]


def digest_of(done):
    (digest,) = re.findall(r"digest ([0-9a-f]{64})", done.stdout)
    return digest


def test_it_is_said_once_with_what_would_help_and_changes_nothing(here, tmp_path):
    output = f"output={tmp_path}"
    quick = here("launch/train.py", *words_of(output, "name=quick"))
    slow = here("launch/train.py", *words_of(output, "name=slow", "data.params={ms: 10}"))
    assert digest_of(slow) == digest_of(quick)
    assert "input" not in quick.stdout + quick.stderr
    advice = r"; data\.worker_kind: process and data\.workers: \d+ would do"
    said = re.findall(rf"input (\d+) ms of (\d+) ms an update{advice}", slow.stdout + slow.stderr)
    assert len(said) == 1
    waited, update = map(int, said[0])
    assert 100 < waited <= update
    lines = [json.loads(line) for line in (tmp_path / "slow" / "metrics.jsonl").read_text().splitlines()]
    (line,) = [line for line in lines if line["split"] == "input"]
    assert round(line["waited_ms"]) == pytest.approx(waited, abs=1)
    page = (tmp_path / "slow" / "report.html").read_text()
    assert re.search(r"updates wait for their samples: input [\d.]+ ms of [\d.]+ ms an update", page)


def test_the_doctor_measures_input_alone(here, tmp_path):
    done = here("launch/doctor.py", "--input", "digits", *words_of(f"output={tmp_path}", "data.params={ms: 1}"))
    head, columns, *rows, last = done.stdout.splitlines()
    assert head == "input of digits in one rank: 60 samples, batches of 1 x 15"
    assert columns.split("  ")[-1].strip() == "CPU ms a sample"
    assert [row[:16].strip() for row in rows][:2] == ["1 thread", "1 process"]
    speeds = [float(row[16:].split()[0]) for row in rows]
    assert all(0 < speed < 1000 * number for speed, number in zip(speeds[:3], (1, 1, 2), strict=False))
    assert last == f"how many samples an update needs is not known: there is no run in {tmp_path}/digits"


def test_the_doctor_compares_with_the_last_run(here, tmp_path):
    settings = ["--set", f"output={tmp_path}", "--set", "train={iterations: 30}"]
    here("launch/train.py", *settings)
    done = here("launch/doctor.py", "--input", "digits", *settings)
    assert re.search(r"^1 thread +[\d.]+ +[\d.]+ +[\d.]+$", done.stdout, re.MULTILINE)
    last = done.stdout.splitlines()[-1]
    said = rf"the last run in {tmp_path}/digits trained [\d,]+ samples/s on each of 1 rank; 1 thread would do"
    assert re.match(said, last)


BESIDE = "--np, --quick, --json, --scaling and --emulate-np have no effect with --input; remove them"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--quick"], BESIDE),
        (["--scaling"], BESIDE),
        (["--np", "2"], BESIDE),
        (["--emulate-np", "2"], BESIDE),
        (["--config", "one_cycle"], "--input: measures digits, so --config has no effect; remove it"),
        (["--set", "trian=1"], "trian: unknown key"),
    ],
)
def test_wrong_uses_of_the_doctor(command, options, said):
    ended = command("doctor", "--input", "digits", *options)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
