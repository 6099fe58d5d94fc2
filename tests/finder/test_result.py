"""A finder's result as a file: what contradicts itself gives no learning rate."""

from __future__ import annotations

import json

import pytest

from harness.errors import ConfigError
from harness.finder import FinderResult, read_result
from harness.finder.records import RateGroup, rate_groups
from harness.folder import FactorGroup, Fields
from tests.report.folders import finder_result


@pytest.fixture
def content():
    result = finder_result()
    result["provenance"] |= {"shards": 2, "batch_size": 32}
    return json.loads(json.dumps(result))


def test_what_is_read_is_written(content):
    assert FinderResult.read(Fields(content)).to_json() == content


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("suggestion", "lr"), 0.3, "suggestion.lr is 0.3, but its rule 'edge' says 0.1"),
        (("suggestion", "rules", "edge"), 0.2, "suggestion.lr is 0.1, but its rule 'edge' says 0.2"),
        (("suggestion", "rule"), "edgf", "suggestion.lr is 0.1, but its rule 'edgf' says None"),
        (("suggestion", "low"), 0.11, "suggestion.lr is 0.1, outside of its interval of 0.11 to 0.2"),
        (("suggestion", "lr"), None, "suggestion has neither a lr nor a refusal"),
        (("suggestion", "refusal"), {"reason": "flat", "advice": "go on"}, "suggestion has both a lr and a refusal"),
        (("suggestion", "lr"), True, "suggestion.lr is true, not a number"),
        (("suggestion", "lr"), 10**400, "suggestion.lr is a number of 401 digits, too large for a float"),
        (("provenance", "global_batch"), 65, "provenance.global_batch is 65, but 2 shards x 32 are 64"),
        (("provenance", "global_batch"), -64, "provenance.global_batch is -64; allowed: 1 to"),
        (("sweeps", 0, "points", 7), [1e-9, 1.0], "sweeps[0].points[7][0] is 1e-09; allowed"),
        (("sweeps", 0, "points"), [], "sweeps[0].points is empty"),
        (("proof", "digest"), "none", "proof.digest is the text 'none', not hexadecimal digits"),
        (("proof", "num_ranks"), 0, "proof.num_ranks is 0; allowed: 1 to"),
        (("use", "role"), "warmup", "use.role is the text 'warmup'; known: peak, cyclical, one_cycle"),
        (("groups",), [{"lr": -1, "count": 1, "names": []}], "groups[0].lr is -1; allowed: 0 to"),
        (("groups",), [{"lr": 1, "count": 0, "names": []}], "groups[0].count is 0; allowed: 1 to"),
        (("suggestion", "begins"), 0, "suggestion.begins is 0; allowed"),
        (("format",), 2, "has format 2, but this version reads format 1"),
        (("kind",), ["learning-rate finder"], "kind is a list, not text"),
    ],
)
def test_a_result_says_what_is_wrong_with_it(content, tmp_path, path, value, reason):
    around = content
    for key in path[:-1]:
        around = around[key]
    around[path[-1]] = value
    (tmp_path / "result.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError) as raised:
        read_result(tmp_path / "result.json")
    assert str(raised.value).startswith(f"{tmp_path}/result.json: {reason}")


def test_groups_with_one_factor_count_as_one():
    groups = [FactorGroup(1.0, 1.0, 2, ["a", "b"]), FactorGroup(0.1, 1.0, 1, ["c"]), FactorGroup(1.0, 0.0, 12, ["d"])]
    assert rate_groups(groups) == [RateGroup(1.0, 14, ["a", "b", "d"]), RateGroup(0.1, 1, ["c"])]
    assert rate_groups([FactorGroup(1.0, 1.0, 2, ["a"]), FactorGroup(1.0, 0.0, 1, ["b"])]) == []


def test_a_result_of_an_earlier_version_is_read(content):
    del content["use"], content["groups"], content["suggestion"]["begins"]
    result = FinderResult.read(Fields(content))
    assert (result.role, result.scaling, list(result.groups), result.suggestion.begins) == ("peak", None, [], None)
