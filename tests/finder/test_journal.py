"""A range test that is stopped or killed resumes to the same bits, and only as the test that it was."""

from __future__ import annotations

import random
from contextlib import nullcontext
from dataclasses import replace

import pytest

from harness.errors import CheckpointError, ConfigError, StoppedOnRequestError
from harness.finder import FinderSettings, Sweep, find_lr
from harness.finder.journal import UNFINISHED, Journal, refuse_what_is_there, remove_unfinished
from harness.gluon import Requests
from tests.conftest import THOROUGH
from tests.finder.test_runner import IMAGES, LABELS, Stream, image_learner

SETTINGS = FinderSettings(Sweep(lr_start=1e-3, lr_end=10, lr_multiplier=1.5), probes=2, repeats=2)
LENGTH = SETTINGS.probes + len(SETTINGS.sweep)
FACTS = {"seed": 0, "batch.size": 8}


class Streams:
    """Batches that differ between sweeps; the iteration of all sweeps together in which the process dies."""

    def __init__(self, killed_at=None):
        self.killed_at, self.count = killed_at, 0

    def __call__(self, repeat):
        def stream(t):
            self.count += 1
            if self.count == self.killed_at:
                raise KeyboardInterrupt("killed")
            return replace(Stream(2)(t + 5 * repeat), t=t)

        return nullcontext(stream)


def found(folder, streams, *, every=3, facts=FACTS, ask=lambda: None, name="sgd", settings=SETTINGS):
    learner = image_learner(name)
    journal = Journal(learner, folder / UNFINISHED, facts, every=every)

    def held_out():
        return float(learner.predict(IMAGES[48:], LABELS[48:])[1].mean())

    finding = find_lr(learner, settings, streams, ask, held_out=held_out, journal=journal)
    assert learner.digest() == finding.digest
    return finding, journal


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return found(tmp_path_factory.mktemp("whole"), Streams())[0]


KILLS = [(2,), (LENGTH + 7, 3)]
if THOROUGH:
    DRAWN = random.Random(27)
    KILLS = [tuple(DRAWN.randint(1, 2 * LENGTH) for _ in range(DRAWN.randint(1, 4))) for _ in range(30)]


@pytest.mark.parametrize("kills", KILLS, ids=str)
def test_a_killed_range_test_ends_with_the_same_bits(whole, tmp_path, kills):
    done = 0
    for killed_at in kills:
        streams = Streams(killed_at)
        try:
            found(tmp_path, streams)
        except KeyboardInterrupt:
            done += streams.count - 1
    streams = Streams()
    again, journal = found(tmp_path, streams)
    assert again == whole
    assert streams.count <= 2 * LENGTH - done + 3 * len(kills)  # it has begun where it was saved
    assert (journal.taken_up is None) == (max(kills) <= 3)
    assert len(list((tmp_path / UNFINISHED).iterdir())) == 1
    remove_unfinished(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_range_test_that_is_told_to_stop_saves_and_resumes(whole, tmp_path):
    asked = iter(range(1, 1000))
    with pytest.raises(StoppedOnRequestError, match=r"after 5 iterations .* resume it with --resume auto"):
        found(tmp_path, Streams(), every=None, ask=lambda: Requests(stop=next(asked) == 5))
    again, journal = found(tmp_path, Streams(), every=None)
    assert journal.told() == [f"resumed after 0 sweeps and 5 iterations from {tmp_path}/{UNFINISHED}"]
    assert again == whole


def test_the_clock_asks_all_ranks_to_save(tmp_path):
    learner = image_learner()
    assert not Journal(learner, tmp_path / "a", FACTS).asks_to_save()
    journal = Journal(learner, tmp_path / "b", FACTS, every_s=0.0)
    assert journal.asks_to_save()
    assert journal.is_due(1, Requests(save=True))
    assert not journal.is_due(1, Requests())


def broken_off(folder, **more):
    with pytest.raises(KeyboardInterrupt):
        found(folder, Streams(8), **more)


def test_another_range_test_is_not_resumed(tmp_path):
    broken_off(tmp_path)
    with pytest.raises(CheckpointError) as raised:
        found(tmp_path, Streams(), facts={"seed": 1, "batch.size": 8, "new": "x" * 200})
    text = str(raised.value)
    assert "is of another range test (saved -> now):\n  new: None -> " in text
    assert "\n  seed: 0 -> 1\n" in text
    assert "start over with --overwrite" in text
    assert "batch.size" not in text
    with pytest.raises(CheckpointError, match="start: "):
        found(tmp_path, Streams(), name="adam")  # whose state is another from the start


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: (path / "params.safetensors").write_bytes(b"torn"), "no valid state to resume from:\n .*bytes 4"),
        (lambda path: (path / "manifest.json").unlink(), "no valid state to resume from"),
    ],
)
def test_a_damaged_journal_is_refused(tmp_path, damage, reason):
    broken_off(tmp_path)
    (checkpoint,) = (tmp_path / UNFINISHED).iterdir()
    damage(checkpoint)
    with pytest.raises(CheckpointError, match=reason):
        found(tmp_path, Streams())


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / UNFINISHED).write_text("")
    with pytest.raises(CheckpointError, match=r"cannot be made .* choose another --output"):
        found(tmp_path, Streams())


def test_what_is_there_is_refused(tmp_path):
    refuse_what_is_there(tmp_path, "result.json")
    (tmp_path / UNFINISHED).mkdir()
    with pytest.raises(ConfigError, match="holds a range test that has not ended; resume it with --resume auto"):
        refuse_what_is_there(tmp_path, "result.json")
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(ConfigError, match="already holds a result; show it again with --resume auto"):
        refuse_what_is_there(tmp_path, "result.json")
