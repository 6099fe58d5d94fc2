"""A run's page, from folders as runs leave them."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from html.parser import HTMLParser

import pytest

from harness.errors import ConfigError, DivergedError, StoppedOnRequestError
from harness.plan import EarlyStop, PlateauCut, Replace, Rewind
from harness.report import reported, write_run_report
from harness.report.charts import MOST_POINTS
from tests.report.folders import BEGUN, DONE, evaluated, lines_of, trained

_VOID = ("meta", "wbr")


class Page(HTMLParser):
    """Tags that are left open, what is said, and the paths of curves by class and title."""

    def __init__(self, folder):
        super().__init__()
        self.open, self.curves, self.titles, self.words = [], [], [], ""
        self.text = (folder / "report.html").read_text()
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "path" and "curve" in dict(attributes).get("class", ""):
            self.curves.append(dict(attributes)["d"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["title"]:
            self.titles.append(data)
        elif self.open[-1:] != ["style"]:
            self.words += f" {data}"


def page_of(folder):
    sentence = write_run_report(folder)
    page = Page(folder)
    page.words = " ".join(page.words.split())
    assert page.open == []
    assert sentence in page.words
    return page, sentence


METRICS = (*(trained(t, 2 / t) for t in range(1, 101)), evaluated(50, 0.3, 0.8), evaluated(100, 0.2, 0.9))


def test_a_whole_run(make_run):
    folder = make_run(metrics=METRICS)
    page, sentence = page_of(folder)
    assert sentence == "digits is done after 100 iterations (4 epochs); accuracy 0.9 and loss 0.2 on test."
    for part in (
        "100 iterations of 2 x 16 samples, 25 to an epoch of 800. Learning rate: 0.1 at batch 16 x 2 shards (linear)",
        "1 1 to 9 0 to 0.36 0.02 to 0.18",
        "2 10 to 60 0.36 to 2.4 0.2 to 0.2",
        "3 61 to 100 2.4 to 4 0.1 to 0.1",
        "from the beginning, 2 ranks (mpi). Ended 2023-11-14 22:14:20 UTC: done",
        "mxnet 1.9.1",
        "host of rank 0 node-1",
        "mpirun -np 2 python launch/train.py --config configs/x.yaml",
        f"mpirun -np 2 python launch/train.py --config {folder}/config.yaml --set name=digits-again",
        "multi_factor",
    ):
        assert part in page.words, part
    assert "phase 2: iterations 10 to 60, learning rate 0.2 to 0.2" in page.titles
    assert page.text.count("<figure>") == 3  # loss, learning rate, accuracy


@pytest.mark.parametrize(
    ("outcome", "sentence"),
    [
        (None, "is running, or was killed after iteration 40 of 100 or later; its training loss was 0.5"),
        (
            {"exit_code": 75, "cause": "stopped"},
            "was stopped on request after iteration 40 of 100 and can be resumed with",
        ),
        ({"exit_code": 6, "cause": "the loss is nan; x\ny"}, "diverged after iteration 40 of 100 (the loss is nan; x)"),
        ({"exit_code": 7, "cause": "rank 1 lost."}, "ended after iteration 40 of 100 with exit code 7 (rank 1 lost)"),
    ],
)
def test_how_it_ended(make_run, outcome, sentence):
    ended = None if outcome is None else {**DONE, **outcome}
    assert sentence in page_of(make_run(metrics=[trained(40, 0.5)], outcome=ended))[1]


def test_interruptions_resumes_and_what_was_changed(make_run):
    attempts = [
        BEGUN,
        {**DONE, "exit_code": 75, "cause": "stopped on request: saved after iteration 20"},
        {**BEGUN, "attempt": "b", "after": 20},
        {**BEGUN, "attempt": "c", "after": 40, "ranks": 1},
        {**BEGUN, "attempt": "d"},
    ]
    amendments = [
        Replace(40, {"train.iterations": (90, 100)}, lr={}, train={}),
        Rewind(70, 0.5, diverged_at=76),
    ]
    skipped = {"split": "skipped", "iteration": 33, "lr": 0.1, "count": 1}
    folder = make_run(
        metrics=[*METRICS, skipped], attempts=attempts, outcome={**DONE, "attempt": "d"}, amendments=amendments
    )
    page, _ = page_of(folder)
    for part in (
        "with exit code 75: stopped on request: saved after iteration 20",
        "after iteration 20, 2 ranks (mpi). No end was recorded: it was killed.",
        "after iteration 40, 1 rank (mpi). No end was recorded: it was killed.",
        "from the beginning, 2 ranks (mpi). Ended 2023-11-14 22:14:20 UTC: done",
        "3 61 to 70 2.4 to 2.8 0.1 to 0.1 4 71 to 100 2.8 to 4 0.05 to 0.05",
        "0 started over",
        "20 resumed 33 update skipped: loss or gradient not finite 40 resumed",
        "40 resumed with the new settings, where checkpoint and configuration differed: train.iterations: 90 -> 100",
        "70 rewound to here from iteration 76, which was not finite; learning rates x 0.5 from here",
        "without the events during the run",
    ):
        assert part in page.words, part
    assert {"resumed", "update skipped: loss or gradient not finite"} <= set(page.titles)


def test_damaged_samples_that_were_replaced(make_run):
    def line(t, count, *said):
        return {"split": "replaced", "iteration": t, "epoch": 1, "count": count, "said": said}

    lines = ["sample 3 by sample 4: 3.jpg: is <empty>", "sample 7 by sample 9: 7.jpg: x"]
    found = [line(25, 5, "epoch 1: 5 were replaced", *lines), line(50, 1, "evaluation on test: 1 was", lines[0])]
    page, _ = page_of(make_run(metrics=[*METRICS, *found]))
    assert "Others have replaced damaged samples 6 times in training and evaluations. " in page.words
    assert f"25 epoch 1: 5 were replaced {' '.join(lines)} and 3 more 50 evaluation on test: 1 was {lines[0]}" in (
        page.words
    )
    assert "what happened" not in page.words, "they are no events of the plan"


def test_of_many_epochs_with_damaged_samples_the_last_are_listed(make_run):
    found = [{"split": "replaced", "iteration": t, "count": 1, "said": [f"epoch {t}: 1", "a"]} for t in range(1, 31)]
    page, _ = page_of(make_run(metrics=[*METRICS, *found, {"split": "replaced", "iteration": 31}]))
    assert "samples 30 times" in page.words
    assert "And 11 earlier ones, in metrics.jsonl." in page.words
    assert "epoch 12: 1 a" in page.words
    assert "epoch 11: 1 a" not in page.words


def test_what_evaluations_decided(make_run):
    amendments = [
        PlateauCut(40, "test.loss", 3, 10, 0.5, lr_factor=0.5, min_lr=0.01),
        PlateauCut(60, "test.loss", 4, 0, None, lr_factor=0.5, min_lr=0.0),
        EarlyStop(70, "test.accuracy", 1, 50, 0.75),
    ]
    lines = [line for line in METRICS if line["iteration"] <= 70]
    page, _ = page_of(make_run(metrics=[*lines, trained(70, 0.5)], amendments=amendments))
    cut = (
        "plateau: test.loss has not improved in 3 evaluations (best 0.5 after iteration 10); learning rates x 0.5 (at "
        "least 0.01) from here"
    )
    for part in (
        "stopped early after 70 of 100 iterations",
        f"40 {cut}",
        "60 plateau: test.loss has not improved in 4 evaluations; learning rates x 0.5 from here",
        "70 stopped early: test.accuracy has not improved in 1 evaluation (best 0.75 after iteration 50)",
        "x 0.5 (at least 0.01) after iteration 40, x 0.5 after iteration 60",
    ):
        assert part in page.words, part
    assert cut in page.titles


def test_an_outcome_of_another_attempt_is_not_taken_for_this_one_s(make_run):
    folder = make_run(metrics=METRICS, outcome={**DONE, "attempt": "earlier"})
    assert "is running, or was killed" in page_of(folder)[1]


def test_an_outcome_that_cannot_be_read_is_no_killed_run(make_run):
    folder = make_run(metrics=METRICS)
    (folder / "outcome.json").write_text('{"attempt": "a", "exit_code": 0, "cau')
    page, sentence = page_of(folder)
    assert sentence.startswith(
        "digits ended after iteration 100 of 100 or later, but the record of its end cannot be read;"
    )
    assert "The record of its end cannot be read." in page.words
    assert "outcome.json : is not valid JSON at column " in page.words
    assert "killed" not in page.words


@pytest.mark.parametrize("history", ["", "torn\n", f"{json.dumps({**BEGUN, 'attempt': 'b'})}\n[]\n"])
def test_an_end_is_known_without_the_history(make_run, history):
    folder = make_run(metrics=METRICS, outcome={**DONE, "exit_code": 6, "cause": "the loss is nan"})
    (folder / "attempts.jsonl").write_text(history)
    assert page_of(folder)[1].startswith("digits diverged after iteration 100 of 100 (the loss is nan);")


def test_a_run_that_is_done_and_whose_end_cannot_be_read(make_run):
    folder = make_run(metrics=METRICS[:90])
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b"\xff\n")
    sentence = page_of(folder)[1]
    assert sentence == (
        "digits is done; its readable records end at iteration 90 of 100; its training loss was 0.02222."
    )


def test_checkpoints_that_cannot_be_of_this_run(make_run):
    folder = make_run(metrics=METRICS)
    for name in ("iteration-000000040", "iteration-000000400", "iteration-000000060"):
        (folder / "checkpoints" / name).mkdir(parents=True)
    for name in ("iteration-000000040", "iteration-000000400"):
        (folder / "checkpoints" / name / "manifest.json").write_text("{}")
    (folder / "checkpoints/best.json").write_text('{"set": "iteration-000000040", "iteration": 50}')
    words = page_of(folder)[0].words
    for part in (
        "checkpoints/iteration-000000400 : is of iteration 400; the run has 100",
        "checkpoints/iteration-000000060 : is empty",
        "checkpoints/best.json : iteration is 50, but set is &#39;iteration-000000040&#39;".replace("&#39;", "'"),
    ):
        assert part in words
    assert re.search(r"size 40 \d{4}-", words)


def test_ranks_that_failed_and_sets(make_run):
    folder = make_run(outcome={**DONE, "exit_code": 7, "cause": "rank 1 was lost"})
    (folder / "failures").mkdir()
    failure = {"rank": 1, "cause": "rank 1 was killed", "place": "iteration 50", "stacks": "Thread 1 <module>"}
    (folder / "failures/rank-1.json").write_text(json.dumps(failure))
    for t in (20, 40):
        (folder / f"checkpoints/iteration-{t:09d}").mkdir(parents=True)
        (folder / f"checkpoints/iteration-{t:09d}/params.safetensors").write_bytes(bytes(1500))
    (folder / "checkpoints/best.json").write_text('{"set": "iteration-000000020"}')
    page, sentence = page_of(folder)
    assert "after iteration 40 of 100 with exit code 7 (rank 1 was lost); nothing was measured" in sentence
    assert "Rank 1 , in iteration 50: rank 1 was killed" in page.words
    assert "Thread 1 <module>" in page.words
    assert re.search(r"20 \(best\) \d{4}-.* UTC 1.5 kB 40 \d{4}-", page.words)


def test_losses_that_are_not_finite_are_gaps(make_run):
    losses = [1.0, float("nan"), 0.5, float("inf"), 0.25]
    page, _ = page_of(make_run(metrics=[trained(t, loss) for t, loss in enumerate(losses, start=1)]))
    assert "Gaps: 2 of the training losses are not finite." in page.words
    assert page.curves[0].count("M") == 3
    assert "nan" not in "".join(page.curves)


@pytest.mark.parametrize("metrics", [(), [trained(1, 2.0)], [evaluated(100, 0.2, 0.9)]])
def test_little_was_measured(make_run, metrics):
    page, _ = page_of(make_run(metrics=metrics))
    assert all(page.curves)


def test_a_metric_of_many_values_has_a_chart_for_each_and_a_short_sentence(make_run):
    many = {f"recall.{kind}": kind / 10 for kind in range(10)}
    page, sentence = page_of(make_run(metrics=[{**line, **many} for line in METRICS if line["split"] == "test"]))
    shown = "accuracy 0.9 and loss 0.2 and recall.0 0 and recall.1 0.1 and recall.2 0.2 and recall.3 0.3"
    assert sentence.endswith(f"; {shown} and 6 more values on test.")
    assert all(f"recall.{kind}" in page.words for kind in range(10))


def test_nothing_but_a_configuration_and_torn_files(make_run):
    folder = make_run(metrics=[trained(1, 2.0)])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('["no line of ours"]\n{"split": "train", "iter')
    (folder / "plan.json").write_text('{"phases": [')
    (folder / "plan.csv").write_text("iteration,epoch,lr\n1,1,0.1\n2,1")
    page, _ = page_of(folder)
    assert "Lines of metrics.jsonl that could not be read: 2." in page.words
    for path in folder.iterdir():
        if path.name != "config.yaml":
            path.unlink()
    assert page_of(folder)[1] == "digits is running, or was killed after iteration 0 or later; nothing was measured."


def test_many_lines_make_a_small_page(make_run):
    folder = make_run(train={"iterations": 20_000})
    lines_of(folder / "metrics.jsonl", (trained(t, 2 + (t == 15_556)) for t in range(1, 20_001)))
    page, _ = page_of(folder)
    assert len(page.text) < 100_000
    assert page.curves[0].count(",") <= MOST_POINTS
    places = re.findall(r"([\d.]+),([\d.]+)", page.curves[0])
    assert min(places, key=lambda place: float(place[1]))[0] == "777.8"


def test_hostile_words_are_escaped(make_run):
    evil = "</title></svg><script>alert(1)</script>"
    attempt = {**BEGUN, "command": evil, "host": evil, "comm": evil, "environment": {evil: evil}}
    ended = {**DONE, "exit_code": 6, "cause": evil}
    lines = [*METRICS, {**evaluated(100, 0.1, 0.5), evil: 1.0}, {**evaluated(100, 0.1, 0.5), "split": evil}]
    folder = make_run(evil.replace("/", "-"), lines, [attempt], ended, data={"name": "npy", "root": evil})
    page, _ = page_of(folder)
    assert "<script" not in page.text
    assert page.words.count(evil) >= 8
    assert evil in page.titles


def test_a_folder_that_is_not_a_run_s(tmp_path):
    with pytest.raises(ConfigError, match=r"missing: is not the folder of a run \(it is not a folder\)"):
        write_run_report(tmp_path / "missing")
    with pytest.raises(ConfigError, match=r"is not the folder of a run \(it has no config.yaml\); give one, such as"):
        write_run_report(tmp_path)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (None, "digits is done after 100 iterations"),
        (StoppedOnRequestError("stopped"), "digits was stopped on request after iteration 100 of 100"),
        (DivergedError("the loss is nan"), "digits diverged after iteration 100 of 100 (the loss is nan)"),
        (RuntimeError("a rank was lost"), None),
    ],
)
@pytest.mark.parametrize("rank", [0, 1])
def test_which_ends_are_written(make_run, error, sentence, rank):
    folder = make_run(metrics=METRICS, outcome=None)
    with pytest.raises(type(error)) if error else nullcontext(), reported(folder, rank):
        if error:
            raise error
    page = folder / "report.html"
    assert page.exists() == (sentence is not None and rank == 0)
    assert not page.exists() or sentence in page.read_text()


def test_a_page_that_cannot_be_written_changes_no_end(make_run, capsys):
    folder = make_run(metrics=METRICS)
    (folder / "report.html").mkdir()
    with reported(folder, 0):
        pass
    reason = f"{folder}/report.html: cannot be written (Is a directory)"
    assert f"warning: {folder}/report.html was not written: {reason}" in capsys.readouterr().err


def test_a_run_that_diverged_and_was_resumed_with_another_rate(here, tmp_path):
    words = ["--set", f"output={tmp_path}", "--set", "train={iterations: 60}", "--set", "log.every=5it"]
    words += [
        "--set",
        "checkpoint.every=20it",
        "--set",
        "network.params={hidden: [8]}",
        "--set",
        "evaluation.every=30it",
    ]
    schedule = "lr.schedule={sequential: {schedules: [1x, 1.0e+30], boundaries: [25it]}}"
    here("launch/train.py", *words, "--set", schedule, exit_code=6)
    folder = tmp_path / "digits"
    assert "digits diverged after iteration" in (folder / "report.html").read_text()
    options = ["--resume", "auto", "--on-conflict", "config"]
    here("launch/train.py", *words, "--set", "lr.schedule=0.1x", *options)
    page = Page(folder)
    words = " ".join(page.words.split())
    assert "digits is done after 60 iterations (1.36 epochs); accuracy " in words
    assert words.count("from the beginning, 1 rank (single).") == 1
    assert "with exit code 6: iteration " in words
    assert "after iteration 20, 1 rank (single). Ended" in words
    assert "resumed with the new settings" in words
    of_the_files, as_it_ended = (re.sub(r"\d\d:\d\d:\d\d", "", text) for text in (page_of(folder)[0].words, words))
    assert of_the_files == as_it_ended


def test_hostile_records_make_no_large_page(make_run):
    """As many and as long texts as each file may hold."""
    folder = make_run(metrics=METRICS)
    evil = "\u202e\x1b[31m</script><script>" + "x" * 200_000
    (folder / "failures").mkdir()
    for rank in range(120):
        failure = {"rank": rank, "cause": evil, "stacks": evil * 4, "place": evil}
        (folder / f"failures/rank-{rank}.json").write_text(json.dumps(failure))
        (folder / f"checkpoints/iteration-{rank + 1:09d}").mkdir(parents=True)
    begun = [{**BEGUN, "attempt": f"{k}", "command": evil, "host": evil, "ranks": 200} for k in range(5)]
    lines_of(folder / "attempts.jsonl", begun)
    (folder / "outcome.json").write_text(json.dumps({**DONE, "attempt": "4", "exit_code": 6, "cause": evil}))
    lines_of(
        folder / "metrics.jsonl", [{"split": f"s{k}", "iteration": 1, evil[:190] + str(k): 1.0} for k in range(90)]
    )
    page, sentence = page_of(folder)
    assert len(page.text) < 8_000_000
    assert len(sentence) < 1000
    assert not {"\u202e", "\x1b"} & set(page.text + sentence)
    assert "<script" not in page.text
    assert "other files : and " in page.words
