"""Which facts of ranks differ: by type and value, as JSON writes them, and how they are shown."""

from __future__ import annotations

import json
import math

import pytest

from harness.comm.compare import differences, name_ranks

LONG = "a" * 200


@pytest.mark.parametrize(
    ("one", "other", "shown"),
    [
        (1, True, "1 on rank 0; True on rank 1"),
        (0, False, "0 on rank 0; False on rank 1"),
        (1, 1.0, "1 on rank 0; 1.0 on rank 1"),
        (0.0, -0.0, "0.0 on rank 0; -0.0 on rank 1"),
        (1, "1", '1 on rank 0; "1" on rank 1'),
        (None, "None", 'null on rank 0; "None" on rank 1'),
        (None, False, "None on rank 0; False on rank 1"),
        ([], {}, "[] on rank 0; {} on rank 1"),
        ([1], [1, 2], "[1] on rank 0; [1, 2] on rank 1"),
        (0.1, 0.1 + 2**-56, "0.1 on rank 0; 0.10000000000000002 on rank 1"),
        (math.nan, math.inf, "nan on rank 0; inf on rank 1"),
        (2**53, 2.0**53, "9007199254740992 on rank 0; 9007199254740992.0 on rank 1"),
    ],
)
@pytest.mark.parametrize("place", ["facts", "facts.inner", "facts[1]", "facts.inner[1]"])
def test_values_that_json_tells_apart_differ_wherever_they_stand(one, other, shown, place):
    def facts(value):
        inner = [7, value] if place.endswith("[1]") else value
        return {"same": 1, "facts": {"inner": inner} if ".inner" in place else inner}

    assert differences([facts(one), facts(other)]) == [f"{place}: {shown}"]
    assert differences([facts(one), facts(one), facts(one)]) == []


def test_nan_is_equal_to_nan_of_another_rank():
    ranks = [{"base": float("nan"), "all": [float("nan"), {"low": float("nan")}]} for _ in range(3)]
    assert differences(ranks) == differences(json.loads(json.dumps(ranks))) == []
    ranks[1]["all"][1]["low"] = 0.5
    assert differences(ranks) == ["all[1].low: nan on ranks 0, 2; 0.5 on rank 1"]


def test_mappings_are_equal_in_any_order_and_tuples_as_lists():
    assert differences([{"a": {"x": 1, "y": (2, 3)}}, {"a": {"y": [2, 3], "x": 1}}]) == []


def test_what_is_missing_differs_from_every_value():
    for value in (None, "nothing", 0, [], {}):
        (found,) = differences([{"facts": {"key": value}}, {"facts": {}}])
        assert found.startswith("facts.key: ")
        assert "nothing on rank 1" in found


def test_long_values_that_differ_late_are_shown_from_where_they_do():
    (found,) = differences([{"name": LONG + "b"}, {"name": LONG + "c" + LONG}])
    assert found == f"name: ...{'a' * 20}b on rank 0; ...{'a' * 20}c{'a' * 53}... on rank 1"


def test_the_first_places_are_told_and_how_many_more_there_are():
    found = differences([{str(key): key for key in range(20)}, {str(key): -key for key in range(20)}])
    assert (len(found), found[0], found[-1]) == (13, "1: 1 on rank 0; -1 on rank 1", "and 7 more")


def test_ranks_are_named():
    assert (name_ranks([1]), name_ranks([0, 2])) == ("rank 1", "ranks 0, 2")
