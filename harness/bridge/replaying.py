"""One update in PyTorch as the harness makes it: shard by shard, clipped, at the plan's rate, by the run's optimizer.

And the same updates by MXNet beside it, once as they are and some times with the samples of every shard in another
order, which changes in what order numbers are added and nothing else: how far these part is what rounding does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from harness.bridge.data import Update, shard_of
from harness.bridge.of_torch import biased_variances
from harness.bridge.optimizers import clip, set_rate
from harness.bridge.torch_calls import TorchCalls
from harness.bridge.updates import backward
from harness.data import GlobalBatch, each_leaf
from harness.data.leaves import Data


class Losses(NamedTuple):
    """One iteration.

    Attributes:
        t: its number.
        lr: its learning rate.
        mxnet: the mean loss of its global batch in MXNet.
        torch: in PyTorch.
        reordered: in MXNet, with samples in other orders.
    """

    t: int
    lr: float
    mxnet: float
    torch: float
    reordered: Sequence[float]


class Rates(NamedTuple):
    """What a plan gives to iterations.

    Attributes:
        lr: the learning rate of an iteration.
        momentum: its momentum; `None` for the optimizer's own.
    """

    lr: Callable[[int], float]
    momentum: Callable[[int], float | None]


class TorchUpdates:
    """A module that is trained as the harness trains a network."""

    def __init__(
        self, calls: TorchCalls, optimizer: torch.optim.Optimizer, clip_norm: float | None, clip_value: float | None
    ) -> None:
        """Take them over.

        Args:
            calls: the module and its loss.
            optimizer: with the run's state.
            clip_norm: to which the mean gradient is clipped.
            clip_value: to which each element of it is.
        """
        self._calls, self._optimizer = calls, optimizer
        self._clip = clip_norm, clip_value
        self._parameters = [one for one in calls.module.parameters() if one.requires_grad]

    def update(self, batch: GlobalBatch, lr: float, momentum: float | None) -> float:
        """One update, of all shards in this process; returns the mean loss of the global batch before it."""
        calls = self._calls
        calls.module.train()
        self._optimizer.zero_grad(set_to_none=True)
        shards = tuple(shard_of(shard) for shard in batch.batches if shard.count)
        update = Update(batch.t, shards, batch.num_samples, len(shards), batch.begins, ())
        with biased_variances(calls.module):
            loss = backward(calls.module, update, calls.loss, calls.forward)
        clip(self._parameters, *self._clip)
        set_rate(self._optimizer, lr, momentum)
        self._optimizer.step()
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
        learners: the run's first, then those that get samples in other orders.
        updates: the module.
        stream: batches by iteration.
        rates: by iteration.
        first: iteration.
        last: iteration.
    """
    for t in range(first, last + 1):
        batch, lr, momentum = stream(t), rates.lr(t), rates.momentum(t)
        # PyTorch and the others copy what they are given; MXNet computes on the arrays of a batch themselves
        found = updates.update(batch, lr, momentum)
        others = [reordered(batch, number) for number in range(1, len(learners))]
        losses = [
            float(learner.update(one, lr, momentum)) for learner, one in zip(learners, [batch, *others], strict=True)
        ]
        yield Losses(t, lr, losses[0], found, losses[1:])


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
