"""Elastic jobs, and the unbroken runs that they have to end as."""

from __future__ import annotations

import re
import sys

import pytest

from tests.conftest import CLIENT, WITHOUT_HOROVOD
from tests.jobs.elastic import ElasticJob, metrics_of, without_clocks
from tests.test_bits import CONVOLUTIONS

SETTINGS = (
    *CONVOLUTIONS,
    "batch.shards=8",
    "checkpoint={every: 25it, keep: 2}",
    "log={every: 1it, tensorboard: false}",
)


@pytest.fixture(scope="session")
def unbroken(start, tmp_path_factory):
    """Digest, metrics and plan of the run of one process with these settings."""
    known = {}

    def result(*settings):
        if settings not in known:
            output = tmp_path_factory.mktemp("unbroken")
            words = [word for setting in (*settings, f"output={output}") for word in ("--set", setting)]
            text = start("launch/train.py", *words).stdout
            (run,) = [path.parent for path in output.glob("*/config.yaml")]
            digest = re.search(r"digest ([0-9a-f]{64})", text)[1]
            known[settings] = digest, without_clocks(metrics_of(run)), (run / "plan.csv").read_text()
        return known[settings]

    return result


@pytest.fixture
def elastic(fork_server, tmp_path, unbroken):
    """Start an elastic job, of processes that are forked by the server, or fresh ones.

    `end_as_unbroken` waits for its end, and compares it.
    """
    if WITHOUT_HOROVOD:
        pytest.skip(WITHOUT_HOROVOD)
    jobs = []

    def start(settings, np, *, fresh=False, **more):
        python = [sys.executable] if fresh else [sys.executable, "-I", "-S", str(CLIENT)]
        folder = tmp_path / f"job-{len(jobs)}"
        launch = {"launch": lambda words: [*python, *words], "environ": fork_server.environ}
        jobs.append(ElasticJob(folder, settings, np, **launch, **more))
        return jobs[-1]

    yield start
    for job in jobs:
        job.kill_all()


@pytest.fixture
def end_as_unbroken(unbroken, fork_server):
    """Wait for the end of a job: its bits and metrics are those of the unbroken run, and it leaves nothing."""

    def end(job, settings, timeout_s=300):
        digest, metrics, plan = unbroken(*settings)
        code = job.end(timeout_s)
        assert code == 0, job.describe()
        assert job.digest == digest, job.describe()
        assert without_clocks(job.metrics()) == metrics
        assert (job.run / "plan.csv").read_text() == plan
        assert job.left_behind() == []
        assert fork_server.num_jobs() == 0

    return end
