"""Hooks of a job: told by its calls, heard, and without effect on its bits."""

from __future__ import annotations

import re

import pytest

from harness.errors import ConfigError
from harness.hooks import Ask, Evaluated, Logged, Saved
from tests.job.small import DIGITS, finished, job_of
from tests.programs import own_hooks

OWN = "tests.programs.own_hooks"


def named(events):
    return [(type(event).__name__, event.iteration) for event in events]


def test_it_is_told_what_the_program_does(tmp_path):
    events = []
    with job_of(tmp_path / "small", hooks=events.append, log_every=5) as job:
        assert events == []
        for t in job:
            loss = job.update(t)
            if t == 6:
                job.evaluate(DIGITS.test, name="test")
                saved = job.save()
        assert job.plan.lr(12) == events[0].lr[11]
    expected = [("Opened", 0), ("Logged", 1), ("Logged", 5), ("Evaluated", 6), ("Saved", 6), ("Logged", 10)]
    assert named(events) == [*expected, ("Logged", 12), ("Ended", 12)]
    opened, first, *_ = events
    assert (opened.name, opened.folder, opened.config["batch"]) == ("small", tmp_path / "small", 16)
    assert opened.config["optimizer"]["class"] == "NAG"
    assert first.line[:5] == ("train", 1, 1, opened.lr[0], 0.9)
    assert set(first.line.values) == {"loss", "gradient_norm", "images_per_s"}
    (line,) = next(event.lines for event in events if isinstance(event, Evaluated))
    assert (line.split, set(line.values)) == ("test", {"loss", "accuracy"})
    assert next(event.checkpoint for event in events if isinstance(event, Saved)) == saved
    assert [event for event in events if isinstance(event, Logged)][-1].line.values["loss"] == float(loss)
    assert events[-1].outcome.exit_code == 0


@pytest.mark.usefixtures("_handlers_put_back")  # alone, a job leaves signals to the program
def test_its_bits_are_those_without_hooks(tmp_path, whole):
    job = job_of(tmp_path, hooks=[own_hooks.disturb, own_hooks.disturb], log_every=1)
    assert finished(job) == whole


def test_a_job_that_resumes_tells_so(tmp_path, whole, monkeypatch):
    with job_of(tmp_path) as job:
        for t in job:
            job.update(t)
            if t == 6:
                job.save()
                break
    events = []
    with job_of(tmp_path, hooks=events.append) as job:
        monkeypatch.setattr("harness.job.hooks.JobHooks.resumed", more_ranks(job))
        job.resume()
        for t in job:
            job.update(t)
        assert job.learner.digest() == whole
    expected = [("Opened", 6), ("Saved", 6), ("WorldChanged", 6), ("Logged", 10), ("Logged", 12), ("Ended", 12)]
    assert named(events) == expected
    assert (events[2].before, events[2].after) == (3, 1)
    assert events[0].start.origin == str(events[1].checkpoint)


def more_ranks(job):
    from harness.job.hooks import JobHooks

    resumed = JobHooks.resumed
    return lambda hooks, origin, num_ranks: resumed(hooks, origin, num_ranks + 2)


def test_it_asks_for_a_checkpoint_or_the_end(tmp_path, whole):
    events = []

    def ask(event):
        events.append(event)
        save, stop = (isinstance(event, Logged) and event.iteration == at for at in (3, 6))
        return Ask(save=save, stop=stop, why="enough")

    with job_of(tmp_path, hooks=ask, log_every=1) as job:
        for t in job:
            job.update(t)
        assert (job.stopped, job.iteration) == (True, 8)  # of one process: with the update after the next
    assert [event.iteration for event in events if isinstance(event, Saved)] == [5, 8]
    assert events[-1].outcome.exit_code == 0
    with job_of(tmp_path) as job:
        assert job.resume() == 8
        for t in job:
            job.update(t)
        assert not job.stopped
        assert job.learner.digest() == whole


def warns_of(words):
    return pytest.warns(UserWarning, match=words)


def test_an_error_is_a_warning_or_the_end(tmp_path, whole):
    with warns_of(r"own_hooks:fail \(Logged, iteration 1\): KeyError"), warns_of("SystemExit"):
        assert finished(job_of(tmp_path / "warns", hooks=own_hooks.fail)) == whole
    job = job_of(tmp_path / "stops", hooks=own_hooks.fail, hooks_fail="stop")
    with pytest.raises(ConfigError, match=r"own_hooks:fail \(Logged, iteration 1\): KeyError"), warns_of("has ended"):
        finished(job)
    with job_of(tmp_path / "stops") as job:
        assert job.resume() == 3


def test_a_hook_may_not_begin_what_all_ranks_do_together(tmp_path, whole):
    refused = []

    def calls(event):
        if isinstance(event, Logged) and event.iteration == 1:
            for call in (job.save, job.find_lr, job.resume, lambda: job.update(2), lambda: job.evaluate(DIGITS.test)):
                with pytest.raises(ConfigError, match="by a hook, which rank 0 calls alone; return an Ask") as raised:
                    call()
                refused.append(re.search("cannot be (.*) by", str(raised.value))[1])
            assert job.lr(1) >= 0

    job = job_of(tmp_path, hooks=calls)
    assert finished(job) == whole
    assert refused == ["saved", "swept", "resumed", "updated", "evaluated"]


def test_what_is_idle_or_wrong_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="Job: hooks_fail: has no effect without hooks"):
        job_of(tmp_path, hooks_fail="stop")
    with pytest.raises(ConfigError, match="Job: log_every: has no effect without hooks"):
        job_of(tmp_path, log_every=3)
    with pytest.raises(ConfigError, match="Job: hooks: found 'mine:hook'; give a list of functions"):
        job_of(tmp_path, hooks="mine:hook")
    with pytest.raises(ConfigError, match="log_every"):
        job_of(tmp_path, hooks=own_hooks.fail, log_every=0)


def test_one_that_was_never_used_tells_nothing(tmp_path):
    events = []
    with job_of(tmp_path, hooks=events.append) as job:
        assert job.rank == 0
    assert events == []


def wrong(job):
    job.update(1)
    raise KeyError("mine")


def test_an_error_of_the_program_is_how_it_ended(tmp_path):
    events = []
    job = job_of(tmp_path, hooks=events.append)
    with pytest.raises(KeyError), job:
        wrong(job)
    assert (events[-1].outcome.exit_code, events[-1].outcome.cause) == (1, "KeyError: 'mine'")


def test_both_ranks_of_a_job_stop_after_the_same_update_and_a_second_start_ends_with_its_bits(start, tmp_path, whole):
    def lines():
        done = start("tests/programs/hooked_job.py", tmp_path / "job", np=2, launcher="mpirun")
        return sorted(line for line in done.stdout.splitlines() if line)

    first, second = lines(), lines()
    assert [re.sub("[0-9a-f]{64}", "DIGEST", line) for line in first] == [
        "rank 0: 7, True, DIGEST, Opened 0, Logged 1, Logged 3, Logged 6, Saved 7, Ended 7",
        "rank 1: 7, True, DIGEST, ",
    ]
    assert second == [
        f"rank 0: 12, False, {whole}, Opened 7, Saved 7, Logged 9, Logged 12, Ended 12",
        f"rank 1: 12, False, {whole}, ",
    ]
