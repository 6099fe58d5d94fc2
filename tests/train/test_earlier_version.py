"""What version 0.1.0 wrote is still read, and resumes to the bits that it would have reached itself.

`tests/data/version_0_1` is the folder of a run of that version: a warm-up that overlaps a cosine, a rewind after
iteration 8, and from iteration 16 on a longer plan; its checkpoint of iteration 20, and the finder's result for the
same configuration. `written_by.json` tells on which processor: on the same kind results are equal to the bit, on
another one the last digits of float32 sums differ.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from harness.checkpoint import Manifest, read_manifest, verify
from harness.config import load_config
from harness.finder import read_result
from harness.gluon import LearnerState
from harness.report import write_run_report

OLD = Path(__file__).parents[1] / "data" / "version_0_1"
SAVED = OLD / "checkpoints" / "iteration-000000020"
WRITTEN = json.loads((OLD / "written_by.json").read_text())


def processor():
    """What decides which kernels compute here."""
    first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    flags = hashlib.sha256(facts.get("flags", "").encode()).hexdigest()[:16]
    return {"model": facts.get("model name"), "flags": flags}


@pytest.fixture
def copy(tmp_path):
    """The old run's folder, to be changed."""
    shutil.copytree(OLD, tmp_path / "runs" / "written")
    return tmp_path / "runs" / "written"


def evaluations_and_losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {(line["split"], line["iteration"]): line for line in lines if line["split"] in ("train", "test")}


def test_its_configuration_is_read_and_nothing_of_it_is_lost():
    plain = yaml.safe_load((OLD / "config.yaml").read_text())
    read = load_config(OLD / "config.yaml").plain()

    def lost(old, new, path=""):
        for key, value in old.items():
            if isinstance(value, dict) and isinstance(new.get(key), dict):
                yield from lost(value, new[key], f"{path}{key}.")
            elif key not in new or new[key] != value:
                yield f"{path}{key}: {value!r}, now {new.get(key)!r}"

    assert list(lost(plain, read)) == []


def test_its_checkpoint_is_valid_and_holds_the_same_arrays():
    verify(SAVED)
    assert LearnerState.load(SAVED).digest() == WRITTEN["digest_at_20"]
    manifest = Manifest.of(read_manifest(SAVED), SAVED)
    assert (manifest.iteration, manifest.shards, manifest.batch_size) == (20, 4, 32)


def test_it_resumes_by_its_amended_plan_to_the_same_end(here, copy):
    arguments = ["--config", copy / "config.yaml", "--set", f"output={copy.parent}", "--resume", "auto"]
    ended = here("launch/train.py", *arguments)
    digest = re.search(r"digest ([0-9a-f]{64})", ended.stdout)[1]
    if processor() == WRITTEN["processor"]:
        assert digest == WRITTEN["digest_at_24"]
    old, new = evaluations_and_losses(OLD), evaluations_and_losses(copy)
    assert old.keys() == new.keys()
    for key in [("train", 24), ("test", 24)]:
        assert new[key]["lr"] == old[key]["lr"]  # a function of the iteration, the same on every machine
        assert new[key]["loss"] == pytest.approx(old[key]["loss"], rel=1e-4)  # float32 sums of other kernels


def test_its_page_can_be_drawn(copy):
    write_run_report(copy)
    page = (copy / "report.html").read_text()
    assert "cannot be read" not in page
    assert "0.1139" in page


def test_the_finder_finds_what_it_found(here, tmp_path):
    old = read_result(OLD / "finder" / "result.json")
    arguments = ["--config", OLD / "config.yaml", "--set", f"output={tmp_path}", "--set", "train.iterations=24"]
    here("launch/find_lr.py", *arguments, "--set", "finder.repeats=2")
    new = read_result(tmp_path / "written" / "finder" / "result.json")
    assert [len(sweep.points) for sweep in new.sweeps] == [len(sweep.points) for sweep in old.sweeps]
    for ours, theirs in zip(new.sweeps, old.sweeps, strict=True):
        assert [point.lr for point in ours.points] == [point.lr for point in theirs.points]
        close = pytest.approx([point.loss for point in theirs.points[:40]], rel=1e-4)
        assert [point.loss for point in ours.points[:40]] == close
    if processor() == WRITTEN["processor"]:
        assert new.sweeps == old.sweeps
        assert new.suggestion == old.suggestion
