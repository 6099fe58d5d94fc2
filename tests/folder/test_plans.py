"""`plan.json` and `plan.csv`: what contradicts itself is not shown."""

from __future__ import annotations

import json

import numpy as np
import pytest

from harness.folder import (
    AmendmentRecord,
    FactorGroup,
    Fields,
    PlannedSizes,
    PlanRecord,
    RecordError,
    read_curve,
    read_plan,
)
from harness.plan import Rewind
from tests.report.folders import make_run

REWIND = {"iteration": 40, "choice": "rewind", "lr_factor": 0.5, "diverged_at": 46}
JUDGED = {"monitor": "test.loss", "evaluations": 3, "best_at": 10, "best": 0.5}
PLATEAU = {"iteration": 40, "choice": "plateau", **JUDGED, "lr_factor": 0.5, "min_lr": 0.01}
STOP = {"iteration": 40, "choice": "early_stop", **JUDGED, "best": None}
TAKEN = {"iteration": 40, "choice": "config", "changes": {"a": [1, {"b": [None]}]}, "lr": {"base": 1}, "train": {}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("plans"), amendments=[Rewind(40, 0.5, diverged_at=46)])


@pytest.fixture
def content(folder):
    return json.loads((folder / "plan.json").read_text())


def test_what_is_written_is_read(folder, content):
    record = read_plan(folder)
    assert record.to_json() == content
    assert (record.num_phases, len(record.phases), record.sizes.num_iterations) == (4, 4, 100)
    t, lr = read_curve(folder, record)
    assert (t == np.arange(1, 101)).all()
    assert lr[-1] == record.phases[-1].lr[1]


def test_factors_of_parameters_are_written_as_they_were_read(content):
    content["factors"] = [{"lr": 0.5, "wd": 0.0, "count": 9, "names": ["a.bias", "b.bias"]}]
    record = PlanRecord.read(Fields(content))
    assert record.to_json() == content
    assert record.factors == [FactorGroup(0.5, 0.0, 9, ["a.bias", "b.bias"])]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"lr": -1}, r"factors\[0\].lr is -1; allowed"),
        ({"wd": "x"}, r"factors\[0\].wd is the text 'x'"),
        ({"count": 0}, r"factors\[0\].count is 0; allowed: 1 to"),
        ({"names": []}, r"factors\[0\].names is not a list of 1 to 8 names"),
        ({"names": ["a", 3]}, r"factors\[0\].names is not a list of 1 to 8 names"),
        ({"names": ["a"] * 9, "count": 9}, r"factors\[0\].names is not a list of 1 to 8 names"),
        (None, r"factors\[0\] is null, not an object"),
    ],
)
def test_factors_that_are_none_say_what_is_wrong(content, change, reason):
    good = {"lr": 0.5, "wd": 0.0, "count": 1, "names": ["a.bias"]}
    content["factors"] = [None if change is None else {**good, **change}]
    with pytest.raises(RecordError, match=f"^{reason}"):
        PlanRecord.read(Fields(content))


@pytest.mark.parametrize("amendment", [REWIND, TAKEN, PLATEAU, STOP])
def test_an_amendment_is_written_as_it_was_read(amendment):
    assert AmendmentRecord.read(Fields(amendment)).to_json() == amendment


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("sizes", "num_iterations"), 200, "phases do not cover iterations 1 to 200"),
        (("sizes", "num_iterations"), -1, "sizes.num_iterations is -1; allowed: 1 to"),
        (("sizes", "iterations_per_epoch"), 0, "sizes.iterations_per_epoch is 0; allowed: 1 to"),
        (("sizes", "shards"), 4, "sizes.iterations_per_epoch is 25, but 800 samples make 12 global batches of 4 x 16"),
        (("phases", 1, "first"), 11, r"phases\[1\].first is 11, but the previous phase ends at 9"),
        (("phases", 0, "lr"), [0.1], r"phases\[0\].momentum and lr have 2 and 1 values"),
        (("phases", 0, "lr"), [0.1, -1], r"phases\[0\].lr is -1; allowed"),
        (("phases", 2), None, r"phases\[2\] is null, not an object"),
        (("phases",), [], "phases do not cover"),
        (("amendments", 0, "choice"), "rewound", r"amendments\[0\].choice is 'rewound'; known: config"),
        (("amendments", 0, "iteration"), 101, r"amendments\[0\].iteration is 101; the run has 100"),
        (("described",), 7, "described is 7, not text"),
        (("remarks",), "x", "remarks is the text 'x', not a list"),
    ],
)
def test_a_plan_says_what_is_wrong_with_it(content, path, value, reason):
    around = content
    for key in path[:-1]:
        around = around[key]
    around[path[-1]] = value
    with pytest.raises(RecordError, match=f"^{reason}"):
        PlanRecord.read(Fields(content))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("\n7,", "\n17,", "line 9: iteration is 8; it must be whole, above 17"),
        ("\n7,", "\n-7,", "line 8: iteration is -7"),
        ("\n7,", "\nseven,", "line 8: iteration is 'seven', not a number"),
        ("\n9,1,0.18", "\n9,1,0.81", "line 10: lr is 0.81 at iteration 9, but plan.json has 0.18"),
        ("\n30,2,", "\n30,3,", "line 31: epoch is 3 at iteration 30"),
        ("iteration,", "iterations,", "line 2: iteration is missing"),
        ("\n7,1,0.14", "\n7,1,1e999", "line 8: lr is inf; allowed"),
        ("\n7,1,0.14", "\n7,1,1_4", "line 8: lr is '1_4', not a number"),
        ("\n100,", "\n99.5,", "line 101: iteration is 99.5"),
        ("\n7,", "\n" + "7" * 200_000 + ",", "line 8: field larger than field limit"),
    ],
)
def test_a_curve_says_which_line_is_wrong(folder, tmp_path, old, new, reason):
    text = (folder / "plan.csv").read_text()
    assert old in text
    (tmp_path / "plan.csv").write_text(text.replace(old, new))
    with pytest.raises(RecordError, match=f"^{reason}"):
        read_curve(tmp_path, read_plan(folder))


def test_a_curve_that_was_cut_is_not_drawn_as_if_it_were_whole(folder, tmp_path):
    lines = (folder / "plan.csv").read_text().splitlines(keepends=True)
    (tmp_path / "plan.csv").write_text("".join(lines[:50]))
    with pytest.raises(RecordError, match="line 50: the last iteration is 49, but the plan ends at 100"):
        read_curve(tmp_path, read_plan(folder))


def test_batches_of_ones_own_may_be_of_any_number():
    numbers = {"num_samples": 100, "shards": 8, "batch_size": 3, "iterations_per_epoch": 18, "num_iterations": 36}
    sizes = PlannedSizes.read(Fields({**numbers, "own_batches": 18}))
    assert (sizes.iterations_per_epoch, sizes.own_batches) == (18, 18)
    with pytest.raises(RecordError, match="own_batches is 17; allowed: 18 to 18"):
        PlannedSizes.read(Fields({**numbers, "own_batches": 17}))
    with pytest.raises(RecordError, match="iterations_per_epoch is 18, but 100 samples make 4 global batches of 8 x 3"):
        PlannedSizes.read(Fields(numbers))
