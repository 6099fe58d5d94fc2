"""Sockeye's transformer (Vaswani et al. 2017, arXiv 1706.03762), on sentences of an invented language.

Sockeye brings network, loss and greedy steps, sacrebleu the score. The loss is the mean over the tokens of all workers,
however many each of them has; in the last batch of an epoch there are shards with fewer sentences or none. Run it:
mpirun -np 2 .venv-clients/bin/python launch/train.py --config examples/clients/transformer.yaml
"""

import mxnet as mx
import numpy as np
import sacrebleu
from mxnet import autograd
from sockeye import constants
from sockeye.data_io import DataConfig
from sockeye.encoder import EmbeddingConfig
from sockeye.loss import CrossEntropyLossWithoutSoftmaxOutput
from sockeye.model import ModelConfig, SockeyeModel
from sockeye.transformer import TransformerConfig

WORDS, LONGEST, SIZE = 10, 6, 32
VOCABULARY = len(constants.VOCAB_SYMBOLS) + WORDS  # padding, unknown, begin, end, then words


def sentences(count, seed):
    """The translation of a sentence is its words, each by another word.

    Returns:
        Data, padded to the longest: source `(n, time, 1)`, its lengths, target behind the begin of a sentence and its
        lengths; and label, the target before the end of the sentence.
    """
    random = np.random.default_rng(seed)
    source, target, label = (np.full((count, LONGEST + 1), constants.PAD_ID, np.float32) for _ in range(3))
    lengths = random.integers(2, LONGEST + 1, count)
    first = len(constants.VOCAB_SYMBOLS)
    for row, length in enumerate(lengths):
        words = random.integers(0, WORDS, length)
        translated = first + (words * 7 + 3) % WORDS
        source[row, : length + 1] = [*(first + words), constants.EOS_ID]
        target[row, : length + 1] = [constants.BOS_ID, *translated]
        label[row, : length + 1] = [*translated, constants.EOS_ID]
    ends = (lengths + 1).astype(np.float32)
    return (source[..., None], ends, target[..., None], ends), label


def corpus():
    """For `data.name`: sentences for 37 batches and a half, so in the last one two shards of four have none."""
    return sentences(1196, 0), sentences(60, 1)


def network(dropout=0.05):
    """For `network.name`: as Sockeye's `train.py` puts it together from its options."""
    transformer = TransformerConfig(
        model_size=SIZE,
        attention_heads=4,
        feed_forward_num_hidden=4 * SIZE,
        act_type=constants.RELU,
        num_layers=1,
        dropout_attention=dropout,
        dropout_act=dropout,
        dropout_prepost=dropout,
        positional_embedding_type=constants.FIXED_POSITIONAL_EMBEDDING,
        preprocess_sequence="n",
        postprocess_sequence="dr",
        max_seq_len_source=LONGEST + 1,
        max_seq_len_target=LONGEST + 1,
    )
    model = SockeyeModel(
        ModelConfig(
            config_data=DataConfig(None, LONGEST + 1, LONGEST + 1, 1, 1),
            vocab_source_size=VOCABULARY,
            vocab_target_size=VOCABULARY,
            config_embed_source=EmbeddingConfig(VOCABULARY, SIZE, 0.0),
            config_embed_target=EmbeddingConfig(VOCABULARY, SIZE, 0.0),
            config_encoder=transformer,
            config_decoder=transformer,
        )
    )
    model.hybridize(static_alloc=True)  # its parts: it is a Block itself
    return model


class TokenMean(CrossEntropyLossWithoutSoftmaxOutput):
    """For `network.loss`: Sockeye's, which divides by the tokens of one device, as numerator and weight."""

    def __init__(self):
        """With label smoothing."""
        super().__init__(label_smoothing=0.1, num_labels=VOCABULARY)

    def forward(self, outputs, labels):
        """Every sentence has an end, so there are tokens."""
        tokens = (labels[self.label_name] != self.ignore_label).sum()
        return super().forward(outputs, labels)[0] * tokens, tokens


def translate(net, loss, data, label):
    """For `network.forward`: outside of training, the prediction is a greedy translation `(n, time)`."""
    outputs = net(*data)
    losses = loss(outputs, {constants.TARGET_LABEL_NAME: label})
    if autograd.is_training():
        return outputs, losses
    states, _ = net.encode_and_initialize(*data[:2])
    word, words = data[2][:, 0], []
    for _ in range(LONGEST + 1):
        logits, states, _ = net.decode_step(word, states)
        word = logits.argmax(axis=1).expand_dims(1)
        words.append(word)
    return mx.nd.concat(*words, dim=1), losses


class Bleu:
    """For `evaluation.metrics`."""

    best = "highest"

    def rows(self, prediction, label):
        """All translations and references."""
        return prediction.astype(np.int32), label.astype(np.int32)

    def finish(self, rows):
        """BLEU of all sentences up to their ends."""
        end = constants.EOS_ID
        translations, references = (
            [" ".join(map(str, ids[: [*ids, end].index(end)])) for ids in part.tolist()] for part in rows
        )
        return sacrebleu.corpus_bleu(translations, [references], tokenize="none", force=True).score
