"""Plateau and early end in whole runs in this process: applied, recorded, shown, resumed, extended, undone.

Where a test needs certain values, evaluations are replaced by a script; the training is real.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from harness.checkpoint import Manifest, read_manifest
from harness.errors import CheckpointError, ConfigError, DivergedError, StoppedOnRequestError
from harness.gluon import Learner, LearnerState
from harness.plan import EarlyStop, Extend, PlateauCut, Replace, Rewind, Trend
from harness.report import write_run_report
from harness.train.decisions import Decisions
from harness.train.loop import train
from harness.train.state import RunState
from tests.train.runs import run_builder
from tests.train.test_loop import Stopper, newest_state

TOTAL = 16
SETTINGS = (
    "network={name: mlp, params: {hidden: [8]}}",
    "batch.shards=1",
    f"train={{iterations: {TOTAL}}}",
    "checkpoint={every: 3it, keep: 20}",
    "evaluation={every: 2it, metrics: [accuracy]}",
    "lr={base: null, schedule: 0.1}",
    "log={every: 1it, tensorboard: false}",
    "guard.divergence.policy=skip",  # so that one process, too, waits for an update and hears of a stop with it
    "threads_per_rank=1",
)
PLATEAU = "lr.plateau={patience: 1, factor: 0.5}"
STOP = "train.early_stop={patience: 3}"
# evaluations after 2, 4, ...: the second is the best; the third and fourth are none, nor are those from the sixth on
LOSSES = {2: 2.0, 4: 1.0, 6: 1.5, 8: 1.25, 10: 0.5, 12: 0.75, 14: math.nan, 16: 0.5}
GOLDEN = json.loads((Path(__file__).parents[1] / "plan/trends.json").read_text())


@pytest.fixture
def run_of(tmp_path, request):
    return run_builder(SETTINGS, tmp_path, request)


@pytest.fixture
def script(monkeypatch):
    """Replace what decisions see by values of a script, by iteration."""
    after = Decisions.after

    def replace(values):
        def scripted(decisions, run, state, found, split):
            return after(decisions, run, state, dict.fromkeys(found, values[state.iteration]), split)

        monkeypatch.setattr(Decisions, "after", scripted)

    return replace


def lines_of(run, split=None):
    clocks = ("time", "images_per_s")
    lines = map(json.loads, (run.folder.path / "metrics.jsonl").read_text().splitlines())
    lines = [{key: value for key, value in line.items() if key not in clocks} for line in lines]
    return [repr(line) for line in lines] if split is None else [line for line in lines if line["split"] == split]


def rates_of(run):
    return {line["iteration"]: line["lr"] for line in lines_of(run, "train")}


def digest_of(run, t=TOTAL):
    return LearnerState.load(run.folder.path / f"checkpoints/iteration-{t:09d}").digest()


def at(run, t):
    return run.folder.path / f"checkpoints/iteration-{t:09d}"


def test_a_plateau_lowers_later_rates_and_is_recorded_everywhere(run_of, script, capsys):
    script(LOSSES)
    run = run_of("run", PLATEAU)
    train(run, "info")
    shown = capsys.readouterr().out
    cut = PlateauCut(8, "test.loss", 2, 4, 1.0, lr_factor=0.5, min_lr=0.0)
    later = PlateauCut(14, "test.loss", 2, 10, 0.5, lr_factor=0.5, min_lr=0.0)
    state = newest_state(run)
    assert state.amendments == (cut, later)
    assert state.plateau == Trend("test.loss", 0.5, 10, since=1)  # the last evaluation was no improvement either
    assert rates_of(run) == {t: 0.1 if t <= 8 else 0.05 if t <= 14 else 0.025 for t in range(1, TOTAL + 1)}
    assert "a plateau may change the plan: after more than 1 evaluation of loss in a row without improvement" in shown
    assert (
        "iteration 8: test.loss has not improved in 2 evaluations (best 1 after iteration 4); learning rates x 0.5 "
        "from here" in shown
    )
    events = [(line["iteration"], line["lr_factor"], line["best"]) for line in lines_of(run, "plateau")]
    assert events == [(8, 0.5, 1.0), (14, 0.5, 0.5)]
    plan = json.loads((run.folder.path / "plan.json").read_text())
    assert plan["amendments"] == [cut.to_json(), later.to_json()]
    assert "x 0.5 after iterations 8, 14" in plan["described"]
    curve = (run.folder.path / "plan.csv").read_text().splitlines()
    assert curve[9].startswith("9,1,0.05,")
    write_run_report(run.folder.path)
    page = (run.folder.path / "report.html").read_text()
    assert page.count("plateau: test.loss has not improved in 2 evaluations (best 1 after iteration 4)") >= 2


@pytest.mark.parametrize("case", GOLDEN["plateau"][:12], ids=lambda case: "")
def test_a_run_applies_the_rates_that_pytorch_would(run_of, script, case):
    """The same evaluations, one after every update: the rate of each update is PyTorch's to the bit."""
    values, total = list(map(float, case["values"])), len(case["values"])
    script(dict(enumerate(values, start=1)))
    monitor = {"min": "loss", "max": "accuracy"}[case["settings"]["mode"]]
    plateau = json.dumps({**case["settings"], "monitor": monitor})
    settings = (f"train={{iterations: {total}}}", "checkpoint.every=null", "evaluation.every=1it")
    run = run_of("run", *settings, f"lr={{base: null, schedule: {case['lr']!r}, plateau: {plateau}}}")
    train(run, "error")
    rates = rates_of(run)
    assert [rates[t].hex() for t in range(2, total + 1)] == case["rates"][:-1]


@pytest.mark.parametrize("t", [3, 6, 9, 12, 15])
def test_a_run_that_resumes_decides_what_the_unbroken_one_did(run_of, script, t):
    script(LOSSES)
    settings = (PLATEAU, STOP.replace("3", "9"))
    unbroken = run_of("unbroken", *settings)
    train(unbroken, "error")
    fork = run_of("fork", *settings, resume=at(unbroken, t))
    train(fork, "error")
    assert newest_state(fork) == newest_state(unbroken)
    assert digest_of(fork) == digest_of(unbroken)
    assert lines_of(fork) == [
        line for line in lines_of(unbroken) if int(line.split("'iteration': ")[1].split(",")[0]) > t
    ]
    assert read_manifest(at(fork, TOTAL))["plan"] == read_manifest(at(unbroken, TOTAL))["plan"]


@pytest.mark.parametrize("where", ["iteration 8", "evaluation on test"])
def test_a_stop_before_the_evaluation_leaves_the_decision_to_the_run_that_resumes(run_of, script, where):
    script(LOSSES)
    unbroken = run_of("unbroken", PLATEAU)
    train(unbroken, "error")
    stopped = run_of("run", PLATEAU, guard=Stopper(where))
    with pytest.raises(StoppedOnRequestError):
        train(stopped, "error")
    stopped.folder.close()
    left = newest_state(stopped)
    assert left.amendments == ()
    resumed = run_of("run", PLATEAU, resume="auto")
    train(resumed, "error")
    assert newest_state(resumed) == newest_state(unbroken)
    assert digest_of(resumed) == digest_of(unbroken)
    assert rates_of(resumed) == rates_of(unbroken)


def test_an_early_end_is_an_end(run_of, script, capsys):
    """All splits are evaluated, a checkpoint is saved, the weights are those of the last update, and the code is 0."""
    script(LOSSES)
    run = run_of("run", STOP.replace("3", "2"), "data.validation=100")
    results = train(run, "info")
    shown = capsys.readouterr().out
    stop = EarlyStop(8, "validation.loss", 2, 4, 1.0)
    state = newest_state(run)
    assert (state.iteration, state.amendments, state.stops_early) == (8, (stop,), True)
    assert set(results) == {"validation.loss", "validation.accuracy", "test.loss", "test.accuracy"}
    assert max(rates_of(run)) == 8
    assert "the run may end early: after 2 evaluations of loss in a row without improvement" in shown
    assert "iteration 8: validation.loss has not improved in 2 evaluations (best 1 after iteration 4)" in shown
    assert f"done after 8 iterations of {TOTAL}, stopped early, digest {digest_of(run, 8)}" in shown
    assert (run.folder.path / "final.params").exists()
    write_run_report(run.folder.path)
    page = (run.folder.path / "report.html").read_text()
    assert "stopped early: validation.loss has not improved in 2 evaluations" in page
    assert [line["iteration"] for line in lines_of(run, "early_stop")] == [8]

    # started again it has nothing to do, and says why
    run.folder.close()
    again = run_of("run", STOP.replace("3", "2"), "data.validation=100", resume="auto")
    train(again, "info")
    shown = capsys.readouterr().out
    assert "this run has stopped early after iteration 8, and train.early_stop still says so; to train on" in shown
    assert newest_state(again) == state
    assert f"done after 8 iterations of {TOTAL}, stopped early, digest {digest_of(run, 8)}" in shown


def test_with_more_patience_a_run_that_had_stopped_trains_on_as_if_it_had_had_it(run_of, script):
    script(LOSSES)
    patient = run_of("patient", STOP, PLATEAU)
    train(patient, "error")
    assert newest_state(patient).iteration == 16  # 12, 14 and 16 are none
    hasty = run_of("hasty", STOP.replace("3", "2"), PLATEAU)
    train(hasty, "error")
    assert newest_state(hasty).iteration == 8
    hasty.folder.close()
    undecided = run_of("hasty", STOP, PLATEAU, resume="auto")
    with pytest.raises(CheckpointError, match=r"train\.early_stop\.patience: 2 -> 3"):
        train(undecided, "error")
    undecided.folder.close()
    resumed = run_of("hasty", STOP, PLATEAU, resume="auto", on_conflict="config")
    train(resumed, "error")
    assert digest_of(resumed) == digest_of(patient)
    assert [type(one) for one in newest_state(resumed).amendments] == [
        PlateauCut,
        EarlyStop,
        Replace,
        PlateauCut,
        EarlyStop,
    ]
    removed = run_of("removed", PLATEAU, resume=at(hasty, 8), on_conflict="config")
    train(removed, "error")
    assert digest_of(removed) == digest_of(patient)


@pytest.mark.parametrize("shorter", [9, 14])
def test_a_run_that_is_extended_decides_as_one_that_was_as_long_from_the_start(run_of, script, shorter):
    """Also where the decision came after the last update, and where an evaluation at the end is not due by `every`."""
    script({**LOSSES, 9: 0.25})
    long = run_of("long", PLATEAU)
    train(long, "error")
    short = run_of("short", PLATEAU, f"train={{iterations: {shorter}}}")
    train(short, "error")
    short.folder.close()
    state = newest_state(short)
    assert state.iteration == shorter
    extended = run_of("short", PLATEAU, resume="auto", on_conflict="config")
    train(extended, "error")
    assert digest_of(extended) == digest_of(long)
    assert newest_state(extended).plateau == newest_state(long).plateau
    found = [one for one in newest_state(extended).amendments if isinstance(one, PlateauCut)]
    assert found == list(newest_state(long).amendments)


def test_what_was_cut_stays_cut_when_the_plateau_is_taken_out(run_of, script):
    script(LOSSES)
    run = run_of("run", PLATEAU)
    train(run, "error")
    fork = run_of("fork", resume=at(run, 9), on_conflict="config")
    train(fork, "error")
    assert rates_of(fork) == dict.fromkeys(range(10, TOTAL + 1), 0.05)
    assert newest_state(fork).plateau == Trend("test.loss", 1.0, 4)  # as it was left
    kept = run_of("kept", resume=at(run, 9), on_conflict="checkpoint")
    assert kept.config.lr.plateau == run.config.lr.plateau
    train(kept, "error")
    assert digest_of(kept) == digest_of(run)
    assert isinstance(newest_state(kept).amendments[1], Extend)


def test_evaluations_are_part_of_the_plan_once_something_is_decided_from_them(run_of, script):
    script(LOSSES)
    top = "evaluation.metrics=[accuracy, {top_k: {k: 2, name: top}}]"
    settings = (PLATEAU, "lr.plateau.monitor=top", "lr.plateau.mode=max")
    run = run_of("run", *settings, top)
    train(run, "error")
    other = "evaluation.metrics=[f1, {top_k: {k: 2, name: top}}]"
    assert run_of("free", *settings, other, resume=at(run, 9)).undecided is None
    for change in ("evaluation.every=3it", "evaluation.metrics=[{top_k: {k: 3, name: top}}]"):
        changed = run_of("changed", *settings, top, change, resume=at(run, 9))
        assert f"  {change.partition('=')[0]}: " in changed.undecided
        changed.folder.close()
    plain = run_of("plain")
    train(plain, "error")
    assert run_of("free-2", "evaluation.every=3it", resume=at(plain, 9)).undecided is None


def test_a_rewind_undoes_what_was_decided_after_it(run_of, script, monkeypatch):
    script(LOSSES)
    update, failed = Learner.update, []

    def failing(learner, batch, *rest):
        if batch.t == 9 and not failed:
            failed.append(batch.t)
            raise DivergedError("iteration 9: made up").at(9)
        return update(learner, batch, *rest)

    monkeypatch.setattr(Learner, "update", failing)
    settings = (PLATEAU, "guard.divergence={policy: rewind, lr_factor: 0.25}")
    run = run_of("run", *settings)
    train(run, "error")
    assert failed == [9]
    cut = PlateauCut(8, "test.loss", 2, 4, 1.0, lr_factor=0.5, min_lr=0.0)
    assert newest_state(run).amendments[:2] == (Rewind(6, 0.25, 9), cut)  # made once more
    assert rates_of(run)[8] == 0.1 * 0.25
    assert rates_of(run)[9] == 0.1 * 0.25 * 0.5
    assert newest_state(run).plateau == Trend("test.loss", 0.5, 10, since=1)


def test_a_cut_by_next_to_nothing_is_left_out_and_a_floor_may_be_a_multiple(run_of, script):
    script(dict.fromkeys(range(TOTAL + 1), 1.0))
    tiny = run_of("tiny", "lr={base: null, schedule: 1e-8, plateau: {patience: 0}}")
    train(tiny, "error")
    assert set(rates_of(tiny).values()) == {1e-8}
    assert newest_state(tiny).amendments == ()
    floor = run_of("floor", "lr={base: 0.1, schedule: 1x, plateau: {patience: 0, factor: 0.1, min_lr: 0.05x}}")
    train(floor, "error")
    assert sorted(set(rates_of(floor).values()), reverse=True) == [0.1, 0.1 * 0.1, 0.05 * 0.1]
    assert len(newest_state(floor).amendments) == 2
    assert read_manifest(at(floor, TOTAL))["state"]["amendments"][0]["min_lr"] == 0.05 * 0.1


def test_a_cut_that_leaves_no_plan_is_not_made(run_of, script, capsys):
    script(dict.fromkeys(range(TOTAL + 1), 1.0))
    steps = "{sequential: {schedules: [{constant: {lr: 0.1}}, {constant: {lr: 1.0e-37}}], boundaries: [14it]}}"
    run = run_of("run", f"lr={{base: null, schedule: {steps}, plateau: {{patience: 0, factor: 0.1}}}}")
    train(run, "warning")
    assert set(rates_of(run).values()) == {0.1, 1e-37}
    assert newest_state(run).amendments == ()
    said = "iteration 4: test.loss has not improved in 1 evaluation (best 1 after iteration 2); learning rates stay as"
    assert f"{said} they are, because" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["lr.plateau={mode: max}"],
            "lr.plateau.mode: max is wrong for 'loss', of which the lowest is best; remove it",
        ),
        (
            [
                "lr.plateau={monitor: 'tests.programs.own_metrics:Median'}",
                "evaluation.metrics=['tests.programs.own_metrics:Median']",
            ],
            "lr.plateau.monitor: 'tests.programs.own_metrics:Median' is your own; say with mode whether max or min is "
            "best",
        ),
        (
            ["train.early_stop={patience: 2, monitor: accuracy, mode: min}"],
            "train.early_stop.mode: min is wrong for 'accuracy', of which the highest is best; remove it",
        ),
    ],
)
def test_a_direction_that_nobody_knows_or_that_is_wrong_is_refused(run_of, settings, message):
    with pytest.raises(ConfigError) as refused:
        run_of("run", *settings)
    assert str(refused.value) == f"configs/digits.yaml: {message}"


def test_what_a_checkpoint_remembers_is_checked(run_of, script):
    script(LOSSES)
    run = run_of("run", PLATEAU)
    train(run, "error")
    content = read_manifest(at(run, 9))
    content["state"]["plateau"]["best_at"] = 10
    with pytest.raises(CheckpointError, match=r"manifest\.json: state\.plateau\.best_at is 10; allowed: 1 to 9"):
        RunState.of(Manifest.of(content, "runs/x"), "runs/x")
