"""Numbers to coordinates."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from harness.report.charts import MOST_POINTS, SPAN, Chart, Scale, Series, above_each_other, scale_for, thin

UNIT = Scale(0, 1)


def numbers(*values):
    return np.array(values, dtype=float)


def chart(series, x=UNIT, y=UNIT):
    return Chart("title", x, y, series)


@pytest.mark.parametrize("size", [1, 999, 1000, 1001, 1501, 100_000])
def test_thin_keeps_ends_and_extremes(size):
    x, y = np.arange(float(size)), np.sin(np.arange(size) / 50)
    for spike, height in ((size // 3, 9.0), (size // 2, -9.0)):
        y[spike] = height
    few, low = thin(x, y)
    assert few.size == low.size == min(size, few.size) <= MOST_POINTS
    assert (few[0], few[-1]) == (0, size - 1)
    assert (low.min(), low.max()) == (y.min(), y.max())
    assert (np.diff(few) > 0).all()
    assert (y[few.astype(int)] == low).all()


def test_thin_keeps_a_gap_and_overlooks_single_values_that_are_not_finite():
    y = np.ones(100_000)
    y[40_000:60_000] = np.nan
    y[77_777] = np.inf
    x, few = thin(np.arange(100_000.0), y)
    gone = x[~np.isfinite(few)]
    assert 40_000 <= gone.min() < 40_300
    assert 59_700 < gone.max() < 60_000


@pytest.mark.parametrize(
    ("scale", "labels"),
    [
        (Scale(0, 330, is_whole=True), ["0", "100", "200", "300"]),
        (Scale(0, 3, is_whole=True), ["0", "1", "2", "3"]),
        (Scale(0, 2_000_000, is_whole=True), ["0", "500k", "1M", "1500k", "2M"]),
        (Scale(-0.1, 0.1), ["-0.1", "-0.05", "0", "0.05", "0.1"]),
        (Scale(1e-6, 10, is_log=True), ["1e-6", "0.0001", "0.01", "1"]),
        (Scale(0.3, 12, is_log=True), ["0.5", "1", "2", "5", "10"]),
    ],
)
def test_labels_of_an_axis(scale, labels):
    assert [label for _, label in scale.ticks()] == labels


@pytest.mark.parametrize("high", [0.003, 0.7, 1, 1.01, 7, 99, 330, 12_345, 3e7])
def test_an_axis_has_few_labels_and_more_than_one(high):
    for scale in (Scale(0, high), Scale(high / 3, high), Scale(high / 1e5, high, is_log=True), Scale(1, 1 + 1e-6)):
        places = [scale.percent(value) for value, _ in scale.ticks()]
        assert 2 <= len(places) <= 7
        assert places == sorted(places)
        assert -1e-9 <= places[0] < places[-1] <= 100 + 1e-9


def test_an_axis_is_logarithmic_where_values_are_far_apart():
    assert scale_for([numbers(0.01, 2.3)]).is_log
    assert not scale_for([numbers(1.0, 2.3)]).is_log
    assert not scale_for([numbers(-0.01, 2.3)]).is_log
    assert scale_for([numbers(0.01, 2.3)], from_zero=True)[:3] == (0.0, pytest.approx(2.3 * 1.06), False)


EXTREMES = (-1.7e308, -1e300, -1.0, -5e-324, 0.0, 5e-324, 1e-300, 1e-45, 1.0, 1 + 1e-15, 1e299, 1e300, 1.7e308, np.inf)


@pytest.mark.parametrize("from_zero", [False, True])
def test_an_axis_for_whatever_a_float_can_be(from_zero):
    for low, high in itertools.product(EXTREMES, repeat=2):
        values = numbers(low, high, 1.0)
        scale = scale_for([values], from_zero=from_zero)
        assert -np.inf < scale.low < scale.high < np.inf
        assert len(scale.ticks()) <= 15
        path = chart([], y=scale).line(Series("a", numbers(0, 0.5, 1), values))
        assert path.startswith("M")
        assert not {"n", "f"} & set(path)


@pytest.mark.parametrize("values", [[], [np.nan], [np.inf, -np.inf], [0.0], [5.0, 5.0], [-3.0]])
def test_an_axis_for_little(values):
    scale = scale_for([numbers(*values)])
    assert scale.low < scale.high
    assert scale.ticks()


def test_a_line_has_gaps_and_a_lonely_point_is_a_dot():
    y = numbers(0, 1, np.nan, 0.5, np.inf, 0.25, 0.75)
    series = Series("a", np.linspace(0, 1, 7), y)
    expected = "M0.0,1000.0L166.7,0.0M500.0,500.0h0M833.3,750.0L1000.0,250.0"
    assert chart([series]).line(series) == expected
    assert chart([series]).dots(series) == "".join(f"M{place}h0" for place in re.findall(r"[\d.]+,[\d.]+", expected))


def test_what_lies_far_outside_stays_near_and_what_no_logarithm_knows_is_a_gap():
    series = Series("a", numbers(0, 0.5, 1), numbers(1e30, 0, 1e-30))
    scale = Scale(0.1, 10, is_log=True)
    assert chart([series], y=scale).line(series) == f"M0.0,{-SPAN:.1f}h0M1000.0,{2 * SPAN:.1f}h0"


def test_a_legend_names_each_curve_once_and_is_no_news_for_one():
    a, b = Series("a", numbers(1), numbers(1)), Series("b", numbers(1), numbers(1))
    assert [one.label for one in chart([a, a, b]).legend()] == ["a", "b"]
    assert chart([a, a]).legend() == []


def test_only_the_lowest_chart_that_is_drawn_names_the_axis():
    series = Series("a", numbers(1), numbers(1))
    drawn = above_each_other([chart([series]), chart([series]), chart([])], "iteration")
    assert [one.x_title for one in drawn] == ["", "iteration"]
