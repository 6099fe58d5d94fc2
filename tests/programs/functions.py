"""Jobs whose batches are made by functions: ragged tokens that are padded, targets made in collate, windows of series.

Data are synthetic. Run as a program, it trains the jobs that it is given by their names in `SETTINGS`.
"""

from __future__ import annotations

import itertools
import random as python_random
import sys
import time

import mxnet as mx
import numpy as np
from mxnet.gluon import nn

from tests.programs.clients import COMMON, train_all
from tests.programs.own_data import Items

HERE = "tests.programs.functions"


# Words: text of any length is turned into ids, of which some are hidden in training; the mean is over tokens.

LETTERS = "abcdefgh"


def sentences():
    def part(count, seed):
        def item(index):
            random = np.random.default_rng([seed, index])
            letters = random.choice(list(LETTERS), random.integers(1, 12))
            return "".join(letters), sum(letter in "aeb" for letter in letters) % 2

        return Items(count, item)

    return {"train": part(100, 0), "test": part(21, 1)}


def ids(item, random):
    text, odd = item
    found = np.array([1 + LETTERS.index(letter) for letter in text])
    kinds = found % 3
    if random is not None:
        found = np.where(random.random(len(found)) < 0.1, 9, found)
    return {"ids": found, "odd": np.float32(odd)}, kinds


class Tagger(nn.HybridBlock):
    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.embed, self.out = nn.Embedding(10, 6), nn.Dense(3, flatten=False)

    def hybrid_forward(self, F, ids, odd, lengths):
        features = F.concat(self.embed(ids), F.broadcast_like(odd.reshape((-1, 1, 1)), ids.expand_dims(2)), dim=2)
        return F.SequenceMask(self.out(features), lengths, use_sequence_length=True, axis=1)


def tagger():
    return Tagger()


def tag(net, loss, data, label):
    scores = net(data["ids"], data["odd"], data["lengths"].astype("float32"))
    return scores, loss(scores, label)


def mean_over_tokens():
    def loss(scores, label):
        known = label >= 0
        losses = -mx.nd.pick(mx.nd.log_softmax(scores), mx.nd.maximum(label, 0))
        return losses * known.astype("float32"), known.astype("float32")

    return loss


def alike(lengths, epoch, seed):
    """Batches of up to 40 tokens, shuffled; equally many in every epoch, because only ties are left to chance."""
    random = np.random.default_rng([seed, epoch])
    order = np.lexsort([random.random(len(lengths)), lengths])
    batches, begin = [], 0
    for end in range(1, len(order) + 1):
        if end == len(order) or (end + 1 - begin) * lengths[order[end]] > 40 or end - begin == 24:
            batches.append(order[begin:end])
            begin = end
    return [batches[i] for i in random.permutation(len(batches))]


# Boxes: pictures with any number of boxes; collate makes targets for fixed anchors, and mixes pictures in training.


def scenes():
    def part(count, seed):
        def item(index):
            random = np.random.default_rng([seed, index])
            picture = random.normal(0, 0.1, (1, 8, 8)).astype(np.float32)
            boxes = random.integers(0, 4, (random.integers(0, 4), 2))
            for row, column in boxes:
                picture[0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] += 1
            return picture, boxes

        return Items(count, item)

    return {"train": part(96, 0), "test": part(24, 1)}


def targets(items, random):
    pictures = np.stack([picture for picture, _ in items])
    found = np.zeros((len(items), 4, 4), np.float32)
    for one, (_, boxes) in zip(found, items, strict=True):
        one[tuple(boxes.T)] = 1
    if random is not None:
        share = np.float32(random.beta(0.5, 0.5))
        order = random.permutation(len(items))
        pictures = share * pictures + (1 - share) * pictures[order]
        found = share * found + (1 - share) * found[order]
    return mx.nd.array(pictures), {"found": found, "weight": 1 + found}


def detector():
    net = nn.HybridSequential()
    net.add(nn.Conv2D(8, 3, padding=1, activation="relu"), nn.MaxPool2D(2), nn.Conv2D(1, 1))
    return net


def detection_loss():
    def loss(scores, label):
        return ((scores.reshape((0, 4, 4)) - label["found"]) ** 2) * label["weight"], label["weight"]

    return loss


# Windows: a series is cut at random in training, and at its end otherwise.


def series():
    def part(count, seed):
        def item(index):
            random = np.random.default_rng([seed, index])
            length = int(random.integers(20, 40))
            return {"target": np.sin(np.arange(length) / 3 + random.uniform(0, 6)), "kind": index % 4}

        return Items(count, item)

    return {"train": part(50, 0), "test": part(10, 1)}


def window(item, random):
    target = item["target"]
    end = len(target) if random is None else int(random.integers(12, len(target) + 1))
    return (target[end - 12 : end - 4], item["kind"]), target[end - 4 : end]


def other_window(item, random):
    return window(item, None)


class Forecast(nn.HybridBlock):
    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.kind, self.body, self.out = nn.Embedding(4, 2), nn.Dense(16, activation="tanh"), nn.Dense(4)

    def hybrid_forward(self, F, past, kind):
        return self.out(self.body(F.concat(past, self.kind(kind), dim=1)))


def forecast():
    return Forecast()


def _own(name: str) -> str:
    return f"'{HERE}:{name}'"


SETTINGS = {
    "words": [
        f"data={{name: {_own('sentences')}, params: {{}}, transform: {_own('ids')}}}",
        "data.collate={pad: {value: {label: -1}, lengths: true}}",
        f"network={{name: {_own('tagger')}, loss: {_own('mean_over_tokens')}, forward: {_own('tag')}}}",
        "batch={size: 3, shards: 8}",
        "train={iterations: 16, last_batch: keep}",
    ],
    "boxes": [
        f"data={{name: {_own('scenes')}, params: {{}}, collate: {_own('targets')}}}",
        f"network={{name: {_own('detector')}, loss: {_own('detection_loss')}}}",
    ],
    "windows": [
        f"data={{name: {_own('series')}, params: {{}}, transform: {_own('window')}}}",
        f"network={{name: {_own('forecast')}, loss: l2}}",
        "batch={size: 7, shards: 4}",
        "train={epochs: 8, last_batch: keep}",
    ],
}


SETTINGS["buckets"] = [*SETTINGS["words"], "data.bucket={by: \"data['ids']\", widths: [3, 6, 12]}"]
SETTINGS["alike"] = [
    *SETTINGS["words"],
    f"data.batches={HERE}:alike",
    "train={iterations: 22, last_batch: drop}",
]
SETTINGS["mixed"] = [
    "lr.base=0.003",
    "data={name: digits, augment: {pad_crop: 1}, collate: mixup}",
    "network={name: mlp, loss: softmax_cross_entropy, loss_params: {sparse_label: false}}",
    "evaluation.metrics=[accuracy, top_5_accuracy]",
]


def settings_of(name: str) -> list[str]:
    """The settings of a job, beside those of configs/digits.yaml."""
    return [*COMMON, f"name={name}", *SETTINGS[name]]


# What is refused.

_COUNTER = itertools.count()


def _row(item):
    return np.array([len(item[0])], np.float32)


def counts(item, random):
    return _row(item) + next(_COUNTER), _row(item)


def tells_time(item, random):
    return _row(item) + time.perf_counter(), _row(item)


def draws_globally(item, random):
    return _row(item) + np.random.random(), _row(item)


def draws_from_python(item, random):
    return _row(item) + python_random.random(), _row(item)


def draws_from_mxnet(item, random):
    return _row(item) + mx.nd.random.uniform(shape=1).asnumpy(), _row(item)


def raises(item, random):
    return _row(item) / {}["divisor"], _row(item)


def needs_random(item, random):
    return _row(item) + random.random(), _row(item)


def one_argument(item):
    return _row(item), _row(item)


def gives_one(item, random):
    return _row(item)


def two_shapes(item, random):
    return np.ones(len(item[0]), np.float32), _row(item)


def two_types(item, random):
    return (_row(item) if random is None else _row(item).astype(np.int64)), _row(item)


def pass_on(item, random):
    return np.ones(len(item[0]), np.float32), _row(item)


def counted(item, random):
    return _row(item), len(item[0])


def too_many(lengths, epoch, seed):
    return [np.arange(len(lengths))]


def fewer_later(lengths, epoch, seed):
    return [[0], [1]] if epoch == 1 else [[0]]


def joined(items):
    return np.stack([data.sum(keepdims=True) for data, _ in items]), np.stack([label for _, label in items])


def counting(items, random):
    data, label = joined(items)
    return data + next(_COUNTER), label


def global_mix(items, random):
    data, label = joined(items)
    return data[np.random.permutation(len(items))], label


def mxnet_mix(items, random):
    data, label = joined(items)
    return data + mx.nd.random.uniform(shape=1).asscalar(), label


def writes(items, random):
    for data, _ in items:
        data *= 2
    return joined(items)


def drops_one(items, random):
    data, label = joined(items)
    return data[1:] if len(items) > 1 else data, label


def squeezed(items, random):
    data, label = joined(items)
    return data[:, 0] if len(items) == 1 else data, label


def other_in_training(items, random):
    data, label = joined(items)
    return data, label if random is None else (label, label)


def list_of_items(items, random):
    return [data for data, _ in items], joined(items)[1]


def only_data(items, random):
    return joined(items)[0]


def no_columns(items, random):
    return joined(items)[0][:, :0], joined(items)[1]


if __name__ == "__main__":
    train_all(sys.argv[1], sys.argv[2], sys.argv[3:], settings_of)
