"""Hooks in whole runs: told what the files get, in order; heard; and without effect on the bits.

What is told after a kill is in `test_killed.py`.
"""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from harness.checkpoint import write_checkpoint
from harness.comm import SingleWorld
from harness.errors import ConfigError, DivergedError, StoppedOnRequestError
from harness.guard import Guard
from harness.train.loop import train
from tests.train.runs import run_builder
from tests.train.test_loop import SETTINGS, TOTAL, Stopper, checkpoints, newest_state, result_of

OWN = "tests.programs.own_hooks"
DROPOUT = "network={name: mlp, params: {hidden: [8], dropout: 0.5}}"


@pytest.fixture
def run_of(tmp_path, request):
    return run_builder(SETTINGS, tmp_path, request)


@pytest.fixture
def kept(tmp_path):
    """The setting of a hook that keeps what it is told, and what was."""
    path = tmp_path / "told"
    return f"hooks=[{{'{OWN}:keep': {{path: '{path}'}}}}]", lambda: list(map(json.loads, path.read_text().splitlines()))


def lines_of(run):
    clocks = ("time", "images_per_s")
    lines = map(json.loads, (run.folder.path / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key not in clocks} for line in lines]


def in_lines(events):
    """The lines of metrics.jsonl that were told, in their order."""
    return [line for kind, _, lines in events if kind in ("Logged", "Evaluated") for line in lines]


def test_a_hook_is_told_what_the_files_get_in_their_order(run_of, kept):
    setting, events = kept
    run = run_of("run", setting, "data.validation=100")
    train(run, "error")
    found = events()
    assert found[0] == ["Opened", 0, [0, 1]]
    assert found[-1] == ["Ended", TOTAL, [0, "done"]]
    assert in_lines(found) == lines_of(run)
    assert {t: len(lines) for kind, t, lines in found if kind == "Evaluated"} == {4: 1, 8: 1, 12: 1, TOTAL: 2}
    assert [t for kind, t, _ in found if kind == "Saved"] == checkpoints(run)
    at = {name: number for number, (kind, _, name) in enumerate(found) if kind == "Saved"}
    for name, number in at.items():  # what a checkpoint contains was told before
        assert all(t > int(name[-9:]) or place < number for place, (kind, t, _) in enumerate(found) if kind == "Logged")


@pytest.mark.usefixtures("_handlers_put_back")
def test_the_bits_are_those_without_hooks_whatever_hooks_do(run_of, tmp_path):
    plain = run_of("plain", DROPOUT)
    train(plain, "error")
    where = os.getcwd()
    run = run_of("run", DROPOUT, f"hooks=['{OWN}:disturb', '{OWN}:fail', '{OWN}:count', '{OWN}:disturb']")
    train(run, "error")
    assert os.getcwd() == where
    assert result_of(run) == result_of(plain)


def test_one_may_be_taken_out_or_added_when_a_run_resumes_also_elsewhere(run_of, kept):
    setting, events = kept
    run = run_of("run", setting, guard=Stopper("iteration 7"))
    with pytest.raises(StoppedOnRequestError):
        train(run, "error")
    run.folder.close()
    other = run_of("other", resume=run.folder.path)  # whose configuration does not name that code
    train(other, "error")
    again = run_of("run", f"hooks=['{OWN}:count']", resume="auto")
    train(again, "error")
    assert result_of(again)[:2] == result_of(other)[:2]
    assert events()[-1] == [
        "Ended",
        7,
        [75, "stopped on request: saved after iteration 7; start it again with --resume auto"],
    ]


def test_an_attempt_that_resumes_tells_its_checkpoint_and_the_rest_again(run_of, kept):
    setting, events = kept
    first = run_of("run", setting, guard=Stopper("iteration 7"))
    with pytest.raises(StoppedOnRequestError):
        train(first, "error")
    first.folder.close()
    num_told = len(events())
    resumed = run_of("run", setting, resume="auto")
    train(resumed, "error")
    found = events()[num_told:]
    assert found[:2] == [["Opened", 7, [7, 1]], ["Saved", 7, "iteration-000000007"]]
    assert in_lines(events()) == lines_of(resumed)  # nothing was lost with the stop


def test_a_checkpoint_that_was_under_way_when_the_run_failed_is_told_before_the_end(run_of, kept, monkeypatch):
    def slow(*given):
        time.sleep(0.5)
        return write_checkpoint(*given)

    def diverged(*_):
        raise DivergedError("iteration 6: not finite").at(6)

    setting, events = kept
    monkeypatch.setattr("harness.checkpoint.writer.write_checkpoint", slow)
    monkeypatch.setattr("harness.train.log.TrainingLog.updated", lambda log, run, learner, t, loss: t < 6 or diverged())
    with pytest.raises(DivergedError):
        train(run_of("run", setting, "checkpoint={every: 5it, best: null}"), "error")
    assert events()[-2:] == [["Saved", 5, "iteration-000000005"], ["Ended", 5, [6, "iteration 6: not finite"]]]


def test_decisions_and_other_changes_of_the_plan(run_of, kept):
    setting, events = kept
    plateau = "lr.plateau={patience: 1, factor: 0.5, threshold: 0.9}"
    stop = "train.early_stop={patience: 2, min_delta: 50}"
    run = run_of("run", setting, "lr={base: null, schedule: 0.1}", plateau, stop, "evaluation.every=1it")
    train(run, "error")
    amended = [content for kind, _, content in events() if kind == "Amended"]
    assert amended == [one.to_json() for one in newest_state(run).amendments]
    assert [one["choice"] for one in amended] == ["plateau", "early_stop"]
    run.folder.close()
    num_told = len(events())
    longer = run_of(
        "run",
        setting,
        "lr={base: null, schedule: 0.1}",
        plateau,
        "evaluation.every=1it",
        resume="auto",
        on_conflict="config",
    )
    train(longer, "error")
    found = events()[num_told:]
    assert [kind for kind, *_ in found[:3]] == ["Opened", "Saved", "Amended"]
    assert found[2][2]["choice"] == "config"
    assert in_lines(events()) == lines_of(longer)


def test_a_rewind_tells_again_what_comes_after(run_of, kept, monkeypatch):
    from harness.train.log import TrainingLog

    setting, events = kept
    updated, failed = TrainingLog.updated, []

    def once(log, run, learner, t, loss):
        if t == 9 and not failed:
            failed.append(t)
            raise DivergedError("iteration 9: not finite").at(t)
        updated(log, run, learner, t, loss)

    monkeypatch.setattr(TrainingLog, "updated", once)
    run = run_of(
        "run",
        setting,
        "guard.divergence.policy=rewind",
        "log.every=1it",
        "evaluation.every=20it",
        "checkpoint={every: 5it, best: null}",
    )
    train(run, "error")
    told_of = [t for kind, t, line in events() if kind == "Logged" and line[0]["split"] == "train"]
    assert told_of == [*range(1, 9), *range(6, TOTAL + 1)]
    changes = [(kind, t) for kind, t, content in events() if kind == "Amended"]
    assert changes == [("Amended", 5)]
    assert in_lines(events())[-len(range(6, TOTAL + 1)) :] == lines_of(run)[-len(range(6, TOTAL + 1)) :]


@pytest.mark.parametrize(("at", "policy", "saved"), [(3, "skip", 4), (6, "skip", 7), (6, "stop", 8)])
def test_a_hook_asks_for_a_checkpoint_once(run_of, at, policy, saved):
    """One process hears of it with the next update, or, where no update is waited for, with the one after."""
    run = run_of(
        "run",
        f"hooks=[{{'{OWN}:ask': {{at: {at}, save: true}}}}]",
        "checkpoint={every: null}",
        f"guard.divergence.policy={policy}",
    )
    train(run, "error")
    assert checkpoints(run) == [saved]


def test_a_hook_asks_for_the_end(run_of):
    plain = run_of("plain")
    train(plain, "error")
    run = run_of("run", f"hooks=[{{'{OWN}:ask': {{at: 6, stop: true}}}}]")
    message = rf"stopped on request \(the hook {OWN}:ask: enough\): saved after iteration 7; start it again"
    with pytest.raises(StoppedOnRequestError, match=message):
        train(run, "error")
    assert newest_state(run).iteration == 7
    run.folder.close()
    resumed = run_of("run", resume="auto")
    train(resumed, "error")
    assert result_of(resumed) == result_of(plain)
    late = run_of("late", f"hooks=[{{'{OWN}:ask': {{at: {TOTAL}, stop: true}}}}]")
    train(late, "error")  # nothing is left to stop
    assert newest_state(late).iteration == TOTAL


def test_an_error_is_a_warning_once_or_the_end(run_of, capsys):
    run = run_of("run", f"hooks=['{OWN}:fail']")
    train(run, "warning")
    shown = capsys.readouterr().out
    assert shown.count(f"hooks: {OWN}:fail (Logged, iteration 1): KeyError: 'no such thing'") == 1
    assert shown.count("KeyError") == 1
    strict = run_of("strict", f"hooks=['{OWN}:fail']", "hooks_fail=stop")
    with pytest.raises(ConfigError, match=rf"hooks: {OWN}:fail \(Logged, iteration 1\): KeyError") as raised:
        train(strict, "error")
    assert (raised.value.exit_code, raised.value.everywhere) == (2, True)
    assert checkpoints(strict) == [2]
    strict.folder.close()
    again = run_of("strict", resume="auto")
    train(again, "error")
    assert result_of(again) == result_of(run)


def test_an_error_at_the_very_end_is_an_end_too(run_of):
    run = run_of("run", f"hooks=['{OWN}:fail']", "hooks_fail=stop", "train={iterations: 1}", "lr.schedule=1x")
    with pytest.raises(ConfigError, match="KeyError"):
        train(run, "error")
    assert checkpoints(run) == [1]


def test_one_that_cannot_be_imported_leaves_nothing_behind(run_of):
    run = run_of("run", "hooks=['no_such_module:hook']")
    message = r"configs/digits.yaml: hooks\[0\]: 'no_such_module:hook': there is no module"
    with pytest.raises(ConfigError, match=message):
        train(run, "error")
    assert not run.folder.path.exists()


def test_another_number_of_ranks_is_told(run_of, kept, monkeypatch):
    setting, events = kept
    run = run_of("run", guard=Stopper("iteration 7"))
    with pytest.raises(StoppedOnRequestError):
        train(run, "error")
    run.folder.close()
    monkeypatch.setattr("harness.train.resume.ResumePoint.num_ranks", 4)
    train(run_of("run", setting, resume="auto"), "error")
    changed = [event for event in events() if event[0] == "WorldChanged"]
    assert changed == [["WorldChanged", 7, [4, 1]]]


def test_a_hook_that_hangs_is_named_and_signals_are_taken_again():
    """What the guard of a rank does around a hook."""
    from harness.config import GuardConfig
    from harness.folder.outcome import OutcomeFiles
    from harness.guard.signals import StopSignals

    signals = StopSignals()
    guard = Guard(SingleWorld(), GuardConfig(), OutcomeFiles(0, "x", {}), signals=signals)
    guard.open()
    try:
        guard.defer_stops()
        guard.enter("iteration 3")
        with guard.outside("the hook mine:watch"):
            assert guard.activity() == "the hook mine:watch"
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.set_wakeup_fd(-1)
        assert guard.activity() == "iteration 3"
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):
            if guard.stop_requested:
                break
            signal.sigtimedwait([], 0.005)
        assert guard.stop_requested
    finally:
        guard.close()
