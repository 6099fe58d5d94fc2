"""What `launch/data.py show` shows is what the network of a run gets."""

from __future__ import annotations

import numpy as np
import pytest

from harness.config import parse_config
from harness.data import BatchStream, Order, seeded_splits
from harness.model import seed_generator
from harness.train.samples import build_augmentation, load_splits, probe_items
from harness.train.shown import Shown, label_in_words

ARRAYS = {
    "data": {"name": "npy", "augment": {"pad_crop": 2, "flip": True, "mean": [0.5], "std": [0.25]}},
    "batch": {"size": 3, "shards": 2},
    "train": {"epochs": 3},
    "network": {"name": "mlp"},
    "optimizer": {"name": "sgd"},
    "lr": {"base": 0.1, "schedule": {"constant": {"lr": "1x"}}},
}


@pytest.fixture
def config(tmp_path):
    draw = np.random.default_rng(0)
    for split in ("train", "validation"):
        np.save(tmp_path / f"{split}_data.npy", draw.integers(0, 256, (13, 3, 6, 6)).astype(np.uint8))
        np.save(tmp_path / f"{split}_label.npy", draw.integers(0, 4, 13))
    return parse_config({**ARRAYS, "data": {**ARRAYS["data"], "root": str(tmp_path)}}, "test")


def batch_of(config, t):
    splits = load_splits(config)
    order = Order(13, 2, 3, config.seed, config.train.last_batch)
    with BatchStream(splits.train, order, (0, 1), build_augmentation(config, splits), config.seed) as stream:
        return order, stream(t)


@pytest.mark.parametrize("t", [1, 4])
def test_samples_of_an_epoch_are_those_of_its_batches(config, t):
    order, batch = batch_of(config, t)
    shown = Shown(config, "train")
    for shard in batch.batches:
        indices = order.shard_indices(t, shard.shard)
        views = list(shown.samples(indices, [order.epoch(t)]))
        assert [view.values.tobytes() for view in views] == [row.tobytes() for row in shard.data]
        assert [view.label for view in views] == [str(one) for one in shard.label.tolist()]
    both = list(shown.samples(indices, [1, 2]))
    assert len(both) == 2 * len(indices)
    assert any((both[row].values != both[row + 1].values).any() for row in range(0, len(both), 2))


def test_an_iteration_is_its_batch(config):
    order, batch = batch_of(config, 3)
    views = list(Shown(config, "train").iteration(3))
    rows = [
        (row.tobytes(), str(label)) for one in batch.batches for row, label in zip(one.data, one.label, strict=True)
    ]
    assert [(view.values.tobytes(), view.label) for view in views] == rows
    indices = np.concatenate([order.shard_indices(3, shard) for shard in (0, 1)]).tolist()
    assert [view.name.split(",")[0] for view in views] == [f"sample {index}" for index in indices]


@pytest.mark.parametrize("how", ["mxnet", "numpy"])
def test_random_items_of_ones_own_are_those_of_a_run(how):
    data = {"name": "tests.programs.own_data:pictures", "params": {"how": how, "count": 36}}
    config = parse_config({**ARRAYS, "data": data}, "test")
    splits = load_splits(config)
    train = seeded_splits(splits, probe_items(splits), config.seed, seed_generator).train
    order = Order(len(train), 2, 3, config.seed, config.train.last_batch)
    with BatchStream(train, order, (0, 1), build_augmentation(config, splits), config.seed) as stream:
        batch = stream(9)
    shown = Shown(config, "train")
    for shard in batch.batches:
        views = shown.samples(order.shard_indices(9, shard.shard), [order.epoch(9)])
        assert [view.values.tobytes() for view in views] == [row.tobytes() for row in shard.data]
    views = list(shown.samples(np.arange(10), [1, 2]))
    assert any((views[row].values != views[row + 1].values).any() for row in range(0, 20, 2))


def test_in_evaluation_nothing_is_augmented(config):
    shown = Shown(config, "validation")
    assert len(shown) == 13
    (view,) = shown.samples(np.array([5]), [1])
    pixels = load_splits(config).validation.take(np.array([5]))[0][0]
    np.testing.assert_allclose(view.values, (pixels / 255 - 0.5) / 0.25, atol=1e-6)
    assert shown.normalisation == ((0.5,), (0.25,))


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (np.int32(1), "1 dog"),
        (np.int32(7), "7"),
        (np.float32(1.25), "1.25"),
        (np.array([0.0, 1.0], np.float32), "1 dog: 100%"),
        (np.array([0.3, 0.7], np.float32), "1 dog: 70%, 0 cat: 30%"),
        (np.array([0.3, 0.9], np.float32), "0.3, 0.9"),
        (np.array([3, 4, 5]), "3, 4, 5"),
        (np.zeros((6, 6), np.int32), "int32 (6, 6)"),
        ({"kind": np.int32(0), "box": np.array([1.0, 2.0, 3.0, 4.0])}, "label['kind'] 0 cat; label['box'] 1, 2, 3, 4"),
    ],
)
def test_labels_in_words(label, words):
    assert label_in_words(label, ("cat", "dog")) == words
