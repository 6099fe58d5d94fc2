"""What an elastic job mends itself, and what its supervisor has to."""

from __future__ import annotations

import json
import signal
import sys
import time

import pytest

from tests.elastic.conftest import SETTINGS


def test_a_supervisor_restarts_a_job_without_workers_and_leaves_a_loss_to_it(elastic, end_as_unbroken):
    settings = (*SETTINGS, "train={iterations: 40}", "checkpoint={every: 5it, keep: 2}")
    supervisor = [sys.executable, "launch/supervise.py", "--pause", "0", "--"]
    job = elastic(settings, 2, prefix=supervisor, options=["--resume", "auto"])
    job.wait_for("iteration 10", lambda: job.iteration() >= 10)
    job.pause(0.1)
    job.send(job.workers()[0], signal.SIGKILL)
    job.wait_for("one worker", lambda: job.size() == 1)
    job.wait_for("a checkpoint since", lambda: job.iteration() >= job.worlds()[-1]["t"] + 6)
    assert "restarting" not in job.text()

    for worker in job.workers():
        job.send(worker, signal.SIGKILL)
    job.wait_for("both workers again", lambda: job.size() == 2)
    job.pause(0)
    end_as_unbroken(job, settings)
    assert job.text().count("restarting") == 1
    began, lost, again = [json.loads(line) for line in (job.run / "attempts.jsonl").read_text().splitlines()]
    assert [line["ranks"] for line in (began, lost, again)] == [2, 1, 2]
    assert lost["after"] < again["after"], "it resumed from before the loss"


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("number", "cause"),
    [(signal.SIGKILL, "(SIGTERM to ranks 0, 1)"), (signal.SIGSTOP, "(horovodrun does not answer any more)")],
)
def test_workers_whose_driver_is_lost_save_and_another_start_resumes(elastic, end_as_unbroken, number, cause):
    settings = (*SETTINGS, "train={iterations: 100}")
    job = elastic(settings, 2, fresh=True)  # so that the process that was started is the driver
    job.pause(0.5)
    job.wait_for("iteration 5", lambda: job.iteration() >= 5)
    job.process.send_signal(number)
    deadline_s = time.monotonic() + 90
    while job.workers() and time.monotonic() < deadline_s:
        time.sleep(0.1)
    outcome = json.loads((job.run / "outcome.json").read_text())
    assert outcome["exit_code"] == 75
    assert outcome["cause"].startswith(f"stopped on request {cause}: saved after iteration ")
    job.kill_all()
    end_as_unbroken(elastic(settings, 2, output=job.output, options=["--resume", "auto"]), settings)


@pytest.mark.thorough
@pytest.mark.parametrize("timeout_s", [4, 20], ids=["the driver gives up first", "the worker gives up first"])
def test_a_job_with_too_few_workers_saves_and_ends(elastic, end_as_unbroken, timeout_s):
    settings = (*SETTINGS, "train={iterations: 40}")
    limits = {"driver_options": ["--elastic-timeout", str(timeout_s)], "min_np": 2}
    job = elastic((*settings, "elastic.wait_s=6"), 2, **limits)
    job.pause(0.5)
    job.wait_for("iteration 5", lambda: job.iteration() >= 5)
    job.send(job.workers()[0], signal.SIGKILL)
    assert job.end(timeout_s=90) == 1, job.describe()
    assert job.left_behind() == []
    outcome = json.loads((job.run / "outcome.json").read_text())
    assert outcome["exit_code"] == 75, job.describe()
    assert ("not enough workers for 6 s" in outcome["cause"]) == (timeout_s == 20)
    end_as_unbroken(elastic(settings, 1, output=job.output, options=["--resume", "auto"]), settings)
