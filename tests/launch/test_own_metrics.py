"""Metrics in a run: the same on any number of ranks, in its files and as `checkpoint.best`; and wrong ones."""

from __future__ import annotations

import json

import pytest

OWN = "tests.programs.own_metrics"
BASE = ("network={name: mlp, params: {hidden: [8]}}", "batch={size: 7, shards: 6}", "train={iterations: 8}")
METRICS = (
    f"[accuracy, {{top_k: {{k: 2, name: two}}}}, f1, mcc, miou, perplexity, {{'{OWN}:Recall': {{name: recall}}}}, "
    f"'{OWN}:Median', {{'mxnet.metric:PCC': {{name: pcc}}}}]"
)


@pytest.fixture
def train(launch, tmp_path):
    def run(*settings, folder="runs", options=(), **more):
        words = [word for setting in (*BASE, "threads_per_rank=1", *settings) for word in ("--set", setting)]
        return launch("launch/train.py", *options, *words, "--set", f"output={tmp_path / folder}", **more)

    return run


def evaluations(folder):
    lines = [json.loads(line) for line in (folder / "digits/metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "time"} for line in lines if line["split"] == "test"]


def test_every_number_of_ranks_writes_the_same_numbers(train, tmp_path):
    settings = [f"evaluation={{every: 4it, metrics: {METRICS}}}", "checkpoint={best: recall.3, every: null}"]
    train(*settings, folder="1", options=["--emulate-np", "1"])
    found = evaluations(tmp_path / "1")
    assert [line["iteration"] for line in found] == [4, 8]
    assert found[0]["mcc"] == pytest.approx(found[0]["pcc"], rel=1e-9)
    assert {"two", "recall.0", "recall.9", "recall.scores", f"{OWN}:Median.order"} < set(found[0])
    best = json.loads((tmp_path / "1/digits/checkpoints/best.json").read_text())
    assert best["metric"] == "test.recall.3"
    assert best["value"] == max(line["recall.3"] for line in found)
    for np, launcher in ((3, "mpirun"), (2, "horovodrun")):
        folder = f"{np}-{launcher}"
        train(*settings, folder=folder, np=np, launcher=launcher)
        assert evaluations(tmp_path / folder) == found
        assert json.loads((tmp_path / folder / "digits/checkpoints/best.json").read_text())["value"] == best["value"]


def test_a_metric_that_reports_several_numbers_is_drawn_as_several(train, tmp_path):
    evaluation = f"evaluation={{every: 4it, metrics: ['{OWN}:Median', {{'{OWN}:Recall': {{name: recall}}}}]}}"
    train(evaluation, "checkpoint={best: recall.scores, best_is: lowest}")  # not what is best of the others
    best = json.loads((tmp_path / "runs/digits/checkpoints/best.json").read_text())
    assert best["value"] == min(line["recall.scores"] for line in evaluations(tmp_path / "runs"))
    page = (tmp_path / "runs/digits/report.html").read_text()
    assert all(f"recall.{kind}" in page for kind in range(10))
    assert f"{OWN}:Median.median" in page


@pytest.mark.parametrize(
    ("metrics", "more", "message"),
    [
        ("[acuracy]", (), "evaluation.metrics: unknown name 'acuracy'; did you mean 'accuracy'?"),
        ("[{top_k: {n: 3}}]", (), "evaluation.metrics.top_k.n: there is no such parameter; it takes: k"),
        ("[{f1: {}, mcc: {}}]", (), "evaluation.metrics.0: found {'f1': {}, 'mcc': {}}; must be a name (accuracy), or"),
        ("[3]", (), "evaluation.metrics.0: found 3; must be a name (accuracy), or one name with its parameters"),
        ("['mxnet.metric:F1']", (), "give the parameter average: micro"),
        ("[correlation]", (), "'correlation' does not fit predictions (2, 10) and labels (2,)"),
        ("[{f1: {average: binary}}]", (), "average is binary, but there are 10 classes; choose macro"),
        (f"[{{'{OWN}:Bad': {{how: a mean}}}}]", (), "sums do not add up: number 0 is"),
        (
            f"[{{'{OWN}:Bad': {{how: '', name: own}}}}]",
            ("checkpoint.best=own.b",),
            "checkpoint.best: 'own.b' is not reported; choose one of own.a",
        ),
        ("[f1]", ("checkpoint.best=f2",), "checkpoint.best: 'f2' is not evaluated; choose one of loss, f1"),
    ],
)
def test_a_wrong_one_is_refused_before_training(train, tmp_path, metrics, more, message):
    done = train(f"evaluation.metrics={metrics}", *more, exit_code=2)
    assert message in done.stderr
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("runs/digits/checkpoints/iteration-*"))


@pytest.mark.parametrize(
    ("how", "np", "message"),
    [
        ("longer on rank 1", 2, "metric 'own': sums gave 3 numbers on rank 0, but 4 on rank 1; give equally many"),
        ("longer later", None, "metric 'own': sums gave 4 numbers, and 3 before; give equally many for every batch"),
        ("nan", 2, "metric 'own': sums gave nan at place 0; give numbers"),
        ("nan at last", None, "metric 'own': finish gave nan; give a number"),
        (
            "other names",
            None,
            "metric 'own': reports ['b'], and reported ['a'] before; report the same names every time",
        ),
    ],
)
def test_one_that_goes_wrong_later_is_one_message(train, how, np, message):
    metric = f"{{'{OWN}:Bad': {{how: {how}, name: own}}}}"
    launched = {"np": np, "launcher": "mpirun"} if np else {}
    done = train(f"evaluation={{every: 4it, metrics: [{metric}]}}", exit_code=2, **launched)
    text = done.stdout + done.stderr
    assert message in text
    assert "Traceback" not in text
