"""The finder's page, and the finder on a run's page."""

from __future__ import annotations

import json

import pytest

from harness.finder import FinderResult
from harness.folder import Fields
from harness.report import write_finder_report, write_run_report
from harness.report.finder import finder_chart
from tests.report.folders import finder_result

pytestmark = pytest.mark.usefixtures("drawn")

REFUSAL = {"reason": "the curve is <flat>", "advice": "go & higher"}


def page_of(result, folder, title="a-run"):
    write_finder_report(FinderResult.read(Fields(result)), folder, title)
    return (folder / "report.html").read_text()


@pytest.mark.parametrize(("num_sweeps", "interval"), [(1, False), (3, True)])
def test_curves_spots_and_suggestion(tmp_path, num_sweeps, interval):
    result = finder_result(num_sweeps=num_sweeps)
    chart = finder_chart(FinderResult.read(Fields(result)))
    assert [one.label for one in chart.legend()] == ["an iteration", "smoothed"]
    assert len(chart.series) == 2 * num_sweeps
    assert chart.series[0].x.size == 49  # one loss is not finite
    assert [(one.x, one.shape, one.look) for one in chart.spots] == [
        (0.02, "triangle", "rule"),
        (0.05, "circle", "rule"),
        (0.1, "diamond", "chosen"),
    ]
    assert [one.look for one in chart.stretches] == ["interval", "chosen"][not interval :]
    text = page_of(result, tmp_path)
    assert "<strong>0.1</strong> at a global batch of 64" in text
    assert text.count('class="curve dots c0"') == num_sweeps + 1  # and in the legend
    for part in ("suggested: 0.1", "half of the highest stable rate", "no answer", "0123456789abcdef" * 4):
        assert part in text


def test_what_to_paste_begins_with_the_configurations_own_use(tmp_path):
    text = page_of(finder_result(), tmp_path)
    assert text.index("one_cycle: {") < text.index("<pre>lr:\n  base: 0.1\n  reference_batch: 64</pre>")
    assert "For this configuration: <code>1x</code> as the highest rate of 1cycle" in text
    assert "min_lr: 0.02x, max_lr: 1x" in text  # where the loss begins to fall


def test_groups_of_parameters_and_a_curve_of_held_out_samples(tmp_path):
    result = finder_result()
    names = [f"features.{k}.weight" for k in range(3)]
    result["groups"] = [
        {"lr": 0.1, "count": 5, "names": names},
        {"lr": 1.0, "count": 1, "names": ["output.weight"]},
    ]
    result["settings"]["held_out_batches"] = 8
    text = page_of(result, tmp_path)
    assert "<td>0.01 (x 0.1)</td><td>5 parameters: features.0.weight, features.1.weight, features.2.weight, …" in text
    assert "<td>0.1 (x 1)</td><td>1 parameter: output.weight</td>" in text
    assert "loss of 8 held-out batches" in text


def test_a_refusal(tmp_path):
    text = page_of(finder_result(lr=None, refusal=REFUSAL), tmp_path)
    assert "The curve is &lt;flat&gt;." in text
    assert "go &amp; higher" in text
    assert 'class="chosen"' not in text


@pytest.mark.parametrize("points", [[[1e-3, 2.0]], [[1e-3, None]], [[1e-3, -2.0], [1e-2, -3.0], [1e-1, -1.0]]])
def test_little_to_draw(tmp_path, points):
    result = finder_result(lr=None, refusal=REFUSAL)
    result["sweeps"][0]["points"] = points
    result["suggestion"]["rules"] = dict.fromkeys(result["suggestion"]["rules"])
    assert "<svg" in page_of(result, tmp_path)


def test_hostile_names(tmp_path):
    evil = "<script>alert(1)</script>"
    result = finder_result()
    result["provenance"] |= {evil: evil, "checkpoint": [evil]}
    result["sweeps"][0]["stop"] = evil
    assert "<script" not in page_of(result, tmp_path, evil)


def test_on_the_page_of_a_run(make_run):
    folder = make_run()
    for result, part in (
        (finder_result(), "Suggested 0.1 at a global batch of 64, by the rule “half of the highest stable rate”."),
        (finder_result(lr=None, refusal=REFUSAL), "No reliable learning rate found: the curve is &lt;flat&gt;."),
        ({"format": 99}, None),
    ):
        (folder / "finder").mkdir(exist_ok=True)
        (folder / "finder/result.json").write_text(json.dumps(result))
        write_run_report(folder)
        text = (folder / "report.html").read_text()
        assert ("The learning-rate finder" in text) == (part is not None)
        assert part is None or part in text
