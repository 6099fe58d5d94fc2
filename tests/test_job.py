"""The front door: a Job has the bits of the parts that it is made of, and says what is wrong with what it was given."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

import harness
from harness import Job
from harness.checkpoint import list_checkpoints, verify
from harness.comm import SingleWorld
from harness.config import TrainConfig, load_config, parse_lr
from harness.data import Augmentation, BatchStream, Order, load
from harness.errors import CheckpointError, ConfigError, DataError, DivergedError
from harness.gluon import Learner, UpdateOptions, evaluate, shards_of_rank
from harness.model import build_metrics, build_model
from harness.plan import LRPlan, Sizes
from harness.schedules import PolySchedule
from harness.train.samples import first_samples

LR = {"base": 0.1, "warmup": {"length": "4it"}, "schedule": {"poly": {"base_lr": "1x", "max_update": "100%"}}}
LOSS = mx.gluon.loss.SoftmaxCrossEntropyLoss()
DIGITS = load("digits")
FOLDER = Path(__file__).parent


def small():
    mx.random.seed(1)
    net = nn.HybridSequential()
    net.add(nn.Dense(16, activation="relu"), nn.Dropout(0.2), nn.Dense(10))
    net.initialize(mx.init.Xavier())
    return net


def job_of(folder, **changed):
    given = {"train": DIGITS.train, "batch": 16, "shards": 2, "iterations": 12, "lr": LR, "folder": folder, **changed}
    return Job(given.pop("net", None) or small(), LOSS, given.pop("optimizer", mx.optimizer.NAG(momentum=0.9)), **given)


def finished(job):
    with job:
        for t in job:
            job.update(t)
        return job.learner.digest()


@pytest.fixture
def whole(tmp_path):
    """The digest of a job that nothing has interrupted."""
    return finished(job_of(tmp_path / "whole"))


@pytest.mark.parametrize(
    ("batch", "options", "update"),
    [
        (16, {}, UpdateOptions()),
        (128, {"last_batch": "keep", "clip_norm": 0.1, "seed": 3}, UpdateOptions(clip_norm=0.1, seed=3)),
    ],
)
def test_it_has_the_bits_of_its_parts(batch, options, update, tmp_path):
    world, num, last, seed = SingleWorld(), len(DIGITS.train), options.get("last_batch", "drop"), update.seed
    sizes = Sizes.of(TrainConfig(iterations=12, last_batch=last), num_samples=num, shards=2, batch_size=batch)
    plan, order = LRPlan(parse_lr(LR), sizes), Order(num, 2, batch, seed, last)
    with BatchStream(DIGITS.train, order, shards_of_rank(2, world), Augmentation(), seed) as stream:
        learner = Learner(
            small(), LOSS, mx.optimizer.NAG(momentum=0.9), world, shards=2, sample=stream(1), options=update
        )
        for t in range(1, 13):
            learner.update(stream(t), plan.lr(t), plan.momentum(t))
    assert finished(job_of(tmp_path, batch=batch, **options)) == learner.digest()


def test_it_has_the_bits_of_the_command_with_the_same_configuration(start, tmp_path):
    settings = ["batch={size: 16, shards: 2}", "train={iterations: 12}", "evaluation.every=null", "threads_per_rank=1"]
    arguments = [word for setting in (*settings, f"output={tmp_path}") for word in ("--set", setting)]
    done = start("launch/train.py", *arguments)
    config = load_config("configs/digits.yaml", settings)
    model = build_model(config, 0, first_samples(DIGITS.train, Augmentation(), 2), 10)
    job = Job(
        model.net,
        model.loss,
        model.optimizer,
        train=DIGITS.train,
        batch=16,
        shards=2,
        iterations=12,
        lr=config.lr.model_dump(by_alias=True),
        clip_norm=config.optimizer.clip_norm,
    )
    assert finished(job) == re.search(r"digest ([0-9a-f]{64})", done.stdout)[1]


def test_the_ways_to_give_data_give_the_same_batches(whole, tmp_path):
    data, label = DIGITS.train.take(np.arange(len(DIGITS.train)))
    pictures = data.astype(np.float32) / np.float32(DIGITS.train.full_scale)
    items = mx.gluon.data.ArrayDataset(pictures, label)
    ways = (pictures, label), items, (mx.nd.array(pictures), label.astype(np.float32)), DIGITS
    assert {finished(job_of(tmp_path, train=train)) for train in ways} == {whole}


def test_it_trains_on_the_devices_of_the_network(whole, tmp_path):
    mx.random.seed(1)
    net = nn.HybridSequential()
    net.add(nn.Dense(16, activation="relu"), nn.Dropout(0.2), nn.Dense(10))
    net.initialize(mx.init.Xavier(), ctx=[mx.cpu(0), mx.cpu(1)])
    assert finished(job_of(tmp_path, net=net, shards=None)) == whole  # a shard for each


def test_several_jobs_share_a_world(whole, tmp_path):
    world = SingleWorld()
    assert {finished(job_of(tmp_path, world=world)) for _ in range(2)} == {whole}


def test_items_that_draw_at_random_are_seeded(tmp_path):
    class Noisy:
        def __len__(self):
            return 64

        def __getitem__(self, index):
            return np.full(4, index, np.float32) + np.random.normal(size=4).astype(np.float32), index % 10

    np.random.seed(1)
    first = finished(job_of(tmp_path, train=Noisy(), iterations=4, lr=0.01))
    np.random.seed(2)
    assert finished(job_of(tmp_path, train=Noisy(), iterations=4, lr=0.01)) == first


def test_a_rate_is_a_number_a_section_or_an_object(tmp_path):
    poly = PolySchedule(base_lr=0.2, max_update=12)
    for lr, third in ((0.05, 0.05), ({"schedule": 0.05}, 0.05), (poly, poly(3)), (lambda t: 0.1 / t, 0.1 / 3)):
        with job_of(tmp_path, lr=lr) as job:
            assert job.lr(3) == third
    scheduler = mx.lr_scheduler.FactorScheduler(step=2, factor=0.5, base_lr=0.4)
    with job_of(tmp_path, lr=scheduler) as job:
        assert [job.lr(t) for t in (1, 2, 3, 5)] == [0.4, 0.4, 0.2, 0.1]


def test_an_optimizer_by_name_is_the_object(whole, tmp_path):
    assert finished(job_of(tmp_path, optimizer={"nag": {"momentum": 0.9}})) == whole
    assert finished(job_of(tmp_path, optimizer="nag")) != whole


def test_evaluation_counts_every_sample_once(tmp_path):
    with job_of(tmp_path) as job:
        for t in job:
            loss = job.update(t)
        assert np.isfinite(float(loss))
        expected = evaluate(job.learner, DIGITS.test, 16, Augmentation(), build_metrics(["accuracy", "error"]))
        assert job.evaluate(DIGITS.test, ["accuracy", "error"]) == expected
        assert list(job.evaluate(DIGITS.test)) == ["loss", "accuracy"]
        sevens = job.evaluate(DIGITS.test, {"sevens": lambda prediction, label: label == 7})
        labels = DIGITS.test.labels()
        assert sevens["sevens"] == pytest.approx((labels == 7).mean())


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
    with job_of(tmp_path) as job, pytest.raises(ConfigError, match=r"holds a run of launch/train\.py"):
        job.save()


def test_the_finder_puts_everything_back_and_gives_the_base(tmp_path):
    with job_of(tmp_path, lr={"base": "auto", "schedule": "1x"}, iterations=4) as job:
        before = job.learner.digest()
        with pytest.raises(ConfigError, match=r"call job\.find_lr\(\) before the first update"):
            job.update(1)
        result = job.find_lr()
        assert job.learner.digest() == before == result.digest
        assert job.lr(1) == result.suggestion.lr
        job.update(1)
        job.save()
    with job_of(tmp_path, lr={"base": "auto", "schedule": "1x"}, iterations=4) as job:
        job.resume()
        assert job.lr(2) == result.suggestion.lr


def test_updates_are_made_in_order(tmp_path):
    with job_of(tmp_path) as job:
        job.update(1)
        for t in (1, 3):
            with pytest.raises(ConfigError, match=f"update {t} is out of order, 2 is next"):
                job.update(t)
        with pytest.raises(ConfigError, match=r"the loop did not call job\.update\(2\)"):
            for _ in job:
                pass


def test_numbers_of_numpy_count_updates_and_checkpoints(tmp_path):
    with job_of(tmp_path) as job:
        for t in np.arange(1, 3):
            job.update(t)
        assert verify(job.save(keep=np.int64(1)))["state"]["iteration"] == 2
        assert type(job.iteration) is int


def test_what_is_no_number_of_an_update_or_of_checkpoints_is_refused(tmp_path):
    with job_of(tmp_path) as job:
        for wrong in (True, 1.0, "1", None, np.array([1, 2])):
            with pytest.raises(ConfigError, match=r"Job: update: found .* must be a whole number"):
                job.update(wrong)
        job.update(1)
        for wrong in (0, -1, "3", None, 1.5):
            with pytest.raises(ConfigError, match=r"Job: keep: found .* must be"):
                job.save(keep=wrong)
        with pytest.raises(ConfigError, match="settings: found a dict; give a FinderSettings"):
            job.find_lr({})


def test_a_folder_that_is_a_file_does_not_ask_to_wait(tmp_path):
    (tmp_path / "file").write_text("")
    with job_of(tmp_path / "file") as job, pytest.raises(ConfigError, match="cannot be made") as refused:
        job.save()
    assert "wait" not in str(refused.value)
    assert "Job(folder=...)" in str(refused.value)


def test_outside_of_with_it_says_so(tmp_path):
    job = job_of(tmp_path)
    with pytest.raises(ConfigError, match="Job: is not open yet, so it cannot be updated"):
        job.update(1)
    finished(job)
    for use in (lambda: job.evaluate(DIGITS.test), job.save, job.resume, job.find_lr, lambda: job.plan):
        with pytest.raises(ConfigError, match="Job: is closed"):
            use()
    with pytest.raises(ConfigError, match="was opened before"):
        job.__enter__()


def test_an_error_in_the_loop_comes_out_and_everything_is_closed(tmp_path):
    def fail():
        with job_of(tmp_path) as job:
            job.update(1)
            job.save()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with job_of(tmp_path) as job:  # its lock is free again
        assert job.resume() == 1
    with pytest.raises(DivergedError):
        finished(job_of(tmp_path / "hot", lr=1e30))


@pytest.mark.parametrize(
    ("changed", "kind", "message"),
    [
        ({"net": "mlp"}, ConfigError, r"net: found a str; give a gluon\.Block"),
        ({"net": nn.Dense(10)}, ConfigError, r"net: .*weight.* no value yet; call net\.initialize"),
        ({"optimizer": 3}, ConfigError, "optimizer: found a int; give"),
        ({"optimizer": "sdg"}, ConfigError, "'sdg'.*did you mean 'sgd'"),
        ({"optimizer": {"sgd": {"momentun": 0.9}}}, ConfigError, "no such parameter; did you mean 'momentum'"),
        ({"optimizer": mx.optimizer.SGD(lr_scheduler=mx.lr_scheduler.PolyScheduler(9))}, ConfigError, "lr_scheduler"),
        ({"optimizer": mx.optimizer.LARS()}, ConfigError, "give it by name"),
        ({"batch": 0}, ConfigError, "Job: batch: found 0; must be at least 1"),
        ({"batch": "32"}, ConfigError, "Job: batch: found '32'; must be a whole number"),
        ({"iterations": None}, ConfigError, "found neither of epochs and iterations"),
        ({"epochs": 2}, ConfigError, "found both of epochs and iterations"),
        ({"lr": "fast"}, ConfigError, "Job: lr.schedule: "),
        ({"lr": {"schedule": "1x"}}, ConfigError, "Job: lr.base: is missing"),
        ({"lr": {"schedule": 0.1, "momentum": 0.5}, "optimizer": "adam"}, ConfigError, "no effect on this Adam"),
        ({"clip_nrom": 1.0}, ConfigError, "Job: clip_nrom: unknown key; did you mean 'clip_norm'"),
        ({"augmentation": True}, ConfigError, "Job: augmentation: found a bool; give a Augmentation"),
        ({"world": 2}, ConfigError, "Job: world: found a int"),
        ({"last_batch": "pad"}, ConfigError, "Job: last_batch: "),
        ({"batch": 10_000}, ConfigError, "Job: batch: a global batch is 2 shards x 10000"),
        ({"train": None}, DataError, "train: found None; give a gluon.data.Dataset"),
        ({"train": np.zeros((4, 2))}, DataError, "train: a ndarray"),
        ({"train": (np.zeros((40, 2)), np.zeros(39))}, DataError, "train"),
        ({"train": mx.gluon.data.DataLoader([(1, 2)], 1)}, DataError, "train: found a DataLoader"),
        ({"train": (np.zeros((40, 2), np.float32), np.full(40, 10))}, DataError, r"label 10 of sample 0 is not in"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_its_name(changed, kind, message, tmp_path):
    with pytest.raises(kind, match=message), job_of(tmp_path, **changed):
        pass


def test_what_cannot_be_evaluated_is_refused_by_its_name(tmp_path):
    with job_of(tmp_path) as job:
        for data, metrics, message in (
            (None, None, "evaluate: found None"),
            (DIGITS.test, ["acuracy"], "did you mean 'accuracy'"),
            (DIGITS.test, "accuracy", "give a list of names"),
            (DIGITS.test, {"own": 3}, "'own' is not a function"),
            (DIGITS.test, ["rmse"], "does not fit predictions"),
        ):
            with pytest.raises((ConfigError, DataError), match=message):
                job.evaluate(data, metrics)


def test_importing_harness_is_silent_and_light():
    code = "import sys, harness; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    ended = subprocess.run([sys.executable, "-c", code], cwd=FOLDER.parent, capture_output=True, text=True, check=True)
    assert ended.stderr == ""
    assert not {"mxnet", "horovod", "mpi4py", "numpy", "pydantic"} & set(ended.stdout.split())
    with pytest.raises(AttributeError, match="has no attribute 'Jobs'"):
        harness.Jobs()


def test_two_ranks_end_with_the_bits_of_one_and_resume(start, whole, tmp_path):
    def run(what):
        out = start("tests/programs/own_job.py", tmp_path / "ranks", what, np=2, launcher="mpirun").stdout
        return re.search(r"begun after (\d+), (\d) digest: (\w{64})", out).groups()

    assert run("saved")[:2] == ("0", "1")
    assert run("resumed") == ("6", "1", whole)


def test_a_rank_that_fails_ends_the_others_with_its_cause(start, tmp_path):
    ended = start("tests/programs/own_job.py", tmp_path, "raise", np=2, launcher="mpirun", exit_code=None, timeout_s=40)
    assert ended.returncode != 0
    assert re.search(r"error: rank 0, waiting in .*: rank 1 left in .*: ValueError: no room for more", ended.stderr)
    assert "raise ValueError" in ended.stderr  # the traceback of the rank that failed
