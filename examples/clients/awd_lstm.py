"""AWD-LSTM as GluonNLP has it (Merity et al. 2018, arXiv 1708.02182), on a text of an invented language.

GluonNLP brings the network, whose recurrent weights are dropped, and its two regularizers. Each row of a batch reads on
where it stopped; the hidden states belong to the shards, and are saved and moved with them. Run it:
mpirun -np 2 .venv-clients/bin/python launch/train.py --config examples/clients/awd_lstm.yaml
"""

import mxnet as mx
import numpy as np
from gluonnlp.loss import ActivationRegularizationLoss, TemporalActivationRegularizationLoss
from gluonnlp.model.train import AWDRNN
from mxnet import gluon

WORDS, EMBEDDED, HIDDEN, TIME = 20, 32, 64, 10


def text(count, seed):
    """Words, each one of three that may follow the one before it, in windows and with the words that follow."""
    following = np.random.default_rng(7).integers(0, WORDS, (WORDS, 3))
    random, words = np.random.default_rng(seed), [0]
    for choice in random.choice(3, count * TIME, p=[0.7, 0.2, 0.1]):
        words.append(following[words[-1], choice])
    return tuple(np.array(part).reshape(count, TIME) for part in (words[:-1], words[1:]))


def windows():
    """For `data.name`: 30 windows for each of 16 rows."""
    return text(480, 0), text(40, 1)


def network():
    """For `network.name`: as GluonNLP's `word_language_model.py` builds it."""
    return AWDRNN(
        "lstm",
        WORDS,
        embed_size=EMBEDDED,
        hidden_size=HIDDEN,
        num_layers=2,
        tie_weights=True,
        dropout=0.1,
        weight_drop=0.2,
        drop_h=0.1,
        drop_i=0.1,
        drop_e=0.05,
    )


def first_state(rows):
    """For `network.state`: hidden state and memory of each layer, of which the last has the size of the embedding."""
    return [[mx.nd.zeros((1, rows, size)) for _ in range(2)] for size in (HIDDEN, EMBEDDED)]


class JointLoss(gluon.Block):
    """For `network.loss`: cross entropy of all words, with what GluonNLP adds to it for activations and their steps."""

    def __init__(self):
        """With the factors of the paper."""
        super().__init__()
        self._pick = gluon.loss.SoftmaxCrossEntropyLoss()
        self._activation, self._step = ActivationRegularizationLoss(2), TemporalActivationRegularizationLoss(1)

    def forward(self, outputs, words):
        """Numerators and weights `(time * rows,)`."""
        predicted, raw, dropped = outputs
        losses = self._pick(predicted.reshape((-3, -1)), words.reshape((-1,)))
        if mx.autograd.is_training():
            losses = losses + self._activation(*dropped[-1:]) + self._step(*raw[-1:])
        return losses, mx.nd.ones_like(losses)


def unrolled(net, loss, data, label, state):
    """For `network.forward`: GluonNLP's axes are time and rows, the harness's rows and time."""
    predicted, state, raw, dropped = net(data.transpose(), state)
    losses = loss((predicted, raw, dropped), label.transpose())
    return predicted.swapaxes(0, 1), losses, state
