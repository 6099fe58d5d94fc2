"""Optimizers of the user's own in a job: as an object and by name, resumed; and one that cannot be."""

from __future__ import annotations

import pytest

from harness.errors import ConfigError
from tests.job.small import finished, job_of
from tests.programs.own_optimizers import Bad, Noisy

NAME = "tests.programs.own_optimizers:Noisy"


def test_an_object_and_a_name_train_alike_and_resume(tmp_path):
    found = finished(job_of(tmp_path / "object", optimizer=Noisy(0.1, wd=0.1)))
    with job_of(tmp_path / "name", optimizer={NAME: {"wd": 0.1}}) as job:
        for t in job:
            job.update(t)
            if t == 5:
                job.save(t)
                break
    with job_of(tmp_path / "name", optimizer={NAME: {"wd": 0.1}}) as job:
        job.resume()
        assert job.learner.numbers()["scalars"] == {"product": pytest.approx(0.999**20), "steps": 20}  # four weights
        for t in job:
            job.update(t)
        assert job.learner.digest() == found


def test_one_that_cannot_be_resumed_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"^optimizer: Bad: keeps something that no checkpoint holds \(draws, kept\)"):
        job_of(tmp_path, optimizer=Bad("kept")).__enter__()
