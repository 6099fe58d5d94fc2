"""The front door: a Job has the bits of the parts that it is made of."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

import harness
from harness import Job
from harness.comm import SingleWorld
from harness.config import TrainConfig, load_config, parse_lr
from harness.data import Augmentation, BatchStream, Order
from harness.errors import ConfigError, DivergedError
from harness.folder.outcome import JOB_FOLDER, read_outcome
from harness.gluon import Learner, UpdateOptions, evaluate, shards_of_rank
from harness.model import build_metrics, build_model
from harness.plan import LRPlan, Sizes
from harness.schedules import PolySchedule
from harness.train.samples import first_samples
from tests.conftest import ROOT
from tests.job.small import DIGITS, LOSS, LR, finished, job_of, small


@pytest.mark.parametrize(
    ("batch", "options", "update"),
    [
        (16, {}, UpdateOptions()),
        (128, {"last_batch": "keep", "clip_norm": 0.1, "seed": 3}, UpdateOptions(clip_norm=0.1, seed=3)),
        (16, {"compression": "fp16"}, UpdateOptions(compression="fp16")),
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


def test_it_has_the_bits_of_the_command_with_the_same_configuration(here, tmp_path):
    settings = ["batch={size: 16, shards: 2}", "train={iterations: 12}", "evaluation.every=null", "threads_per_rank=1"]
    arguments = [word for setting in (*settings, f"output={tmp_path}") for word in ("--set", setting)]
    done = here("launch/train.py", *arguments)
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


def test_importing_harness_is_silent_and_light():
    code = "import sys, harness; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
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


@pytest.mark.parametrize(
    ("error", "code", "cause"),
    [(None, 0, "done"), (ValueError("no room"), 1, "ValueError: no room"), (ConfigError("no net"), 2, "no net")],
)
def test_a_supervisor_hears_how_the_only_rank_ended(error, code, cause, tmp_path, monkeypatch):
    monkeypatch.setenv(JOB_FOLDER, str(tmp_path))
    for _ in range(2):  # the second of a program is not taken for the first
        with contextlib.suppress(ValueError, ConfigError), job_of(tmp_path / "job"):
            assert (tmp_path / "rank-0.pid").read_text() == f"{os.getpid()}\n"
            assert read_outcome(tmp_path) is None
            if error is not None:
                raise error
        outcome = read_outcome(tmp_path)
        assert (outcome.exit_code, outcome.cause) == (code, cause)
