"""Networks with embeddings whose gradients are rows, and data with integer ids."""

from __future__ import annotations

import mxnet as mx
import numpy as np
from mxnet.gluon import nn

ROWS = 300


class Factors(nn.HybridBlock):
    """Matrix factorisation: no gradient is dense."""

    def __init__(self, rows: int = ROWS, width: int = 4, sparse: bool = True) -> None:
        super().__init__()
        with self.name_scope():
            self.user, self.item = (
                nn.Embedding(rows, width, sparse_grad=sparse, weight_initializer=mx.init.Normal(0.3)) for _ in range(2)
            )

    def hybrid_forward(self, F, ids):
        users, items = F.slice_axis(ids, axis=1, begin=0, end=1), F.slice_axis(ids, axis=1, begin=1, end=2)
        return F.sum(self.user(users) * self.item(items), axis=(1, 2)).reshape((-1, 1))


class Bag(nn.HybridBlock):
    """One table that is asked twice, and dense layers behind it."""

    def __init__(self, sparse: bool = True, rows: int = ROWS, is_code: bool = False, by_batch: bool = True) -> None:
        super().__init__()
        self.is_code = is_code
        with self.name_scope():
            self.embed = nn.Embedding(rows, 6, sparse_grad=sparse, weight_initializer=mx.init.Normal(0.5))
            self.norm = nn.BatchNorm(use_global_stats=not by_batch)
            self.out = nn.Dense(1)

    def hybrid_forward(self, F, ids):
        if self.is_code:
            assert ids.shape  # which symbols do not have
        one = F.mean(self.embed(F.slice_axis(ids, axis=1, begin=0, end=1)), axis=1)
        other = F.mean(self.embed(ids), axis=1)
        return self.out(self.norm(F.concat(one, other, dim=1)))


def factors(**params):
    return Factors(**params)


def bag(**params):
    return Bag(**params)


def data(dtype: str = "int32", largest: int = ROWS - 1, samples: int = 210):
    """Pairs of ids, of which small ones are frequent; the last pair has the largest."""
    random = np.random.default_rng(5)
    ids = np.minimum(random.geometric(0.02, (samples, 2)), ROWS - 1).astype(dtype)
    ids[-1] = largest
    label = random.normal(size=(samples, 1)).astype(np.float32)
    return {"train": (ids, label), "test": (ids[:50], label[:50])}
