"""One update in PyTorch as the harness makes it: shard by shard, clipped, at the plan's rate, by the run's optimizer.

And the same updates by MXNet beside it, once as they are and some times in other orders of addition, each its own: of
the samples of every shard, and within layers and steps of the optimizer (`orders.other_order`). The function is the
same, so how far these part is what rounding does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from harness.bridge.data import Update, shard_of
from harness.bridge.of_torch import biased_variances
from harness.bridge.optimizers import set_rate
from harness.bridge.orders import Order, other_order
from harness.bridge.torch_calls import TorchCalls
from harness.bridge.updates import backward
from harness.bridge.verdict import Losses
from harness.data import GlobalBatch, each_leaf
from harness.data.leaves import Data


class Rates(NamedTuple):
    """What a plan gives to iterations.

    Attributes:
        lr: the learning rate of an iteration.
        momentum: its momentum; `None` for the optimizer's own.
    """

    lr: Callable[[int], float]
    momentum: Callable[[int], float | None]


class TorchUpdates:
    """A module that is trained as the harness trains a network.

    Attributes:
        calls: the module and its loss.
        optimizer: of the module.
    """

    def __init__(self, calls: TorchCalls, optimizer: torch.optim.Optimizer) -> None:
        """Take them over.

        Args:
            calls: the module and its loss.
            optimizer: with the run's state, which clips gradients by itself.
        """
        self.calls, self.optimizer = calls, optimizer

    def update(self, batch: GlobalBatch, lr: float, momentum: float | None) -> float:
        """One update, of all shards in this process; returns the mean loss of the global batch before it."""
        calls = self.calls
        calls.module.train()
        self.optimizer.zero_grad(set_to_none=True)
        shards = tuple(shard_of(shard) for shard in batch.batches if shard.count)
        update = Update(batch.t, shards, batch.num_samples, len(shards), batch.begins, ())
        with biased_variances(calls.module), calls.explained(shards[0].data):
            loss = backward(calls.module, update, calls.loss, calls.forward)
        set_rate(self.optimizer, lr, momentum)
        self.optimizer.step()
        return float(loss)


def side_by_side(
    learners: Sequence[Any],
    updates: TorchUpdates,
    stream: Callable[[int], GlobalBatch],
    rates: Rates,
    first: int,
    last: int,
) -> Iterator[Losses]:
    """The losses of iterations by all.

    Args:
        learners: the run's first, then those that add in other orders, built within `in_order(number)`.
        updates: the module.
        stream: batches by iteration.
        rates: by iteration.
        first: iteration.
        last: iteration.
    """
    from harness.bridge.of_gluon import update

    for t in range(first, last + 1):
        batch, lr, momentum = stream(t), rates.lr(t), rates.momentum(t)
        # PyTorch and the others copy what they are given; MXNet computes on the arrays of a batch themselves
        found = updates.update(batch, lr, momentum)
        given = [batch, *(reordered(batch, number) for number in range(1, len(learners)))]
        losses = []
        for number, learner in enumerate(learners):
            with in_order(number):
                losses.append(update(learner, given[number], lr, momentum))
        yield Losses(t, lr, losses[0], found, losses[1:])


def in_order(number: int) -> AbstractContextManager[None]:
    """Within which a learner is built and updated.

    Args:
        number: of its order; 0 for the run's own.
    """
    return other_order(Order.of(number)) if number else nullcontext()


def reordered(batch: GlobalBatch, number: int) -> GlobalBatch:
    """A batch with the samples of every shard in another order: for 1 from the last to the first, then at random."""
    shards = []
    for shard in batch.batches:
        order = np.arange(shard.count)[::-1]
        if number > 1:
            order = np.random.default_rng([batch.t, number]).permutation(shard.count)
        shards.append(replace(shard, data=_rows(shard.data, order), label=_rows(shard.label, order)))
    return replace(batch, batches=tuple(shards))


def _rows(data: Data, order: Any) -> Data:
    found: Data = each_leaf(lambda leaf: np.ascontiguousarray(leaf[order]), data)
    return found
