"""A job whose items and batches are made by functions: its bits, its checkpoints, what it refuses."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

from harness import Job
from harness.data import Functions, SequenceDataset, with_functions
from harness.errors import CheckpointError, ConfigError, DataError
from tests.job.small import DIGITS, LOSS, finished, job_of
from tests.programs import functions


def turned(item, random):
    data, label = item
    return (data if random is None else np.roll(data, int(random.integers(-1, 2)), axis=-1)), label


def turned_more(item, random):
    data, label = item
    return (data if random is None else np.roll(data, int(random.integers(-2, 3)), axis=-1)), label


def halves(items, random):
    data, label = (np.stack(part) for part in zip(*items, strict=True))
    return data if random is None else data * np.float32(random.random()), label


def words_job(folder, **changed):
    mx.random.seed(1)
    net = nn.HybridSequential()
    net.add(nn.Embedding(10, 4), nn.Dense(3, flatten=False))
    net.initialize(mx.init.Xavier())

    def tag(net, loss, data, label):
        scores = net(data["ids"])
        return scores, loss(scores, label)

    given = {
        "train": functions.sentences()["train"],
        "transform": functions.ids,
        "collate": {"pad": {"value": {"label": -1}}},
        "forward": tag,
        "batch": 6,
        "shards": 4,
        "iterations": 10,
        "last_batch": "keep",
        "lr": 0.02,
        **changed,
    }
    return Job(net, functions.mean_over_tokens(), "adam", folder=folder, **given)


def test_stacking_is_what_happens_anyway(whole, tmp_path):
    assert finished(job_of(tmp_path, collate="stack")) == whole


def test_a_data_set_with_functions_trains_as_a_job_with_functions(whole, tmp_path):
    found = {
        finished(job_of(tmp_path, transform=turned, collate=halves)),
        finished(job_of(tmp_path, train=with_functions(DIGITS.train, Functions.of(turned, halves)))),
        finished(job_of(tmp_path, train=with_functions(DIGITS.train, Functions.of(turned, None)), collate=halves)),
    }
    assert len(found) == 1
    assert found != {whole}


def test_one_that_resumes_ends_with_the_bits_of_one_that_was_not_stopped(tmp_path):
    digest = finished(words_job(tmp_path / "whole"))
    with words_job(tmp_path / "job") as job:
        for t in job:
            job.update(t)
            if t == 6:
                job.save()
                break
    with words_job(tmp_path / "job") as job:
        assert job.resume() == 6
        for t in job:
            job.update(t)
        assert job.learner.digest() == digest


@pytest.mark.parametrize("other", [{"transform": turned_more}, {"transform": None}, {"collate": "stack"}])
def test_one_with_other_functions_does_not_resume(tmp_path, other):
    with job_of(tmp_path, transform=turned, collate=halves) as job:
        job.update(1)
        job.save()
    with (
        job_of(tmp_path, **{"transform": turned, "collate": halves, **other}) as job,
        pytest.raises(CheckpointError, match=r"belongs to another job:\n(  data was .*\n)?  items was "),
    ):
        job.resume()


@pytest.mark.parametrize("given", [{"bucket": {"by": "data['ids']", "widths": 3}}, {"batches": functions.alike}])
def test_batches_of_alike_lengths_resume(tmp_path, given):
    given = {"last_batch": "drop", **given}
    digest = finished(words_job(tmp_path / "whole", **given))
    assert digest != finished(words_job(tmp_path / "other", last_batch="drop"))
    with words_job(tmp_path / "job", **given) as job:
        for t in job:
            job.update(t)
            if t == 6:
                job.save()
                break
    with words_job(tmp_path / "job", **given) as job:
        assert job.resume() == 6
        for t in job:
            job.update(t)
        assert job.learner.digest() == digest
    with (
        words_job(tmp_path / "job", last_batch="drop") as job,
        pytest.raises(CheckpointError, match=r"belongs to another job:\n  data was "),
    ):
        job.resume()


def test_the_length_of_a_job_follows_from_own_batches(tmp_path):
    with words_job(tmp_path, batches=functions.alike, last_batch="drop", iterations=None, epochs=2) as job:
        lengths = np.array([len(functions.sentences()["train"][i][0]) for i in range(100)])
        count = len(functions.alike(lengths, 1, 0))
        assert (job.sizes.iterations_per_epoch, job.sizes.num_iterations) == (count, 2 * count)
        for t in job:
            job.update(t)
    assert job.iteration == 2 * count


def test_an_evaluation_has_the_functions_of_the_job(tmp_path):
    test = functions.sentences()["test"]
    with words_job(tmp_path) as job:
        for t in job:
            job.update(t)
        found = job.evaluate(test)
        same = SequenceDataset(test, transform=Functions.of(functions.ids, None).transform, is_ragged=True)
        assert job.evaluate(same) == found
    assert 0 < found["loss"] < 1.5


def test_evaluations_do_not_depend_on_chance(tmp_path):
    with job_of(tmp_path, transform=turned, collate=halves) as job, job_of(tmp_path) as plain:
        assert job.evaluate(DIGITS.test) == plain.evaluate(DIGITS.test) == job.evaluate(DIGITS.test)


@pytest.mark.parametrize(
    ("changed", "kind", "message"),
    [
        ({"transform": 3}, ConfigError, r"^Job: transform: found an int; give a function\(item, random\)"),
        ({"transform": functions.one_argument}, ConfigError, r"^Job: transform: one_argument: takes \(item\), but is"),
        ({"collate": "padd"}, ConfigError, "^Job: collate: unknown name 'padd'; did you mean 'pad'"),
        ({"collate": {"pad": {"axes": 1}}}, ConfigError, r"^Job: collate\.pad\.axes: there is no such parameter"),
        ({"collate": lambda items: items}, ConfigError, r"takes \(items\), but is called with \(items, random\)"),
        ({"bucket": {"by": "data"}}, ConfigError, r"^Job: bucket\.widths: is missing; give the widths of the buckets"),
        ({"bucket": 3}, ConfigError, "^Job: bucket: found 3"),
        (
            {"bucket": {"widths": 2, "bi": 1}},
            ConfigError,
            r"^Job: bucket\.bi: unknown key; known here: by, widths",
        ),
        (
            {"batches": functions.alike, "bucket": {"widths": 3}},
            ConfigError,
            r"^Job: bucket\.widths: has no effect besi",
        ),
        (
            {"batches": functions.alike, "last_batch": "keep"},
            ConfigError,
            "^Job: last_batch: keep has no effect beside",
        ),
        ({"state": lambda rows: None, "bucket": {"widths": 3}}, ConfigError, "^Job: bucket, batches: are not possible"),
        ({"batches": lambda lengths: []}, ConfigError, r"^Job: batches: .* is called with \(lengths, epoch, seed\)"),
        (
            {"batches": functions.too_many},
            DataError,
            r"^Job: batches: too_many: batch 0 of epoch 1 has 1437 samples, but",
        ),
        ({"transform": functions.draws_globally}, DataError, r"^Job: transform: draws_globally: draws from the global"),
        (
            {"collate": functions.only_data},
            DataError,
            r"^Job: collate: only_data: .*returned an ndarray; return a pair",
        ),
    ],
)
def test_wrong_uses(tmp_path, changed, kind, message):
    with pytest.raises(kind, match=message), job_of(tmp_path, loss=LOSS, **changed):
        pass


def test_items_that_differ_in_length_name_what_pads_them(tmp_path):
    with pytest.raises(DataError, match="in a program collate='pad'"), words_job(tmp_path, collate=None):
        pass
