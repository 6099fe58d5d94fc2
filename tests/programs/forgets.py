"""A network that a smoke test is there to find, with something in it that no checkpoint holds; and one slow forward."""

from __future__ import annotations

from mxnet.gluon import nn


class Numbered(nn.HybridBlock):
    """Scales its output by its number among all that this process has built."""

    built = 0

    def __init__(self) -> None:
        super().__init__()
        Numbered.built += 1
        self.scale = 1 + 0.1 * Numbered.built
        with self.name_scope():
            self.dense = nn.Dense(10)

    def hybrid_forward(self, F, x):
        return self.dense(x) * self.scale


class Slow(nn.HybridBlock):
    """A forward whose products no backward sees."""

    def __init__(self, products: int) -> None:
        super().__init__()
        self.products = products
        with self.name_scope():
            self.dense = nn.Dense(10)

    def hybrid_forward(self, F, x):
        square = F.ones((300, 300))
        for _ in range(self.products):
            square = F.dot(square, square) / 300
        return F.broadcast_mul(self.dense(x), F.BlockGrad(square.mean()))


def numbered():
    return Numbered()


def slow(products: int = 30):
    return Slow(products)
