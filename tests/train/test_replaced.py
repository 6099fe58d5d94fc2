"""Which damaged samples others have replaced: added up once, whoever noted them and whenever."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from harness.checkpoint import (
    MOST_TOLD,
    NONE_REPLACED,
    Manifest,
    Replaced,
    list_checkpoints,
    newest_valid,
    read_manifest,
)
from harness.comm import SingleWorld
from harness.config import load_config
from harness.data import EvaluationBatch, Order, Replacement
from harness.errors import DivergedError, listed
from harness.folder import Fields, RecordError
from harness.gluon import Learner
from harness.train.log import replaced_in_words
from harness.train.loop import train
from harness.train.prepare import prepare_run
from harness.train.replaced import ReplacedSamples
from harness.train.state import RunState
from tests.gluon.ranks import on_ranks


def config(damaged="replace"):
    return SimpleNamespace(data=SimpleNamespace(pictures=damaged and SimpleNamespace(damaged=damaged)))


def replaced(sample):
    return Replacement(sample, sample + 1, f"{sample}.jpg: is empty")


def update(t):
    """What is replaced in an update: five samples in every other one."""
    return [replaced(int(row)) for row in np.random.default_rng(t).choice(1000, 5, replace=False)] if t % 2 else []


def added_up(ranks, put_together_after):
    """The sum of eight updates over ranks, which put together theirs after some of these; the same on each."""

    def work(world):
        noted, so_far = ReplacedSamples(world, config()), NONE_REPLACED
        for t in range(1, 9):
            noted.note(update(t)[world.rank :: world.size], t)
            if t in put_together_after:
                so_far = noted.put_together(so_far)
        return so_far

    (found,) = set(on_ranks(ranks, work))
    return found


def test_the_sum_depends_neither_on_ranks_nor_on_when_they_put_together_theirs():
    found = {added_up(ranks, after) for ranks in (1, 2, 3, 5) for after in ({8}, {2, 5, 8}, set(range(1, 9)))}
    assert len(found) == 1
    (one,) = found
    assert (one.count, one.in_epoch) == (20, 20)
    assert list(one.first) == [str(each) for t in (1, 3) for each in sorted(update(t))]
    assert len(one.first) == MOST_TOLD


def test_what_is_noted_for_updates_that_are_rewound_is_forgotten():
    noted = ReplacedSamples(SingleWorld(), config())
    noted.note(update(1), 1)
    noted.forget()
    noted.note(update(3)[:2], 3)
    assert noted.into(RunState(3)) == RunState(3, replaced=Replaced(2, 2, tuple(map(str, sorted(update(3)[:2])))))
    assert noted.into(RunState(4)) == RunState(4)


@pytest.mark.parametrize("damaged", ["stop", None])
def test_without_the_setting_there_is_no_collective(damaged):
    class Alone(SingleWorld):
        def allgather_object(self, value, name):
            raise AssertionError

    noted = ReplacedSamples(Alone(), config(damaged))
    noted.note([], 1)
    assert noted.into(RunState(1)) == RunState(1)
    assert noted.put_together(NONE_REPLACED) == NONE_REPLACED


def test_batches_of_an_evaluation_are_noted():
    noted = ReplacedSamples(SingleWorld(), config())
    for number in (0, 2):
        batch = EvaluationBatch(number, np.zeros(1), np.zeros(1))
        batch.replaced = (replaced(number),)
        noted.watch(batch)
    assert noted.put_together(NONE_REPLACED) == Replaced(2, 2, (str(replaced(0)), str(replaced(2))))


def test_an_epoch_begins_with_none():
    epoch = Replaced().more(12, [f"line {number}" for number in range(12)])
    assert (epoch.count, epoch.in_epoch, len(epoch.first)) == (12, 12, MOST_TOLD)
    assert epoch.more(1, ["one more"]) == Replaced(13, 13, epoch.first)
    assert epoch.after_epoch().more(1, ["one more"]) == Replaced(13, 1, ("one more",))
    assert not NONE_REPLACED
    assert epoch.after_epoch()


def test_long_lines_and_control_characters_are_written_so_that_they_can_be_shown():
    (line,) = Replaced().more(1, ["\x1b[2J" + "x" * 5000]).first
    assert line.startswith("\\x1b[2Jxxx")
    assert len(line) <= 500


@pytest.mark.parametrize("state", [Replaced(7), Replaced(7, 2, ("a", "b")), Replaced(70, 60, ("a",) * MOST_TOLD)])
def test_a_manifest_holds_it(state):
    assert Replaced.read(Fields(state.to_json(), "state.replaced")) == state


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"count": 0}, "x.count is 0; allowed: 1 to"),
        ({"in_epoch": 4}, "x.in_epoch is 4; allowed: 0 to 3"),
        ({"first": ["a"]}, "x.first has 1 lines; allowed: 2, of 2 samples"),
        ({"first": ["a", 1]}, "x.first[1] is 1, not text"),
        ({"first": "ab"}, "x.first is the text 'ab', not a list"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(content, said):
    with pytest.raises(RecordError) as caught:
        Replaced.read(Fields({"count": 3, "in_epoch": 2, "first": ["a", "b"], **content}, "x"))
    assert str(caught.value).startswith(said)


def test_it_is_told_in_a_sentence_and_some_lines():
    found = Replaced(30, 12, tuple("abcdefghij"))
    assert replaced_in_words("epoch 3", found) == (
        "epoch 3: 12 damaged samples were replaced (data.pictures.damaged), 30 in the run"
    )
    assert replaced_in_words("evaluation on test", Replaced(1, 1, ("a",))) == (
        "evaluation on test: 1 damaged sample was replaced (data.pictures.damaged)"
    )
    assert listed(found.first, of=found.in_epoch).splitlines()[-2:] == ["  j", "  and 2 more"]


SETTINGS = (
    "data={name: folder, workers: 1, pictures: {size: 8, resize: 8, damaged: replace}, augment: {pad_crop: 0}}",
    "batch={size: 2, shards: 2}",
    "train={iterations: 12}",
    "checkpoint={every: 4it, keep: 9}",
    "evaluation={every: null}",
    "lr={base: 0.01, schedule: {constant: {lr: 1x}}}",
    "log={every: 1it, tensorboard: false}",
    "guard.divergence={policy: rewind, at_most: 1}",
    "threads_per_rank=1",
)


def test_a_run_that_is_rewound_tells_of_each_once(tmp_path, monkeypatch, request, capsys):
    """Update 7 is not finite the first time: 5 and 6, after the checkpoint, are made again; an epoch has 5."""
    simplejpeg = pytest.importorskip("simplejpeg")
    pytest.importorskip("cv2")
    for number in range(20):
        path = tmp_path / "set" / f"n{number // 10}" / f"{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = simplejpeg.encode_jpeg(np.full((9, 9, 3), 12 * number, np.uint8))
        path.write_bytes(whole if number % 4 < 2 else b"")
    order = Order(20, shards=2, batch_size=2, seed=0)
    assert all(any(row % 4 >= 2 for row in order.global_indices(t)) for t in (5, 6))

    def trained(name):
        files = f"data.pictures.train={{folder: {tmp_path}/set}}"
        config = load_config("configs/digits.yaml", [*SETTINGS, files, f"output={tmp_path}", f"name={name}"])
        run = prepare_run(config, SingleWorld(), threads=1)
        request.addfinalizer(run.folder.close)
        train(run, "warning")
        run.data.splits.train.close()
        lines = map(json.loads, (run.folder.path / "metrics.jsonl").read_text().splitlines())
        told = [line["said"] for line in lines if line["split"] == "replaced"]
        path = newest_valid(list_checkpoints(run.folder.path / "checkpoints")).newest
        return RunState.of(Manifest.of(read_manifest(path), path), str(path)).replaced, told

    expected, told = trained("plain")
    assert expected.count > sum(len(said) - 1 for said in told[:1]) > 0
    failed, update = [], Learner.update

    def fail_once(learner, batch, *more):
        if batch.t == 7 and not failed:
            failed.append(batch.t)
            raise DivergedError("the loss is nan; look").at(7)
        return update(learner, batch, *more)

    monkeypatch.setattr(Learner, "update", fail_once)
    capsys.readouterr()
    assert trained("rewound") == (expected, told)
    assert "rewound to iteration 4 (1 of at most 1)" in capsys.readouterr().out
