"""A job whose network carries state: the bits of the parts by hand, resumed in the middle, and what it refuses."""

from __future__ import annotations

import mxnet as mx
import pytest

from harness import Job
from harness.comm import SingleWorld
from harness.data import ArrayDataset, Augmentation, BatchStream, Order
from harness.errors import CheckpointError, ConfigError
from harness.gluon import Learner
from tests.job.small import DIGITS, LOSS, small
from tests.programs.streams import Elman, Reader, a_tenth, windows, zeros

TRAIN, HELD_OUT = windows(0, 77), windows(1, 29)


def reader():
    mx.random.seed(3)
    net = Reader()
    net.initialize(mx.init.Xavier())
    return net


def job_of(folder, net=None, **changed):
    given = {"train": TRAIN, "batch": 3, "shards": 4, "iterations": 9, "lr": 0.02, "state": zeros, **changed}
    return Job(net or reader(), LOSS, "adam", folder=folder, **given)


def by_hand():
    order = Order(77, 4, 3, seed=0, are_streams=True)
    with BatchStream(ArrayDataset(*TRAIN), order, [0, 2, 1, 3], Augmentation(), seed=0) as stream:
        given = {"shards": 4, "sample": stream(1), "state": zeros}
        learner = Learner(reader(), LOSS, mx.optimizer.Adam(), SingleWorld(), **given)
        for t in range(1, 10):
            learner.update(stream(t), 0.02)
        return learner.digest()


def test_it_trains_resumes_and_evaluates(tmp_path):
    with job_of(tmp_path) as job:
        for t in job:
            job.update(t)
            if t == 4:  # in an epoch, which has six
                job.save()
            if t == 5:
                break
    with job_of(tmp_path) as job:
        assert job.resume() == 4
        for t in job:
            job.update(t)
        before = job.learner.digest()
        found = [job.evaluate(HELD_OUT, ["perplexity"], streams=streams) for streams in (1, 29, None)]
        assert job.learner.digest() == before == by_hand()
    assert len({one["perplexity"] for one in found}) == 3


def test_a_checkpoint_tells_the_state(tmp_path):
    def begin(rows):
        return zeros(rows)

    with job_of(tmp_path) as job:
        job.update(1)
        job.save()
    with (
        job_of(tmp_path, state=begin) as job,
        pytest.raises(CheckpointError, match=r"loss\.state was zeros, now begin"),
    ):
        job.resume()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"state": 3},
            "state: found an int; give a function of a number of rows that returns the first state of a shard",
        ),
        (
            {"last_batch": "keep"},
            "Job: last_batch: keep is not possible with state, whose rows are streams of equal len",
        ),
    ],
)
def test_it_refuses_when_it_is_made(tmp_path, changed, said):
    with pytest.raises(ConfigError, match=said):
        job_of(tmp_path, **changed)


@pytest.mark.parametrize(
    ("streams", "said"),
    [(0, "Job: streams: found 0; must be at least 1"), ("all", "Job: streams: found 'all'; must be a whole number")],
)
def test_it_refuses_rows_of_an_evaluation(tmp_path, streams, said):
    with job_of(tmp_path) as job, pytest.raises(ConfigError, match=said):
        job.evaluate(HELD_OUT, [], streams=streams)


def test_rows_mean_nothing_without_state(tmp_path):
    said = "Job: streams: has no effect, because the network carries no state; leave it out"
    with job_of(tmp_path, small(), train=DIGITS.train, state=None) as job, pytest.raises(ConfigError, match=said):
        job.evaluate(DIGITS.test, streams=2)


def test_a_state_that_is_not_the_networks(tmp_path):
    mx.random.seed(3)
    net = Elman()
    net.initialize(mx.init.Xavier())
    job = job_of(tmp_path, net, state=lambda rows: {**a_tenth(rows), "more": a_tenth(rows)["read"]})
    with pytest.raises(ConfigError, match=r"network\.state: the network was given the state .* and returned"), job:
        pass
