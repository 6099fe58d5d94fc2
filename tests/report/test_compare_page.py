"""Several runs on one page, and the command that writes pages."""

from __future__ import annotations

import re

import pytest

from harness.report import write_comparison
from tests.report.folders import DONE, evaluated, trained


def metrics(loss, accuracy, **more):
    lines = [trained(t, loss + 2 / t, images_per_s=1000.0 + t, **more) for t in range(1, 101)]
    return [*lines, evaluated(50, loss, 0.5), evaluated(100, loss, accuracy)]


def rows_of(text):
    """The page's tables: the cells of each row by the first."""
    text = text.replace("<wbr>", "")
    rows = [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", text)]
    return {cells[0]: cells[1:] for cells in rows}


def heights_of(text, look):
    """How far below the top of its view box a curve is, point by point; legends have no view box of a thousand."""
    paths = re.findall(rf'<path class="curve {look}" d="([^"]+)"', text)
    return [float(height) for height in re.findall(r",([\d.]+)", next(path for path in paths if ".0," in path))]


def test_two_runs(make_run, tmp_path):
    folders = [make_run("a", metrics(0.5, 0.9)), make_run("b", metrics(0.25, 0.95), base=0.2, seed=7, output="b")]
    said = write_comparison(folders, tmp_path / "page.html")
    assert said == [
        "a is done after 100 iterations (4 epochs); accuracy 0.9 and loss 0.5 on test.",
        "b is done after 100 iterations (4 epochs); accuracy 0.95 and loss 0.25 on test.",
    ]
    text = (tmp_path / "page.html").read_text()
    rows = rows_of(text)
    assert rows["state"] == ["done", "done"]
    assert rows["accuracy on test"] == ["0.9", "0.95"]
    assert rows["training loss"] == ["0.52", "0.27"]
    assert rows["images/s"] == ["1050", "1050"]
    assert rows["setting"] == ["a", "b"]
    differing = {key: rows[key] for key in list(rows)[list(rows).index("setting") + 1 :]}
    assert differing == {"seed": ["0", "7"], "lr.base": ["0.1", "0.2"]}
    assert text.count("<figure>") == 4
    for colour, name in enumerate("ab"):
        assert re.search(rf'<path class="curve thin c{colour}" d="[^"]+"><title>{name}</title>', text)
    assert "are cut off" not in text


def test_runs_that_measured_different_things(make_run, tmp_path):
    folders = [
        make_run("whole", metrics(0.5, 0.9)),
        make_run("empty", outcome=None),
        make_run("one", [trained(1, 2.0)]),
    ]
    write_comparison(folders, tmp_path / "page.html")
    rows = rows_of((tmp_path / "page.html").read_text())
    assert rows["state"] == ["done", "running, or killed", "done"]
    assert rows["iterations"] == ["100 of 100", "0 of 100", "1 of 100"]
    assert rows["accuracy on test"] == ["0.9", "", ""]


def test_the_same_name_twice_and_the_same_settings(make_run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    folders = [make_run("a"), make_run("elsewhere/a")]
    write_comparison(folders, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert f"<th>{tmp_path}/a</th><th>{tmp_path}/elsewhere/a</th>" in text
    assert "None, except name and folder." in text


def test_a_run_that_diverged_does_not_flatten_the_others(make_run, tmp_path):
    wild = [trained(t, 1e20 if 10 < t < 90 else 2.0) for t in range(1, 101)]
    write_comparison([make_run("tame", metrics(0.5, 0.9)), make_run("wild", wild)], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "Losses above 7.5, which is 3 times the highest first or last loss of a run, are cut off." in text
    heights = heights_of(text, "thin c0")
    assert max(heights) - min(heights) > 200


def test_learning_rates_far_apart_are_all_seen(make_run, tmp_path):
    runs = [make_run(name, metrics(0.5, 0.9, lr=lr)) for name, lr in (("high", 1.0), ("low", 1e-3))]
    write_comparison(runs, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    high, low = (heights_of(text, f"line c{colour}")[0] for colour in (0, 1))
    assert high + 500 < low < 990


@pytest.mark.parametrize("count", [2, 9])
def test_more_runs_than_colours_differ_by_dashes(make_run, tmp_path, count):
    write_comparison([make_run(f"r{k}", [trained(1, 2.0)]) for k in range(count)], tmp_path / "page.html")
    looks = re.findall(
        r'<path class="curve (thin c\d(?: second)?)" d="[^"]+"><title>', (tmp_path / "page.html").read_text()
    )
    assert len(set(looks)) == count


def test_hostile_names(make_run, tmp_path):
    evil = "<script>alert(1)<&script>"
    folders = [make_run(evil, metrics(1, 0.5), seed=1), make_run("b", outcome={**DONE, "cause": evil, "exit_code": 6})]
    write_comparison(folders, tmp_path / "page.html")
    assert "<script" not in (tmp_path / "page.html").read_text()
