"""Data that users bring: tokens of bytes, masks, several inputs, items drawn at random; and networks for them."""

from __future__ import annotations

import itertools
import random
import time

import mxnet as mx
import numpy as np
from mxnet.gluon import nn
from mxnet.gluon.data import ArrayDataset
from mxnet.gluon.data.vision import transforms


def labelled(count: int, seed: int, features: int = 8):
    """Points of four classes that a linear network can tell apart."""
    points = np.random.default_rng(seed).normal(size=(count, features)).astype(np.float32)
    return points, (points @ np.random.default_rng(99).normal(size=(features, 4))).argmax(1)


def tokens(dtype: str = "uint8", low: int = 0, high: int = 200):
    """Sequences of four tokens; the class is the first token modulo 4."""

    def part(count, seed):
        found = np.random.default_rng(seed).integers(low, high, (count, 4))
        return found.astype(dtype), found[:, 0] % 4

    return {"train": part(1024, 0), "test": part(256, 1), "num_classes": 4}


def embedding(size: int = 256, classes: int = 4):
    net = nn.HybridSequential()
    net.add(nn.Embedding(size, 8), nn.Flatten(), nn.Dense(classes))
    return net


class Remainder(nn.HybridBlock):
    """Looks up the remainders of ids, whose last digits float32 does not have."""

    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.inner = embedding()

    def hybrid_forward(self, F, x):
        return self.inner(x % 256)


def remainder_embedding():
    return Remainder()


def masks(dtype: str = "int64", first: bool = True):
    """A class for every pixel of 8x8; classes of the prediction lie along axis 1, or (not `first`) the last."""

    def part(count, seed):
        generator = np.random.default_rng(seed)
        label = generator.integers(0, 3, (count, 8, 8))
        data = np.eye(3, dtype=np.float32)[label] + generator.normal(0, 0.3, (count, 8, 8, 3)).astype(np.float32)
        return (data.transpose(0, 3, 1, 2) if first else data), label.astype(dtype)

    return {"train": part(128, 0), "test": part(32, 1)}


def mask_net(first: bool = True):
    if not first:
        return nn.Dense(3, flatten=False)
    net = nn.HybridSequential()
    net.add(nn.Conv2D(8, 3, padding=1, activation="relu"), nn.Conv2D(3, 1))
    return net


class Items:
    """Items by a function of the index."""

    def __init__(self, count: int, item) -> None:
        self.count, self.item = count, item

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        return self.item(index)


def two_inputs(form: str = "nested"):
    def part(count, seed):
        points, label = labelled(count, seed)
        a, b = points[:, :5], points[:, 5:]
        return {
            "nested": Items(count, lambda i: ((a[i], b[i]), int(label[i]))),
            "flat": Items(count, lambda i: (a[i], b[i], int(label[i]))),
            "gluon": ArrayDataset(a, b, label),
            "mxnet": Items(count, lambda i: ((mx.nd.array(a[i]), mx.nd.array(b[i])), int(label[i]))),
            "arrays": ((a, b), label),
            "flat arrays": (a, b, label),
        }[form]

    return {"train": part(256, 0), "test": part(64, 1), "num_classes": 4}


class TwoInputs(nn.HybridBlock):
    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.a, self.b, self.out = nn.Dense(8), nn.Dense(8), nn.Dense(4)

    def hybrid_forward(self, F, x, y):
        return self.out(F.relu(self.a(x) + self.b(y)))


def two_inputs_net():
    return TwoInputs()


def looked_up():
    """Points, and for each an id beyond float32's whole numbers."""
    points, label = labelled(256, 0)
    ids = (label + 2**25).astype(np.int64)
    return {"train": ((points, ids[:, None]), label), "num_classes": 4}


class LooksUp(nn.HybridBlock):
    """Reads the class from the id, if it comes whole."""

    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.table, self.out = nn.Embedding(4, 4), nn.Dense(4)

    def hybrid_forward(self, F, x, ids):
        return self.out(F.concat(0 * x, F.flatten(self.table(ids % 4)), dim=1))


def looks_up():
    return LooksUp()


def numbers(label: str = "int64", low: int = 0, high: int = 5, two: bool = False):
    """Whole numbers to be predicted, not classes; one or two a sample."""
    points, _ = labelled(256, 0)
    values = np.random.default_rng(1).integers(low, high, (256, 2) if two else 256)
    return {"train": (points, values.astype(label)), "test": (points[:32], values[:32].astype(label))}


class SquaredLoss(mx.gluon.loss.Loss):
    """Computes with labels, which come as they are; casts them first, or not."""

    def __init__(self, cast: bool) -> None:
        super().__init__(1.0, 0)
        self.cast = cast

    def hybrid_forward(self, F, prediction, label):
        label = F.cast(label, "float32") if self.cast else label
        return F.square(F.reshape(prediction, (-1,)) - label)


def squared_loss(cast: bool = True):
    return SquaredLoss(cast)


class Kept:
    """Items that keep something after they are read first, in one of the ways caches do it."""

    def __init__(self, how: str, count: int = 60) -> None:
        self.how, self.count, self.cache = how, count, {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        if self.how == "all at once" and not self.cache:
            self.cache = dict(enumerate(np.random.normal(size=(self.count, 4))))
        if index not in self.cache:
            self.cache[index] = self.made(index)
            if self.how == "few" and len(self.cache) > 8:
                del self.cache[next(iter(self.cache))]
        value = self.cache[index] + (np.random.normal() if self.how in ("noise on top", "drawn on top") else 0)
        return value.astype(np.float32), index % 3

    def made(self, index: int):
        if self.how in ("pure", "drawn on top") or (self.how == "one" and index != self.count - 1):
            return np.full(4, index / 60)
        if self.how == "python":
            return np.full(4, random.random())
        if self.how == "text":
            return np.full(4, hash(str(index)) % 1000 / 1000)
        return np.random.normal(size=4)


def kept(how: str = "numpy", count: int = 60):
    return {"train": Kept(how, count), "num_classes": 3}


SHIFT: list[float] = []  # what a test adds to items between two runs


def shifted():
    """Items whose labels are those of any process, and whose data are not."""
    shift = sum(SHIFT)
    return {"train": Items(64, lambda i: (np.full(4, i / 64 + shift, np.float32), i % 3)), "num_classes": 3}


def pictures(how: str = "mxnet", count: int = 96):
    """Pictures of four classes, changed at random in one of the ways people do it, or as nobody should."""
    generator = np.random.default_rng(0)
    label = np.arange(count) % 4
    image = generator.integers(0, 90, (count, 8, 8, 3)).astype(np.uint8)
    for i, k in enumerate(label):
        image[i, 2 * k : 2 * k + 2] += 150
    plain = image.astype(np.float32).transpose(0, 3, 1, 2) / 255
    turns, cursor = itertools.count(), itertools.count()
    own = np.random.default_rng()
    flip = transforms.Compose([transforms.RandomFlipLeftRight(), transforms.ToTensor()])

    def noise(i, value):
        return plain[i] + np.float32(value), int(label[i])

    ways = {
        "plain": lambda i: noise(i, 0),
        "mxnet": lambda i: (flip(mx.nd.array(image[i], dtype="uint8")), int(label[i])),
        "numpy": lambda i: noise(i, np.random.normal()),
        "python": lambda i: noise(i, random.random()),
        "rare": lambda i: noise(i, 0.5 if random.random() < 0.02 else 0),
        "label": lambda i: (plain[i], (int(label[i]) + (np.random.rand() < 0.1)) % 4),
        "default_rng": lambda i: noise(i, np.random.default_rng().normal()),
        "own generator": lambda i: noise(i, own.normal()),
        "counter": lambda i: noise(i, next(turns)),
        "cursor": lambda i: noise(next(cursor) % count, 0),
        "clock": lambda i: noise(i, time.perf_counter_ns() % 1000),
    }
    test = Items(32, ways["plain"])
    return {"train": Items(count, ways[how]), "test": test, "num_classes": 4}
