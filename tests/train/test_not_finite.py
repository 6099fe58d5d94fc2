"""NaN in one update of a whole run in this process: what is skipped, put back, cut, recorded and resumed."""

from __future__ import annotations

import json

import pytest

from harness.checkpoint import Manifest, list_checkpoints, newest_valid, read_manifest
from harness.comm import SingleWorld
from harness.config import load_config
from harness.data import Order
from harness.errors import DivergedError
from harness.gluon import LearnerState
from harness.plan import Rewind
from harness.train.loop import train
from harness.train.prepare import prepare_run
from harness.train.resume import StartOptions
from harness.train.state import RunState

AT, TOTAL = 15, 24  # where the NaN is met, for the only time
BAD = int(Order(4000, shards=2, batch_size=16, seed=0).shard_indices(AT, shard=1)[3])
SETTINGS = (
    "data={name: 'tests.programs.own:data_with_nan', augment: {pad_crop: 0, flip: false}}",
    "network={name: 'tests.programs.own:normed', params: {}}",
    "batch={size: 16, shards: 2}",
    f"train={{iterations: {TOTAL}}}",
    "checkpoint={every: 6it, keep: 9}",
    "evaluation={every: 6it, metrics: [accuracy]}",
    "lr={base: 0.1, schedule: {cosine: {max_lr: 1x, min_lr: 0, cycle_length: 100%}}}",
    "log={every: 1it, tensorboard: false}",
    "threads_per_rank=1",
)


@pytest.fixture
def run_of(tmp_path, request):
    def build(policy, *settings, item=BAD, start=None, name="run"):
        words = [*SETTINGS, f"data.params={{item: {item}}}", f"guard.divergence={policy}", f"output={tmp_path}"]
        config = load_config("configs/digits.yaml", [*words, f"name={name}", *settings])
        run = prepare_run(config, SingleWorld(), threads=1, start=start)
        request.addfinalizer(run.folder.close)
        return run

    return build


def newest_state(run):
    path = newest_valid(list_checkpoints(run.folder.path / "checkpoints")).newest
    return RunState.of(Manifest.of(read_manifest(path), path), str(path))


def lines_of(run, split):
    lines = map(json.loads, (run.folder.path / "metrics.jsonl").read_text().splitlines())
    lines = [line for line in lines if line["split"] == split]
    found = {line["iteration"]: line for line in lines}
    assert len(found) == len(lines) or split == "rewind"  # no iteration is told twice
    return found


def test_stop_names_the_iteration_and_leaves_the_last_good_checkpoint(run_of):
    run = run_of("{policy: stop}")
    with pytest.raises(DivergedError, match=f"iteration {AT}: the loss is ") as caught:
        train(run, "error")
    assert caught.value.iteration == AT
    assert newest_state(run).iteration == 12
    assert not (run.folder.path / "final.params").exists()


def test_weights_that_the_last_update_ruins_are_not_written(run_of):
    two = f"schedules: [{{constant: {{lr: 0.05}}}}, {{constant: {{lr: 5e+30}}}}], boundaries: [{TOTAL}it]"
    settings = (f"lr={{base: null, schedule: {{sequential: {{{two}}}}}}}", "checkpoint={every: null}")
    run = run_of("{policy: stop}", *settings, item="null")
    with pytest.raises(DivergedError, match=f"iteration {TOTAL}: its update made weights or optimizer state"):
        train(run, "error")
    assert not (run.folder.path / "final.params").exists()


def test_skip_counts_the_update_and_the_count_is_resumed(run_of, capsys):
    run = run_of("{policy: skip}")
    train(run, "warning")
    assert "skipped the update (1 of at most 10)" in capsys.readouterr().out
    assert newest_state(run) == RunState(TOTAL, skipped=1)
    assert lines_of(run, "skipped")[AT]["count"] == 1
    assert AT not in lines_of(run, "train")
    # a fork from after the skipped update has it on its account
    start = StartOptions(resume=str(run.folder.path / "checkpoints/iteration-000000018"))
    fork = run_of("{policy: skip}", start=start, name="fork")
    assert fork.initial_state == RunState(18, skipped=1)
    train(fork, "error")
    states = [LearnerState.load(one.folder.path / f"checkpoints/iteration-0000000{TOTAL}") for one in (run, fork)]
    assert states[0].digest() == states[1].digest()


def test_skipping_is_bounded(run_of):
    run = run_of("{policy: skip, at_most: 1}", "train={iterations: 250}")  # in the second epoch it is met again
    with pytest.raises(DivergedError, match=r"not finite in 2 updates, and guard\.divergence\.at_most leaves out 1"):
        train(run, "error")
    assert newest_state(run).skipped == 1


def test_rewind_puts_the_newest_checkpoint_back_and_cuts_every_rate_after_it(run_of, capsys):
    run = run_of("{policy: rewind, at_most: 2, lr_factor: 0.25}")
    with pytest.raises(DivergedError, match=r"after 2 rewinds, guard\.divergence\.at_most"):
        train(run, "warning")
    shown = capsys.readouterr().out
    assert "rewound to iteration 12 (1 of at most 2), learning rates x 0.25 from here" in shown
    rates = {t: line["lr"] for t, line in lines_of(run, "train").items()}
    assert list(rates) == list(range(1, AT))  # what came after iteration 12 was dropped, and is there once
    for t, rate in rates.items():
        assert rate == (run.plan.lr(t) if t <= 12 else run.plan.lr(t) * 0.25 * 0.25)
    assert lines_of(run, "rewind")[12]["diverged_at"] == AT
    plan = json.loads((run.folder.path / "plan.json").read_text())
    assert [(one["iteration"], one["lr_factor"]) for one in plan["amendments"]] == [(12, 0.25), (12, 0.25)]
    assert run.initial_state == RunState()  # of which nothing was changed


def test_a_rewind_is_recorded_in_later_checkpoints_and_holds_when_resumed(run_of):
    """Rates so high that the run diverges; after a rewind it goes through."""
    two = "schedules: [{constant: {lr: 0.05}}, {constant: {lr: 5e+10}}], boundaries: [8it]"
    settings = (f"lr={{base: null, schedule: {{sequential: {{{two}}}}}}}",)
    policy = "{policy: rewind, at_most: 9, lr_factor: 1e-8}"
    run = run_of(policy, *settings, item="null")
    train(run, "error")
    state = newest_state(run)
    assert state.iteration == TOTAL
    assert state.amendments
    assert all(isinstance(one, Rewind) and one.iteration == 6 for one in state.amendments)
    end = LearnerState.load(run.folder.path / f"checkpoints/iteration-0000000{TOTAL}").digest()
    start = StartOptions(resume=str(run.folder.path / "checkpoints/iteration-000000012"))
    again = run_of(policy, *settings, item="null", start=start, name="again")
    assert again.initial_state.amendments == state.amendments
    assert again.plan.fingerprint() == run.amended(state).plan.fingerprint()
    train(again, "error")
    assert LearnerState.load(again.folder.path / f"checkpoints/iteration-0000000{TOTAL}").digest() == end


def test_before_the_first_checkpoint_a_rewind_goes_to_the_beginning(run_of, capsys):
    run = run_of("{policy: rewind, at_most: 1, lr_factor: 0.5}", "checkpoint={every: null}")
    with pytest.raises(DivergedError, match="after 1 rewinds"):
        train(run, "warning")
    assert "rewound to iteration 0 (1 of at most 1), learning rates x 0.5 from here" in capsys.readouterr().out
    assert list(lines_of(run, "train")) == list(range(1, AT))
