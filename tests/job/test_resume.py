"""A job's checkpoints: which of them it resumes from, with the same bits, and which it refuses."""

from __future__ import annotations

import json
from hashlib import sha256

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

from harness.checkpoint import list_checkpoints, verify
from harness.errors import CheckpointError, ConfigError
from tests.job.small import DIGITS, job_of, small


def test_killed_and_resumed_it_ends_with_the_same_bits(whole, tmp_path):
    with job_of(tmp_path / "job") as job:
        assert job.resume() == 0
        for t in job:
            job.update(t)
            if t in (3, 6):
                assert job.save() == tmp_path / "job" / "checkpoints" / f"iteration-{t:09d}"
            if t == 8:
                break
    with job_of(tmp_path / "job") as job:
        assert job.resume() == 6
        left = [t for t in job if job.update(t)]
        assert left == list(range(7, 13))
        assert job.learner.digest() == whole


def test_a_damaged_checkpoint_is_passed_over_and_set_aside(whole, tmp_path):
    with job_of(tmp_path) as job:
        for t in job:
            job.update(t)
            job.save(keep=2)
    older, newest = list_checkpoints(tmp_path / "checkpoints")
    file = newest / "params.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with job_of(tmp_path) as job:
        with pytest.warns(UserWarning, match=r"rejected: .*params\.safetensors"):
            assert job.resume() == 11
        job.update(12)
        assert job.learner.digest() == whole
    assert (tmp_path / "checkpoints/aside" / newest.name).is_dir()
    assert verify(older)["iteration"] == 11


def test_the_checkpoint_commands_read_it(tmp_path, start):
    with job_of(tmp_path) as job:
        job.update(1)
        path = job.save()
    shown = start("launch/checkpoint.py", "show", tmp_path).stdout
    assert str(path) in shown
    assert json.loads((path / "manifest.json").read_text())["job"]["shards"] == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"shards": 4}, "belongs to another job:\n  shards was 2, now 4"),
        ({"seed": 1}, "seed was 0, now 1"),
        ({"batch": 8, "shards": 4}, "batch was 16, now 8"),
        ({"train": DIGITS.test}, "data was "),
        ({"iterations": 2, "lr": 0.1}, "is 3 iterations into its job, which would now end after 2"),
        ({"lr": 0.1}, r"a learning rate of 0\.1 at iteration 2|a learning rate of .* this job's plan 0\.1"),
        ({"net": nn.Dense(10)}, "does not fit this network and optimizer"),
    ],
)
def test_a_checkpoint_of_another_job_is_refused(changed, message, tmp_path):
    with job_of(tmp_path) as job:
        for t in (1, 2, 3):
            job.update(t)
        job.save()
    if "net" in changed:
        changed["net"].initialize(force_reinit=True)
    with job_of(tmp_path, **changed) as job, pytest.raises(CheckpointError, match=message):
        job.resume()


def test_another_plan_is_taken_where_it_is_wanted(tmp_path):
    with job_of(tmp_path) as job:
        job.update(1)
        job.save()
    with job_of(tmp_path, lr=0.3, iterations=20) as job:
        assert job.resume(plan_may_differ=True) == 1
        assert (job.lr(2), job.sizes.num_iterations) == (0.3, 20)


def test_an_earlier_job_is_not_mixed_with_a_new_one(tmp_path):
    for message in (None, "holds checkpoints of an earlier job"):
        with job_of(tmp_path) as job:
            job.update(1)
            if message is None:
                job.save()
            else:
                with pytest.raises(CheckpointError, match=message):
                    job.save()


def test_a_folder_has_one_job_at_a_time(tmp_path):
    with job_of(tmp_path) as first, job_of(tmp_path) as second:
        first.update(1)
        second.update(1)
        first.save()
        with pytest.raises(ConfigError, match=r"is writing there; wait until that has ended, or give the job another"):
            second.save()


def test_a_run_of_the_command_is_not_written_into(tmp_path):
    (tmp_path / "config.yaml").touch()
    with job_of(tmp_path) as job, pytest.raises(ConfigError, match=r"holds a run of `python launch/train\.py`"):
        job.save()


def test_a_folder_that_is_a_file_does_not_ask_to_wait(tmp_path):
    (tmp_path / "file").write_text("")
    with job_of(tmp_path / "file") as job, pytest.raises(ConfigError, match="cannot be made") as refused:
        job.save()
    assert "wait" not in str(refused.value)
    assert "Job(folder=...)" in str(refused.value)


NAG = {"nag": {"momentum": 0.9}}
AGAIN = r"continue by the new ones: job\.resume\(plan_may_differ=True\)"


@pytest.mark.parametrize(
    ("then", "now", "message"),
    [
        ({}, {"clip_norm": 1.0}, f"trained with other settings:\n  clip_norm was not set, now 1.0\n.*{AGAIN}"),
        ({"clip_norm": 1}, {"clip_norm": 0.5}, r"clip_norm was 1\.0, now 0\.5"),
        ({"compression": "fp16"}, {}, "compression was fp16, now none"),
        ({"optimizer": NAG}, {"optimizer": {"nag": {"momentum": 0.8}}}, r"optimizer\.momentum was 0\.9, now 0\.8"),
        ({"optimizer": {"nag": {"momentum": 0.9, "wd": 0.1}}}, {"optimizer": NAG}, r"optimizer\.wd was 0\.1, now 0\.0"),
        ({"optimizer": "adam"}, {"optimizer": {"adam": {"beta1": 0.5}}}, r"optimizer\.beta1 was 0\.9, now 0\.5"),
        ({}, {"optimizer": mx.optimizer.NAG(momentum=0.9, clip_gradient=1.0)}, "clip_gradient was not set, now 1.0"),
        (
            {"clip_norm": 1, "optimizer": NAG},
            {"optimizer": {"nag": {"momentum": 0.5, "wd": 0.5}}},
            r"clip_norm was 1\.0, now not set\n  optimizer\.wd was .*\n  optimizer\.momentum was 0\.9, now 0\.5\ngive",
        ),
        (
            {"lr": {"schedule": 0.1, "momentum": 0.9}},
            {"lr": {"schedule": 0.1, "momentum": 0.5}},
            r"the planned momentum of iteration 2 was 0\.9, now 0\.5",
        ),
        (
            {"lr": {"schedule": 0.1, "momentum_correction": False}},
            {"lr": 0.1},
            "momentum_correction was False, now not",
        ),
    ],
)
def test_other_settings_are_refused_by_name_unless_they_are_wanted(then, now, message, tmp_path):
    with job_of(tmp_path, **then) as job:
        for t in (1, 2, 3):
            job.update(t)
        job.save()
    with job_of(tmp_path, **then) as job:
        assert job.resume() == 3
    with job_of(tmp_path, **now) as job:
        with pytest.raises(CheckpointError, match=f"(?s){message}"):
            job.resume()
        assert job.iteration == 0
        assert job.resume(plan_may_differ=True) == 3
        job.update(4)


def test_factors_of_parameters_are_compared_too(tmp_path):
    with job_of(tmp_path) as job:
        job.update(1)
        job.save()
    net = small()
    net.collect_params(".*bias").setattr("wd_mult", 0.0)
    with (
        job_of(tmp_path, net=net) as job,
        pytest.raises(CheckpointError, match=r"optimizer\.wd_mult\.0\.bias was not set, now 0\.0"),
    ):
        job.resume()


def test_another_optimizer_is_never_taken(tmp_path):
    with job_of(tmp_path, optimizer="adam") as job:
        job.update(1)
        job.save()
    with job_of(tmp_path) as job, pytest.raises(CheckpointError, match=r"optimizer\.class was Adam, now NAG"):
        job.resume(plan_may_differ=True)


class Scaled(mx.gluon.loss.SoftmaxCELoss):
    """A loss with a parameter of its own."""

    def __init__(self, factor, grad_req="write", **options):
        super().__init__(**options)
        self.factor = self.params.get("factor", shape=(1,), init=mx.init.Constant(factor), grad_req=grad_req)
        self.initialize()

    def hybrid_forward(self, F, prediction, label, factor):
        return super().hybrid_forward(F, F.broadcast_mul(prediction, factor), label)


def test_another_loss_is_refused_by_name_unless_it_is_wanted(tmp_path):
    with job_of(tmp_path, loss=Scaled(1.0, "null")) as job:
        job.update(1)
        job.save()
    for loss, message in (
        (Scaled(2.0, "null"), r"loss\.parameters was \w{16}, now \w{16}\n"),
        (Scaled(1.0, "null", weight=2.0), r"loss\.weight was not set, now 2\.0\n"),
        (mx.gluon.loss.SoftmaxCELoss(), r"loss\.class was Scaled, now SoftmaxCrossEntropyLoss\n"),
    ):
        with job_of(tmp_path, loss=loss) as job:
            with pytest.raises(CheckpointError, match=message):
                job.resume()
            assert job.resume(plan_may_differ=True) == 1
    with job_of(tmp_path, loss=Scaled(1.0, "null")) as job:
        assert job.resume() == 1


def test_a_loss_whose_parameters_nobody_trains_is_told(tmp_path):
    with (
        pytest.warns(UserWarning, match=r"loss: Scaled has parameters of its own \(factor\), which stay as they are"),
        job_of(tmp_path, loss=Scaled(1.0)),
    ):
        pass


def test_a_checkpoint_that_does_not_tell_its_settings_is_resumed(tmp_path):
    with job_of(tmp_path) as job:
        job.update(1)
        manifest = job.save() / "manifest.json"
    plain = json.loads(manifest.read_text())
    for key in ("clip_norm", "compression", "momentum_correction", "optimizer", "loss"):
        del plain["job"][key]
    del plain["plan"]["momentum"]
    manifest.write_text(json.dumps(plain))
    checksum = sha256(manifest.read_bytes()).hexdigest()
    manifest.with_suffix(".sha256").write_text(f"{checksum}\n")
    with job_of(tmp_path, clip_norm=1.0) as job:
        assert job.resume() == 1


@pytest.mark.parametrize("inner", ["", "a/b", "checkpoints"])
def test_what_is_no_folder_is_refused_before_the_first_update(inner, tmp_path):
    file = tmp_path / "given" / "checkpoints" if inner == "checkpoints" else tmp_path / "given"
    file.parent.mkdir(exist_ok=True)
    file.write_text("")
    folder = tmp_path / "given" if inner == "checkpoints" else file / inner
    with job_of(folder) as job, pytest.raises(ConfigError, match=rf"{file} is not a folder, .*Job\(folder=\.\.\.\)"):
        job.resume()


def test_a_folder_that_is_a_link_is_refused_before_the_first_update(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    with (
        job_of(tmp_path / "link") as job,
        pytest.raises(ConfigError, match="is a symbolic link, which is not followed"),
    ):
        job.resume()


def test_with_factors_given_as_numbers_of_numpy_it_resumes(tmp_path):
    options = {"optimizer": {"nag": {"momentum": np.float32(0.9)}}, "clip_norm": np.float32(0.5), "lr": np.float32(0.1)}
    for begun in (0, 1):
        with job_of(tmp_path, **options) as job:
            assert job.resume() == begun
            job.update(begun + 1)
            job.save()
