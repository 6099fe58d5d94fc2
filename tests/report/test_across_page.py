"""The page, picture and table of a finder at several batches."""

from __future__ import annotations

import csv
import json
import math

import pytest

from harness.finder import FinderResult
from harness.finder.across_result import AcrossResult, ResultsAt
from harness.folder import Fields
from harness.report import write_across_report
from harness.report.across import across_charts
from tests.report.folders import finder_result

pytestmark = pytest.mark.usefixtures("drawn")

STOP = "the running mean of the loss rose above its limit"


def points(edge, multiplier):
    """A loss that falls to 1 at 0.01, and rises above 2 at `edge`."""
    rates = [1e-4 * multiplier**k for k in range(int(math.log(1e5) / math.log(multiplier)))]
    return [[rate, 3 / (1 + (rate / 0.003) ** 2) + 1 / (1 + (edge / rate) ** 4) * 4 + 0.1] for rate in rates]


def result_at(batch, edges, multiplier):
    content = finder_result()
    content["sweeps"] = [
        {"stop": STOP, "limit": 6.0, "probes": [], "points": points(edge, multiplier)} for edge in edges
    ]
    content["provenance"] |= {"global_batch": batch}
    return FinderResult.read(Fields(json.loads(json.dumps(content))))


def across(power=0.5, batches=(32, 64, 128)):
    edges = {batch: [(batch / 32) ** power * scatter for scatter in (0.19, 0.2, 0.22)] for batch in batches}
    return AcrossResult.of(
        [ResultsAt(result_at(batch, some, 1.05), result_at(batch, some, 1.1)) for batch, some in edges.items()]
    )


def page_of(result, folder, title="a-run"):
    write_across_report(result, folder, title)
    return (folder / "report.html").read_text()


def test_the_page_the_picture_and_the_table(tmp_path):
    result = across()
    assert result.refusal is None
    text = page_of(result, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "curves.csv",
        "report.html",
        "scaling.json",
        "scaling.png",
    ]
    value, low, high = result.measured.exponent
    assert low < 0.5 < high
    for part in (
        f"<strong>{value:.2f}</strong>",
        f"to the power of {value:.2f} ({low:.2f} to {high:.2f})",
        "That is lr.scaling: sqrt.",
        "scaling: sqrt</pre>",
        "0123456789abcdef",
        "global batch 128",
    ):
        assert part in text
    content = json.loads((tmp_path / "scaling.json").read_text())
    assert content["scaling"]["exponent"] == [value, low, high]
    assert [one["slow"]["provenance"]["global_batch"] for one in content["results"]] == [32, 64, 128]
    assert content["told"] == result.told()
    with (tmp_path / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["global_batch"], row["speed"], row["sweep"]) for row in rows} == {
        (str(batch), speed, str(number))
        for batch in (32, 64, 128)
        for speed in ("slow", "fast")
        for number in (1, 2, 3)
    }
    last = result.results[-1].fast.sweeps[-1].points[-1]
    assert (float(rows[-1]["lr"]), float(rows[-1]["loss"])) == last


def test_what_is_drawn():
    result = across()
    curves, rates = across_charts(result)
    assert [one.label for one in curves.legend()] == ["32", "64", "128", "compared at"]
    assert len(curves.series) == 3 * 3 + 1
    names = [one.label for one in rates.legend()]
    assert names[0] == "a sweep"
    assert names[2:] == ["linear", "sqrt", "no scaling", "measured"]
    assert rates.x.low < 32 < 128 < rates.x.high
    assert rates.y.low < min(min(one.slow) for one in result.measured.batches)


def test_a_refusal(tmp_path):
    results = [ResultsAt(*[result_at(batch, [0.2, edge], step) for step in (1.05, 1.1)]) for batch, edge in FLAT]
    result = AcrossResult.of(results)
    assert result.measured is None
    text = page_of(result, tmp_path)
    assert "No reliable scaling found" in text
    assert "At a global batch of 64" in text
    assert json.loads((tmp_path / "scaling.json").read_text())["scaling"] is None
    assert len(across_charts(result)) == 1


FLAT = [(32, 0.2), (64, 1e9)]  # of which one sweep never rises


def test_hostile_names(tmp_path):
    evil = "<script>alert(1)</script>"
    result = across()
    result.results[0].slow.provenance[evil] = evil
    assert "<script" not in page_of(result, tmp_path, evil)


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_other_powers_are_drawn(tmp_path, power):
    assert f"scaling: {'none' if power == 0 else 'linear'}" in page_of(across(power), tmp_path)
