"""Where two runs begin to differ: by made-up folders, and by real runs through the command."""

from __future__ import annotations

import json

import pytest

from harness.report.difference import compare_runs
from harness.report.record import read_record
from tests.report.folders import BEGUN, evaluated, trained

RECORDED = {**BEGUN, "data": "d" * 64, "code": {"harness": "0123", "mine": "4567"}}


def digested(t, digit):
    return {"split": "digest", "iteration": t, "epoch": t // 25, "lr": 0.1, "digest": digit * 64}


def metrics(losses=None, digests=None, accuracy=0.9):
    lines = [trained(t, (losses or {}).get(t, 1 / t)) for t in range(10, 101, 10)]
    lines += [digested(t, (digests or {}).get(t, "a")) for t in (25, 50, 75, 100)]
    return [*sorted(lines, key=lambda line: line["iteration"]), evaluated(100, 0.5, accuracy)]


@pytest.fixture
def compared(make_run):
    def run(one, other):
        """Make two runs by the arguments of `make_run`, and compare them."""
        records = [
            read_record(make_run(name, **{"metrics": metrics(), "attempts": (RECORDED,), **of}))
            for name, of in {"a": one, "b": other}.items()
        ]
        return compare_runs(*records)

    return run


def test_equal_runs(compared):
    ranks = {"attempts": ({**RECORDED, "ranks": 4},)}
    found = compared({}, {**ranks, "output": "elsewhere", "checkpoint": {"every": None}, "hooks": ["mine:watch"]})
    assert found.is_equal
    assert [one.what for one in found.without_effect] == ["checkpoint.every", "hooks"]
    assert found.equal == [
        f"data: {'d' * 64}",
        "code: harness 0123, mine 4567",
        "versions: mxnet 1.9.1, threads_per_rank 1",
        "ranks (2 and 4) do not change a run",
        "learning rates: equal in 100 iterations of their plans",
        "weights and optimizer state: equal after iteration 100, digest aaaaaaaaaaaaaaaa",
        "training losses: equal in 10 iterations, the last is 100",
        "evaluations: 2 equal values",
    ]
    assert found.conclusion() == "the runs are the same in all that both have recorded"


def test_a_learning_rate(compared):
    found = compared({}, {"base": 0.2})
    assert [one.what for one in found.causes] == ["lr.base"]
    assert found.effects[0].what == "learning rate"
    assert found.conclusion() == "they part in iteration 1 (learning rate), by lr.base"


def test_a_seed(compared):
    found = compared({}, {"seed": 3, "metrics": metrics(dict.fromkeys(range(30, 101, 10), 9.0), {25: "a", 50: "b"})})
    assert [(one.what, one.said) for one in found.causes] == [("seed", "0 and 3")]
    assert [(one.what, one.iteration, one.equal_until) for one in found.effects] == [
        ("training loss", 30, 20),
        ("weights and optimizer state", 50, 25),
    ]
    assert found.conclusion() == "they part between iterations 20 and 30 (training loss), by seed"


@pytest.mark.parametrize(
    ("changed", "what", "said"),
    [
        ({"data": "e" * 64}, "data", f"{'d' * 64} and {'e' * 64}"),
        ({"code": {"harness": "0123", "mine": "89ab"}}, "code", "mine 4567 and mine 89ab"),
        (
            {"environment": {"mxnet": "1.9.1", "threads_per_rank": 2}},
            "versions",
            " and ".join(f"threads_per_rank {n}" for n in (1, 2)),
        ),
    ],
)
def test_what_both_starts_have_recorded(compared, changed, what, said):
    found = compared({}, {"attempts": ({**RECORDED, **changed},), "metrics": metrics(accuracy=0.8)})
    assert [(one.what, one.said) for one in found.causes] == [(what, said)]
    assert found.conclusion() == f"they part between iterations 0 and 100 (accuracy on test), by {what}"


def test_a_weight_that_was_set_by_hand(compared):
    found = compared({}, {"metrics": metrics(digests={75: "c", 100: "c"})})
    assert found.causes == []
    assert found.conclusion().startswith(
        "they part between iterations 50 and 75 (weights and optimizer state), and nothing that they have recorded says"
    )


def test_an_update_that_one_left_out(compared):
    skipped = {"split": "skipped", "iteration": 40, "epoch": 1, "lr": 0.1}
    lines = sorted([*metrics(), skipped], key=lambda line: line["iteration"])
    found = compared({}, {"metrics": lines})
    assert [(one.what, one.iteration) for one in found.effects] == [("skipped", 40)]


def test_versions_that_have_recorded_less(compared):
    old = [line for line in metrics() if line["split"] != "digest"]
    found = compared({"attempts": (BEGUN,), "metrics": old}, {})
    assert found.is_equal
    assert not any(said.startswith(("data", "code", "weights")) for said in found.equal)
    assert found.conclusion() == "the runs are the same in all that both have recorded"


def test_damaged_digests_are_left_out(make_run):
    lines = [trained(10, 1.0), {**digested(25, "a"), "digest": "xyz"}, digested(50, "a")]
    record = read_record(make_run("a", lines))
    assert list(record.metrics.digests) == [50]
    assert record.unread.counts == {"metrics.jsonl": 1}


def test_real_runs(launch, tmp_path):
    """One process and two ranks leave the same trail, cut and continued; another seed leaves another."""
    settings = [
        f"output={tmp_path}",
        "batch={size: 16, shards: 2}",
        "train={epochs: 2}",
        "network.params={hidden: [8]}",
    ]
    words = [word for setting in settings for word in ("--set", setting)]
    launch("launch/train.py", *words, "--set", "name=one")
    launch("launch/train.py", *words, "--set", "name=two", np=2, launcher="mpirun")
    launch("launch/train.py", *words, "--set", "name=seed", "--set", "seed=5")
    one, two, seed = (read_record(tmp_path / name) for name in ("one", "two", "seed"))
    assert list(one.metrics.digests) == [44, 88]
    assert one.metrics.digests == two.metrics.digests
    trail = [json.loads(line) for line in (tmp_path / "one/metrics.jsonl").read_text().splitlines()]
    assert [set(line) for line in trail if line["split"] == "digest"] == [
        {"split", "iteration", "epoch", "lr", "digest", "time"}
    ] * 2
    assert compare_runs(one, two).is_equal
    found = compare_runs(one, seed)
    assert [cause.what for cause in found.causes] == ["seed"]
    assert found.effects[0].iteration == 1
