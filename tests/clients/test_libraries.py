"""The programs of examples/clients, which train the models of Gluon's libraries: one digest, wherever they run."""

from __future__ import annotations

import json
import re
from typing import ClassVar

import pytest

from tests.conftest import ROOT


def words_for(name, output, *more):
    settings = (f"output={output}", "threads_per_rank=1", *more)
    return ["--config", f"examples/clients/{name}.yaml", *(word for one in settings for word in ("--set", one))]


def digest_of(output):
    (digest,) = re.findall(r"done after \d+ iterations, digest ([0-9a-f]{64})", output)
    return digest


def evaluations(run):
    """What was evaluated, and when, but for the time of day."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: repr(one) for key, one in line.items() if key != "time"} for line in lines if line["split"] == "test"]


def on(ranks, launcher="mpirun"):
    return {} if ranks is None else {"np": ranks, "launcher": launcher}


class Client:
    """What holds for each of them; a class each, so that one worker of pytest-xdist runs its tests.

    Attributes:
        name: of the program.
        learnt: what it reports in the end, and bounds that it only keeps to if it has learnt something.
    """

    name: ClassVar[str]
    learnt: ClassVar[tuple[str, float, float]]

    @pytest.fixture(scope="class")
    @classmethod
    def alone(cls, start, tmp_path_factory):
        """Trained in one process: its digest and the folder of the run."""
        folder = tmp_path_factory.mktemp(cls.name)
        printed = start("launch/train.py", *words_for(cls.name, folder, "checkpoint.keep=20"), timeout_s=600).stdout
        assert "cannot be compiled" not in printed
        return digest_of(printed), folder / cls.name

    def trained(self, start, folder, *arguments, **more):
        return start("launch/train.py", *words_for(self.name, folder), *arguments, timeout_s=600, **more).stdout

    def test_it_learns(self, alone):
        key, lowest, highest = self.learnt
        assert lowest < float(evaluations(alone[1])[-1][key]) < highest

    @pytest.mark.parametrize(("launcher", "ranks"), [("mpirun", 2), ("mpirun", 4), ("horovodrun", 2)])
    def test_on_any_number_of_ranks(self, start, tmp_path, alone, launcher, ranks):
        digest, run = alone
        assert digest_of(self.trained(start, tmp_path, **on(ranks, launcher))) == digest
        assert evaluations(tmp_path / self.name) == evaluations(run)

    @pytest.mark.parametrize("ranks", [None, 2])
    def test_resumed_in_the_middle(self, start, tmp_path, alone, ranks):
        digest, run = alone
        checkpoints = sorted((run / "checkpoints").iterdir())
        middle = checkpoints[len(checkpoints) // 2 - 1]
        assert digest_of(self.trained(start, tmp_path, "--resume", middle, **on(ranks))) == digest

    def test_the_finder_puts_everything_back(self, start, tmp_path):
        words = ["launch/find_lr.py", *words_for(self.name, tmp_path, "finder={max_iterations: 16, min_iter: 4}")]
        printed = [start(*words, **on(ranks), exit_code=None, timeout_s=600).stdout for ranks in (None, 2)]
        told = [re.findall(r"state restored: digest \w+ unchanged", one) for one in printed]
        assert len(told[0]) == 1
        assert told[0] == told[1]

    def test_it_is_short(self):
        assert len((ROOT / f"examples/clients/{self.name}.py").read_text().splitlines()) < 150


class TestSSD(Client):
    name, learnt = "ssd", ("voc07.mAP", 0, 1)  # which rises late

    def test_its_loss_falls(self, alone):
        lines = map(json.loads, (alone[1] / "metrics.jsonl").read_text().splitlines())
        losses = [line["loss"] for line in lines if line["split"] == "train"]
        assert losses[-1] < 0.75 * losses[0]


class TestBERT(Client):
    name, learnt = "bert", ("accuracy", 0.9, 1.1)


class TestAWDLSTM(Client):
    name, learnt = "awd_lstm", ("perplexity", 1, 4)


class TestTransformer(Client):
    name, learnt = "transformer", ("bleu", 40, 101)

    @pytest.mark.parametrize("ranks", [None, 2, 4])
    def test_a_token_mean_is_that_of_one_process_of_plain_gluon(self, start, ranks):
        done = start("tests/clients/token_mean.py", **on(ranks))
        losses, _, away = json.loads(re.search("FOUND (.*)$", done.stdout, re.MULTILINE)[1])
        assert len(losses) == 15
        assert away < 1e-6


class TestDeepAR(Client):
    name, learnt = "deepar", ("loss", 0, 3.3)
