"""What a run may change when it resumes, setting by setting."""

from __future__ import annotations

from harness.config import parse_config
from harness.train.conflicts import compare, take_saved

RAW = {
    "train": {"epochs": 1},
    "network": {"name": "mlp"},
    "optimizer": {"params": {"momentum": 0.9}, "lr_mult": {"features.*": 0.1}},
    "lr": {"base": 0.1, "schedule": "1x"},
}


def test_a_key_with_dots_goes_back_to_what_was_saved():
    saved = parse_config(RAW)
    wanted = saved.changed({"optimizer.lr_mult": {"features.*": 0.5}, "optimizer.params": {"momentum": 0.5}})
    conflicts = compare(saved, wanted)
    assert [str(one) for one in conflicts.plan] == [
        "optimizer.params.momentum: 0.9 -> 0.5",
        "optimizer.lr_mult.features.*: 0.1 -> 0.5",
    ]
    assert take_saved(conflicts, wanted) == saved


def test_other_rounding_of_gradients_is_another_plan():
    saved = parse_config(RAW)
    conflicts = compare(saved, saved.changed({"compression": "fp16"}))
    assert conflicts.changes() == {"compression": ("none", "fp16")}
    assert not conflicts.fixed
    assert take_saved(conflicts, saved.changed({"compression": "fp16"})) == saved
