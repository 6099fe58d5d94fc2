"""What a checkpoint makes of a configuration: which of the two holds, what is recorded, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from pathlib import Path

import pytest

from harness.checkpoint import Manifest, list_checkpoints, read_manifest
from harness.checkpoint.consistency import sum_of
from harness.config import load_config
from harness.errors import CheckpointError, ConfigError
from harness.folder import Fields, RunFolder
from harness.plan import Extend, Replace, Sizes
from harness.train.resolve import resolve, resolve_plan
from harness.train.resume import (
    ResumePoint,
    StartOptions,
    find_resume_point,
    open_folder,
    warnings_for,
)

OLD = Path(__file__).parents[1] / "checkpoint" / "format_1"
NAME = "iteration-000000004"


def config_with(*settings):
    return load_config(OLD / "config.yaml", ["name=x", *settings])


def point(here=True, **changes):
    path = OLD / NAME
    content = read_manifest(path)
    for key, value in changes.items():
        content["state"][key] = value
    return ResumePoint("runs/old", Manifest.of(content, "runs/old"), here, [], [])


def resolved(*settings, on_conflict="error", workers=1, resume_point=None):
    config = config_with(*settings)
    return resolve(config, resume_point or point(), workers=workers, threads=1, on_conflict=on_conflict)


def plan_of(found, resume_point=None):
    resume_point = resume_point or point()
    manifest = resume_point.manifest
    geometry = {"shards": manifest.shards, "batch_size": manifest.batch_size}
    sizes = Sizes.of(found.config.train, num_samples=manifest.num_samples, **geometry)
    return resolve_plan(found, resume_point, sizes)


LONGER = "train={iterations: 12}"


def test_the_same_configuration_just_resumes():
    found = resolved()
    assert (found.undecided, found.amendments, found.conflicts.plan) == (False, (), [])
    assert (found.config.batch.shards, found.config.threads_per_rank) == (1, 1)
    plan, choice = plan_of(found)
    assert choice is None
    for t, rate in point().manifest.content["plan"]["lr"].items():
        assert plan.lr(int(t)) == rate


@pytest.mark.parametrize(
    "setting", ["log.every=3it", "sum=engine", "checkpoint.keep=9", "output=elsewhere", "init.from=gone.params"]
)
def test_what_does_not_touch_the_result_may_change(setting):
    found = resolved(setting)
    assert not found.undecided
    assert found.amendments == ()


def test_another_plan_has_to_be_chosen():
    found = resolved(LONGER)
    assert found.undecided
    assert found.amendments == ()
    _, choice = plan_of(found)
    for part in (
        "runs/old was trained with another plan",
        "train.iterations: 8 -> 12",
        "--on-conflict config",
        "at iter",
    ):
        assert part in choice


def test_the_new_plan_is_recorded_with_the_one_that_held_until_then():
    found = resolved(LONGER, on_conflict="config")
    (amendment,) = found.amendments
    assert amendment == Replace(
        4, {"train.iterations": (8, 12)}, found.saved.plain()["lr"], found.saved.plain()["train"]
    )
    assert found.config.train.iterations == 12
    plan, choice = plan_of(found)
    before, _ = plan_of(resolved())
    assert choice is None
    assert plan.sizes.num_iterations == 12
    assert [plan.lr(t) for t in range(1, 5)] == [before.lr(t) for t in range(1, 5)]


def test_the_saved_plan_is_kept_and_recorded_once():
    found = resolved(LONGER, on_conflict="checkpoint")
    assert found.config.train.iterations == 8
    assert found.amendments == (Extend(4, {"train.iterations": (8, 12)}),)
    kept = point(amendments=[one.to_json() for one in found.amendments])
    again = resolved(LONGER, on_conflict="checkpoint", resume_point=kept)
    assert again.amendments == found.amendments


@pytest.mark.parametrize("on_conflict", ["error", "config", "checkpoint"])
@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ("seed=5", "seed: 0 -> 5"),
        ("batch.size=16", "batch.size: 32 -> 16"),
        ("train={iterations: 8, last_batch: keep}", "train.last_batch: drop -> keep"),
        ("init.freeze=['0.*']", "init.freeze: [] -> ['0.*']"),
    ],
)
def test_what_is_fixed_is_refused_under_every_policy(on_conflict, setting, part):
    with pytest.raises(CheckpointError, match="fixed for the life of a run") as caught:
        resolved(setting, on_conflict=on_conflict)
    assert part in str(caught.value)
    assert "runs/old" in str(caught.value)


def test_another_optimizer_can_only_be_given_up():
    other = ("optimizer={name: adam}",)
    for policy in ("error", "config"):
        with pytest.raises(CheckpointError, match="state of another optimizer"):
            resolved(*other, on_conflict=policy)
    found = resolved(*other, on_conflict="checkpoint")
    assert found.config.optimizer == found.saved.optimizer


def test_every_worker_needs_a_shard():
    with pytest.raises(CheckpointError, match=r"1 shards of 32, too few for 3 workers; resume with one worker$"):
        resolved(workers=3)


def test_a_base_that_was_found_is_kept():
    found = resolved("lr.base=auto")
    assert found.config.lr.base == found.saved.lr.base
    assert not found.undecided


def test_code_of_a_checkpoint_from_elsewhere_has_to_be_named_here_too():
    schedule = {"schedules": "os:getcwd"}
    replaced = {"iteration": 2, "choice": "config", "changes": {}, "lr": schedule, "train": {}}
    with pytest.raises(CheckpointError, match=r"names code that .* does not: os:getcwd"):
        resolved(resume_point=point(here=False, amendments=[replaced]))


def test_a_run_that_would_be_over_is_refused():
    found = resolved("train={iterations: 3}", on_conflict="config")
    with pytest.raises(CheckpointError, match=r"is 4 iterations into its run, which would now end after 3"):
        plan_of(found)


def test_other_versions_are_told():
    environment = dict(point().manifest.environment)
    assert warnings_for(point(), environment) == []
    (line,) = warnings_for(point(), {**environment, "threads_per_rank": 64})
    assert line.startswith("the last bits may differ from an unbroken run's: threads_per_rank ")


@pytest.mark.parametrize(
    ("world", "then"),
    [
        ({"kind": "horovod over Gloo", "size": 4, "sum": "tree"}, "tree"),
        ({"kind": "horovod over Gloo", "size": 2, "sum": "engine"}, "engine"),
        ({"kind": "horovod over Gloo", "size": 2}, "tree"),  # of an earlier version; two terms have one order
        ({"kind": "horovod over NCCL", "size": 3}, "engine"),
        ({"kind": "mpi, MPICH 4.2.0", "size": 8}, "tree"),
    ],
)
def test_another_order_of_sums_is_told(world, then):
    content = {**read_manifest(OLD / NAME), "world": world}
    resume_point = ResumePoint("runs/old", Manifest.of(content, "runs/old"), True, [], [])
    environment, other = resume_point.manifest.environment, {"tree": "engine", "engine": "tree"}[then]
    assert warnings_for(resume_point, {**environment, "sum": then}) == []
    expected = f"the last bits may differ from an unbroken run's: sum {then} -> {other}"
    assert warnings_for(resume_point, {**environment, "sum": other}) == [expected]


@pytest.mark.parametrize(
    ("world", "shards", "then"),
    [
        ({"kind": "single", "size": 1}, 6, "an earlier version's order"),
        ({"kind": "mpi, MPICH 4.2.0", "size": 3}, 3, "an earlier version's order"),
        ({"kind": "horovod over Gloo", "size": 3}, 3, "engine"),
        ({"kind": "mpi, MPICH 4.2.0", "size": 3, "sum": "tree"}, 3, "tree"),
        ({"kind": "single", "size": 1}, 16, "tree"),
    ],
)
def test_shards_that_an_earlier_version_added_in_another_order_are_told(world, shards, then):
    assert sum_of(Fields(world), shards) == then


@pytest.fixture
def folder(tmp_path):
    """A run's folder with two checkpoints, of iterations 4 and 6, unlocked at the end."""
    path = tmp_path / "run"
    for name in (NAME, "iteration-000000006"):
        shutil.copytree(OLD / NAME, path / "checkpoints" / name)
    (path / "config.yaml").write_text("{}\n")
    taken = RunFolder(path)
    yield taken
    taken.close()


def test_a_new_run_looks_for_nothing(folder):
    assert find_resume_point(folder, StartOptions()) is None


def test_the_newest_valid_checkpoint_is_found_and_the_rejected_one_given_up(folder):
    # its manifest is that of iteration 4, so it does not belong to its name
    found = find_resume_point(folder, StartOptions(resume="auto"))
    assert (found.iteration, found.here) == (4, True)
    assert [Path(path).name for path in found.abandoned] == ["iteration-000000006"]
    assert "belongs to another iteration" in found.reasons[0]
    notes = open_folder(folder, StartOptions(resume="auto"), found)
    assert [path.name for path in list_checkpoints(folder.path / "checkpoints")] == [NAME]
    assert (folder.path / "checkpoints/aside/iteration-000000006").is_dir()
    assert notes[0].startswith("rejected: ")
    assert notes[1].startswith("no longer part of this run: moved ")


def test_where_none_is_valid_the_user_is_told_how_to_start_over(folder):
    for path in list_checkpoints(folder.path / "checkpoints"):
        (path / "manifest.sha256").unlink()
    with pytest.raises(CheckpointError, match=r"(?s)^no valid checkpoint:.*\nstart over with --overwrite"):
        find_resume_point(folder, StartOptions(resume="auto"))


def test_a_checkpoint_of_another_run_leaves_that_run_alone(folder, tmp_path):
    own = RunFolder(tmp_path / "fork")
    found = find_resume_point(own, StartOptions(resume=str(folder.path)))
    assert (found.here, found.abandoned) == (False, [])
    open_folder(own, StartOptions(resume=str(folder.path)), found)
    own.close()
    assert len(list_checkpoints(folder.path / "checkpoints")) == 2
    assert (tmp_path / "fork/checkpoints").is_dir()


def test_weights_alone_are_not_resumed(folder):
    place = folder.path / "checkpoints" / NAME
    content = json.loads((place / "manifest.json").read_text())
    del content["config"]
    text = json.dumps(content).encode()
    (place / "manifest.json").write_bytes(text)
    (place / "manifest.sha256").write_text(hashlib.sha256(text).hexdigest() + "\n")
    with pytest.raises(CheckpointError, match=r"was not written by a run, .*--set init\.from="):
        find_resume_point(folder, StartOptions(resume="auto"))


def test_a_finished_run_without_checkpoints_is_not_started_over_in_silence(folder):
    shutil.rmtree(folder.path / "checkpoints")
    (folder.path / "final.params").write_bytes(b"")
    with pytest.raises(ConfigError, match="holds a finished run without checkpoints"):
        find_resume_point(folder, StartOptions(resume="auto"))


def test_overwriting_moves_the_previous_run_aside(folder):
    (note,) = open_folder(folder, StartOptions(overwrite=True), None)
    assert note == f"moved the previous run to {folder.path}.1"
    assert len(list_checkpoints(Path(f"{folder.path}.1/checkpoints"))) == 2
    assert list_checkpoints(folder.path / "checkpoints") == []


def test_who_follows_another_process_waits_until_that_has_ended(folder):
    before = RunFolder(folder.path)
    before.lock()
    with pytest.raises(ConfigError, match=rf"process {os.getpid()} on .* is writing there"):
        folder.lock_after_another(0.1)
    ending = threading.Timer(0.3, before.close)
    ending.start()
    folder.lock_after_another(60)
    assert not ending.is_alive()
    with pytest.raises(ConfigError, match="is writing there"):
        before.lock()
    folder.lock_after_another(60)  # it is this one's already
    ending.join()
