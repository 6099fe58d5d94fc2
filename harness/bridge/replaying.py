"""One update in PyTorch as the harness makes it: shard by shard, clipped, at the plan's rate, by the run's optimizer.

And the same updates by MXNet beside it, once as they are and some times with the samples of every shard in another
order, and every second time with dot products from the last to the first as well. That changes in what order numbers
are added and nothing else: how far these part is what rounding does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from harness.bridge.data import Shard, Update, shard_of
from harness.bridge.of_torch import biased_variances
from harness.bridge.optimizers import clip, set_rate
from harness.bridge.orders import reversed_sums
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
        reordered: in MXNet, adding in other orders.
        exact: in PyTorch that computes in float64.
    """

    t: int
    lr: float
    mxnet: float
    torch: float
    reordered: Sequence[float]
    exact: float


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
        self._calls, self.optimizer = calls, optimizer
        self._clip, self._dtype = (clip_norm, clip_value), torch.float32
        self._parameters = [one for one in calls.module.parameters() if one.requires_grad]

    def in_float64(self) -> None:
        """Compute in that from now on: what this then differs by from float32 is rounding."""
        self._dtype = torch.float64
        self._calls.module.double()
        for state in self.optimizer.state.values():
            for name in state.keys() - {"step"}:
                state[name] = state[name].double()

    def update(self, batch: GlobalBatch, lr: float, momentum: float | None) -> float:
        """One update, of all shards in this process; returns the mean loss of the global batch before it."""
        calls = self._calls
        calls.module.train()
        self.optimizer.zero_grad(set_to_none=True)
        shards = tuple(self._given(shard_of(shard)) for shard in batch.batches if shard.count)
        update = Update(batch.t, shards, batch.num_samples, len(shards), batch.begins, ())
        with biased_variances(calls.module):
            loss = backward(calls.module, update, calls.loss, calls.forward)
        clip(self._parameters, *self._clip)
        set_rate(self.optimizer, lr, momentum)
        self.optimizer.step()
        return float(loss)

    def _given(self, shard: Shard) -> Shard:
        if self._dtype == torch.float32:
            return shard
        data, label = (each_leaf(self._cast, one) for one in (shard.data, shard.label))
        return shard._replace(data=data, label=label)

    def _cast(self, leaf: torch.Tensor) -> torch.Tensor:
        return leaf.to(self._dtype) if leaf.is_floating_point() else leaf


def side_by_side(
    learners: Sequence[Any],
    updates: TorchUpdates,
    exact: TorchUpdates,
    stream: Callable[[int], GlobalBatch],
    rates: Rates,
    first: int,
    last: int,
) -> Iterator[Losses]:
    """The losses of iterations by all.

    Args:
        learners: the run's first, then those that add in other orders, built within `in_order(number)`.
        updates: the module.
        exact: a copy of it that computes in float64.
        stream: batches by iteration.
        rates: by iteration.
        first: iteration.
        last: iteration.
    """
    for t in range(first, last + 1):
        batch, lr, momentum = stream(t), rates.lr(t), rates.momentum(t)
        # PyTorch and the others copy what they are given; MXNet computes on the arrays of a batch themselves
        found, true = updates.update(batch, lr, momentum), exact.update(batch, lr, momentum)
        given = [batch, *(reordered(batch, number) for number in range(1, len(learners)))]
        losses = []
        for number, learner in enumerate(learners):
            with in_order(number):
                losses.append(float(learner.update(given[number], lr, momentum)))
        yield Losses(t, lr, losses[0], found, losses[1:], true)


def in_order(number: int) -> AbstractContextManager[None]:
    """Within which a learner is built and updated: every second one has its dot products from the last to the first.

    Args:
        number: 0 for the run's own.
    """
    return reversed_sums() if number % 2 else nullcontext()


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
