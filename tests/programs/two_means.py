"""Two denominators in one loss: the mean over masked words and that over sentences, as BERT's pre-training has them."""

from __future__ import annotations

import mxnet as mx
import numpy as np
from mxnet.gluon import nn

from harness.data import Batch
from tests.programs.plain_gluon import compare

SIZES, LENGTH, WORDS, UPDATES = (3, 5, 2, 0), 6, 11, 12
PICK = mx.gluon.loss.SoftmaxCrossEntropyLoss()


class Reader(nn.HybridBlock):
    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.embed = nn.Embedding(WORDS, 6)
            self.word, self.sentence = nn.Dense(WORDS, flatten=False), nn.Dense(2)

    def hybrid_forward(self, F, x):
        embedded = self.embed(x)
        return self.word(embedded), self.sentence(embedded.mean(axis=1))


class TwoMeans(mx.gluon.Block):
    """Sums that are divided by totals of what `weights` gives."""

    def weights(self, label):
        return {"masked": label["masked"], "sentences": label["known"]}

    def forward(self, prediction, label, totals):
        words, sentences = prediction
        masked = PICK(words, label["words"], label["masked"].expand_dims(2)) * LENGTH  # Gluon's mean over a sample
        known = PICK(sentences, label["next"]) * label["known"]
        return masked / totals["masked"] + known / totals["sentences"]


def network():
    net = Reader()
    mx.random.seed(5)
    net.initialize(mx.init.Xavier())
    return net


def shard(t: int, number: int) -> Batch:
    """In every third iteration nothing is masked; one shard never knows what comes next, and one is empty."""
    random = np.random.default_rng([t, number])
    size = SIZES[number]
    words = random.integers(0, WORDS, (size, LENGTH)).astype(np.int32)
    label = {
        "words": words,
        "masked": (random.random((size, LENGTH)) < 0.3 * (t % 3 > 0)).astype(np.float32),
        "next": words[:, 0] % 2,
        "known": np.full(size, number != 1, np.float32),
    }
    return Batch(number, np.where(label["masked"], 0, words).astype(np.int32), label)


def mean(prediction, label):
    loss = TwoMeans()
    totals = {name: max(float(one.sum().asscalar()), 1e-9) for name, one in loss.weights(label).items()}
    return loss(prediction, label, totals).sum()


if __name__ == "__main__":
    compare(network, TwoMeans(), shard, SIZES, UPDATES, mean)
