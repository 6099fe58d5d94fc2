"""Two jobs that carry state along streams of text: compiled with a list as state, and as Python with a dict."""

from __future__ import annotations

import mxnet as mx
import numpy as np
from mxnet.gluon import nn

HERE = "tests.programs.streams"
WORDS, LENGTH, SIZE = 7, 5, 8


def text(words: int, seed: int) -> np.ndarray:
    """Each word comes three times, now and then another: what comes next is known only from what was before."""
    random = np.random.default_rng(seed)
    return np.where(random.random(words) < 0.1, random.integers(0, WORDS, words), np.arange(words) // 3 % WORDS)


def windows(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Words one after another, `(count, LENGTH)`, and those that follow them."""
    words = text(count * LENGTH + 1, seed)
    return tuple(part.reshape(count, LENGTH).astype(np.int32) for part in (words[:-1], words[1:]))


def pages():
    return {"train": windows(0, 77), "test": windows(1, 29), "num_classes": WORDS}


def masked_pages():
    def part(seed, count):
        words, following = windows(seed, count)
        known = np.random.default_rng(seed + 7).random(words.shape) < 0.8
        return {"words": words}, {"words": following, "known": known.astype(np.float32)}

    return {"train": part(0, 77), "test": part(1, 29)}


class Reader(nn.HybridBlock):
    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        with self.name_scope():
            self.embed = nn.Embedding(WORDS, 6)
            self.lstm = mx.gluon.rnn.LSTM(SIZE, layout="NTC", input_size=6)
            self.dropout, self.head = nn.Dropout(dropout), nn.Dense(WORDS, flatten=False)

    def hybrid_forward(self, F, x, state):
        output, state = self.lstm(self.embed(x), state)
        return self.head(self.dropout(output)), state


def reader(**params):
    return Reader(**params)


def zeros(rows):
    return [np.zeros((1, rows, SIZE)), mx.nd.zeros((1, rows, SIZE))]


class Elman(mx.gluon.Block):
    """As Elman 1990 has it, and a count of the words that were read."""

    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.embed, self.hidden = nn.Embedding(WORDS, 6), nn.Dense(SIZE, activation="tanh")
            self.head = nn.Dense(WORDS, flatten=False)

    def forward(self, words, state):
        hidden, embedded, outputs = state["inner"][0], self.embed(words), []
        for step in range(words.shape[1]):
            hidden = self.hidden(mx.nd.concat(embedded[:, step], hidden, dim=1))
            outputs.append(hidden.expand_dims(1))
        read = state["read"] + words.shape[1]
        return self.head(mx.nd.concat(*outputs, dim=1)), {"inner": (hidden,), "read": read}


def elman():
    return Elman()


def a_tenth(rows):
    return {"inner": (np.full((rows, SIZE), 0.1, np.float32),), "read": np.zeros((rows, 1), np.int64)}


def with_state(net, loss, data, label, state):
    prediction, state = net(data["words"], state)
    return prediction, loss(prediction, label), state


def mean_over_known():
    pick = mx.gluon.loss.SoftmaxCrossEntropyLoss()

    def loss(prediction, label):
        known = label["known"]
        return pick(prediction, label["words"], known.expand_dims(2)) * LENGTH, known.sum(axis=1)

    return loss


# What goes wrong.

CALLS: list[int] = []


def of_two_rows(rows):
    return [np.zeros((1, 2, SIZE), np.float32)] * 2


def of_text(rows):
    return {"h": "zeros"}


def counting(rows):
    CALLS.append(rows)
    return [np.full((1, rows, SIZE), len(CALLS), np.float32)] * 2


def not_a_number(rows):
    return [np.full((1, rows, SIZE), np.nan, np.float32)] * 2


def raising(rows):
    raise KeyError("hidden")


def of_this_rank(rows):
    from harness.comm import read_launch

    return [np.full((1, rows, SIZE), read_launch().rank, np.float32)] * 2


class Forgetful(Reader):
    def hybrid_forward(self, F, x, state):
        return super().hybrid_forward(F, x, state)[0]


class Halving(Reader):
    def hybrid_forward(self, F, x, state):
        output, state = super().hybrid_forward(F, x, state)
        return output, state[:1]


def forgetful():
    return Forgetful()


def halving():
    return Halving()


def without_state(net, loss, data, label, state):
    return with_state(net, loss, data, label, state)[:2]


def _own(name: str) -> str:
    return f"{HERE}:{name}"


SETTINGS = {
    "reader": [
        f"data.name={_own('pages')}",
        f"network={{name: '{_own('reader')}', state: '{_own('zeros')}'}}",
        "evaluation.metrics=[perplexity, accuracy]",
        "batch={size: 3, shards: 4}",
    ],
    "elman": [
        f"data.name={_own('masked_pages')}",
        f"network={{name: '{_own('elman')}', loss: '{_own('mean_over_known')}', forward: '{_own('with_state')}', "
        f"state: '{_own('a_tenth')}'}}",
        "evaluation.streams=3",
        "batch={size: 3, shards: 4}",
    ],
}
