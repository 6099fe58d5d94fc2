"""Forward and backward of one update over a rank's shards, under `DistributedDataParallel` or in one process.

What `harness.gluon` does, by PyTorch's own sum: the gradient is that of the mean over all samples of all ranks, however
many each has, and running statistics are the mean over the shards, each of which starts from those before the update.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, distributed, nn

from harness.bridge.data import Update, arguments_of
from harness.bridge.torch_calls import checked_losses
from harness.errors import ConfigError

_STATISTICS, _COUNTER = ("running_mean", "running_var"), "num_batches_tracked"


def backward(
    module: nn.Module,
    update: Update,
    loss: Callable[[Any, Any], Any],
    forward: Callable[..., tuple[Any, Any]] | None = None,
) -> Tensor:
    """Add the gradient of an update to the parameters'; then step the optimizer, the rates, and zero the gradients.

    With N samples in the global batch and n ranks, rank r goes backward from n/N times the sum of the losses of its
    samples, of which `DistributedDataParallel` takes the mean over ranks: 1/N times the sum over all samples. Shards
    are processed one after the other, and only the last one's backward sums over ranks.

    Args:
        module: `DistributedDataParallel` where there are several ranks; `forward_sync_buffers=False` saves messages.
        update: on the module's device.
        loss: maps (prediction, label) to one value a sample, `(n,)`, or to numerators and weights, whose quotient of
            sums over the global batch is the loss.
        forward: `forward(module, loss, data, label) -> (prediction, losses)`, which calls both in its own way; by
            default the module gets the tensors of the data as so many arguments.

    Returns:
        This rank's part of the mean loss, added up in float64; the sum over ranks is the loss of the global batch.

    Raises:
        ConfigError: for a module whose gradients several ranks would not sum, or losses of another form.
    """
    ranks = _num_ranks()
    no_sync = getattr(module, "no_sync", None)
    if ranks > 1 and no_sync is None:
        raise ConfigError(
            f"backward: {type(module).__name__} is alone on each of {ranks} ranks; wrap it in DistributedDataParallel"
        )
    statistics = _Statistics(module)
    own: list[tuple[Tensor, Tensor | None]] = []
    for number, shard in enumerate(update.shards):
        statistics.begin()
        is_last = number == len(update.shards) - 1
        context: AbstractContextManager[Any] = nullcontext() if is_last or no_sync is None else no_sync()
        with context:  # both passes: the forward decides whether the backward sums
            values, weights = _losses(module, shard.data, shard.label, loss, forward)
            share = float(shard.counts) * (ranks if weights is not None else ranks / update.num_samples)
            (values.sum() * share).backward()
        total = values.detach().double().sum() * float(shard.counts)
        own.append((total, None if weights is None else weights.detach().sum() * float(shard.counts)))
        if shard.counts:
            statistics.add()
    statistics.finish(update.num_shards)
    total = torch.stack([value for value, _ in own]).sum()
    weights = [weight for _, weight in own if weight is not None]
    if not weights:
        return total / update.num_samples
    weight = torch.stack(weights).sum()
    if ranks > 1:
        distributed.all_reduce(weight)
    for parameter in module.parameters():
        if parameter.grad is not None:
            parameter.grad /= weight
    return total / weight


def _losses(
    module: nn.Module, data: Any, label: Any, loss: Callable[[Any, Any], Any], forward: Callable[..., Any] | None
) -> tuple[Tensor, Tensor | None]:
    """The losses of samples, or numerators and weights."""
    if forward is None:
        found = loss(module(*arguments_of(data)), label)
    else:
        _, found = forward(module, loss, data, label)
    losses = checked_losses(found, len(arguments_of(data)[0]), "backward: loss")
    return (losses, None) if isinstance(losses, Tensor) else (losses[0], losses[1])


def _num_ranks() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


class _Statistics:
    """Running statistics of one update: every shard starts from the same, and what is left is their mean."""

    def __init__(self, module: nn.Module) -> None:
        """Remember those before the update."""
        named = dict(module.named_buffers())
        self._own = [one for name, one in named.items() if name.endswith(_STATISTICS)]
        self._counters = [one for name, one in named.items() if name.endswith(_COUNTER)]
        self._before = [one.clone() for one in (*self._own, *self._counters)]
        self._sums = [torch.zeros_like(one) for one in self._own]

    def begin(self) -> None:
        """Put them back."""
        for one, before in zip((*self._own, *self._counters), self._before, strict=True):
            one.copy_(before)

    def add(self) -> None:
        """Count those of a shard."""
        for total, one in zip(self._sums, self._own, strict=True):
            total += one

    def finish(self, num_shards: int) -> None:
        """Leave the mean over the shards of all ranks; batches are counted once."""
        if not self._own:
            return
        self.begin()
        together = torch.cat([total.reshape(-1) for total in self._sums])
        if _num_ranks() > 1:
            distributed.all_reduce(together)
        parts = (together / num_shards).split([one.numel() for one in self._own])
        for one, mean in zip(self._own, parts, strict=True):
            one.copy_(mean.reshape(one.shape))
        for counter in self._counters:
            counter += 1
