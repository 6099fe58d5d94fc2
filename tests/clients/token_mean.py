"""Sockeye's transformer and a token mean: shards of other lengths and sizes, one without a valid token, one empty."""

from __future__ import annotations

import mxnet as mx
import numpy as np
from sockeye import constants

from examples.clients import transformer
from harness.data import Batch
from tests.programs.plain_gluon import compare
from tests.programs.tokens import SIZES, UPDATES, TokenMean, mean

LENGTHS = (4, 5, 3, 1)


class Copying(mx.gluon.Block):
    """Words, padded with 0, are predicted from themselves and those before."""

    def __init__(self) -> None:
        super().__init__()
        self.model = transformer.network(dropout=0.0)

    def forward(self, words):
        lengths = (words != constants.PAD_ID).sum(axis=1)
        begin = mx.nd.full((len(words), 1), constants.BOS_ID)
        source, target = words.expand_dims(2), mx.nd.concat(begin, words[:, :-1], dim=1).expand_dims(2)
        return self.model(source, lengths, target, lengths)[constants.LOGITS_NAME]


def network():
    net = Copying()
    mx.random.seed(5)
    net.initialize(mx.init.Xavier())
    return net


def shard(t: int, number: int) -> Batch:
    """As in `tokens.py`: the shard after the t-th of three has no valid token."""
    random = np.random.default_rng([t, number])
    size, length = SIZES[number], LENGTHS[number] + t % 3
    words = random.integers(constants.EOS_ID + 1, transformer.VOCABULARY, (size, length)).astype(np.float32)
    counted = random.integers(1, length + 1, (size, 1))
    words[np.arange(length) >= counted] = constants.PAD_ID
    valid = (words != constants.PAD_ID) & (t % 3 != number)
    return Batch(number, words, {"words": words, "valid": valid.astype(np.float32)})


if __name__ == "__main__":
    compare(network, TokenMean(), shard, SIZES, UPDATES, mean)
