"""A BERT classifier as GluonNLP has it (Devlin et al. 2019, arXiv 1810.04805), on reviews in invented words.

GluonNLP brings vocabulary, tokens, network and optimizer. Items have as many tokens as their texts; `data.collate` pads
them to the longest of their shard, whose lengths become the third input. Lower layers learn more slowly. Run it:
mpirun -np 2 .venv-clients/bin/python launch/train.py --config examples/clients/bert.yaml
"""

import gluonnlp as nlp
import numpy as np
from gluonnlp.model.bert import BERTClassifier, BERTEncoder, BERTModel

KINDS = [["awful", "dull", "flat", "poor"], ["bright", "fine", "great", "warm"]]
OTHERS = ["a", "and", "film", "is", "it", "not", "of", "plot", "the", "this", "was", "with"]
LONGEST, UNITS = 24, 32
VOCABULARY = nlp.vocab.BERTVocab(nlp.data.count_tokens([*KINDS[0], *KINDS[1], *OTHERS]))


def reviews(count, seed):
    """Texts of 3 to 20 words, of which more are of the review's kind than of the other one; and their kinds."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        kind, others = random.integers(2), random.integers(1, 13)
        words = [*random.choice(OTHERS, others), *random.choice(KINDS[kind], 2 + others // 4)]
        words += [*random.choice(KINDS[1 - kind], random.integers(2))]
        yield " ".join(random.permutation(words)), kind


class Tokens:
    """Items `((ids, segments), kind)`, of any length."""

    def __init__(self, texts):
        """Keep the texts."""
        self._texts = list(texts)
        tokenizer = nlp.data.BERTTokenizer(VOCABULARY)
        self._transform = nlp.data.BERTSentenceTransform(tokenizer, LONGEST, vocab=VOCABULARY, pad=False, pair=False)

    def __len__(self):
        """The number of texts."""
        return len(self._texts)

    def __getitem__(self, index):
        """The tokens of a text between those of beginning and end."""
        text, kind = self._texts[index]
        ids, _, segments = self._transform((text,))
        return (np.float32(ids), np.float32(segments)), kind


def texts():
    """For `data.name`."""
    return {"train": Tokens(reviews(384, 0)), "test": Tokens(reviews(64, 1)), "num_classes": len(KINDS)}


def network():
    """For `network.name`: two layers, and a classifier on top of the first token."""
    encoder = BERTEncoder(
        num_layers=2, units=UNITS, hidden_size=4 * UNITS, num_heads=4, max_length=LONGEST, dropout=0.1
    )
    bert = BERTModel(
        encoder,
        vocab_size=len(VOCABULARY),
        token_type_vocab_size=2,
        units=UNITS,
        embed_size=UNITS,
        use_decoder=False,
        use_classifier=False,
    )
    return BERTClassifier(bert, num_classes=len(KINDS), dropout=0.1)


def classify(net, loss, data, label):
    """For `network.forward`: GluonNLP's scripts make floats of lengths as well."""
    ids, segments, lengths = data
    prediction = net(ids, segments, lengths.astype("float32"))
    return prediction, loss(prediction, label)
