"""Data of a run: ranks that must probe the same items, and classes that labels can hardly be."""

from __future__ import annotations

import numpy as np
import pytest

from harness.comm import SingleWorld
from harness.comm.compare import differences
from harness.config import load_config
from harness.data import SequenceDataset, draws_at_random, make_splits
from harness.data.purity import Found
from harness.errors import DataError, DisagreementError
from harness.train.samples import load_splits, probe_items, seed_items
from tests.programs.own_data import Items, pictures


class Beside(SingleWorld):
    """A world with a second rank, whose facts are given."""

    def __init__(self, facts):
        super().__init__()
        self.facts = facts

    def must_be_equal(self, name, facts, what_to_do, own=None):
        other = dict(self.facts)
        other_own = other.pop("own")
        found = differences([facts, other])
        if found:
            raise DisagreementError(f"{name}: the ranks do not agree:\n  " + "\n  ".join(found) + f"\n{what_to_do}")
        return [own, other_own]


def splits_of(item):
    return make_splits(SequenceDataset(Items(20, item)), num_classes=4)


def test_ranks_compare_the_items_that_they_probe():
    splits = splits_of(lambda i: (np.full(2, i), 0))
    found = probe_items(splits)
    other = probe_items(splits_of(lambda i: (np.full(2, i + (i == 19)), 0)))
    assert found["train"].digest != other["train"].digest
    facts = {"items of train": other["train"].digest, "own": {"train": [False, False]}}
    with pytest.raises(
        DisagreementError, match=r"items: the ranks do not agree:\n  items of train: .*\n.*not of the rank"
    ):
        seed_items(Beside(facts), splits, found, 0)


def test_items_are_seeded_where_any_rank_found_that_they_draw():
    splits = splits_of(lambda i: (np.full(2, i), 0))
    found = {"train": Found(digest="same")}
    facts = {"items of train": "same", "own": {"train": [True, False]}}
    assert draws_at_random(seed_items(Beside(facts), splits, found, 0).train)
    facts["own"]["train"] = [False, False]
    assert not draws_at_random(seed_items(Beside(facts), splits, found, 0).train)


def test_digests_of_items_do_not_depend_on_what_was_drawn_before():
    digests = set()
    for number in range(3):
        np.random.seed(number)
        digests.add(
            probe_items(make_splits(SequenceDataset(pictures("mxnet")["train"]), num_classes=4))["train"].digest
        )
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("loss", "params", "classes"),
    [
        ("softmax_cross_entropy", "{}", 5),
        ("softmax_cross_entropy", "{sparse_label: false}", None),
        ("l2", "{}", None),
        ("hinge", "{}", None),
        ("tests.programs.own_data:squared_loss", "{}", 5),
    ],
)
def test_what_integer_labels_are_depends_on_the_loss(loss, params, classes):
    words = ["data.name=tests.programs.own_data:numbers", f"network.loss={loss}", f"network.loss_params={params}"]
    assert load_splits(load_config("configs/digits.yaml", words)).num_classes == classes
    far = load_config("configs/digits.yaml", [*words, "data.params={low: 100000, high: 100002}"])
    if classes is None or ":" in loss:
        assert load_splits(far).num_classes is None
        return
    with pytest.raises(
        DataError, match=r"labels go up to 100001, but there are only 256, so they can hardly be classes"
    ):
        load_splits(far)
