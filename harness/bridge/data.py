"""The batches of a run as data sets of PyTorch: what rank r of n would be given here, `torchrun`'s rank r of n gets.

Samples, functions between data and network, workers, order and augmentation are the run's own; here arrays become
tensors, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from typing_extensions import override

from harness.bridge.continuing import Continued
from harness.data import Batch, BatchStream, EvaluationShare, GlobalBatch, each_leaf
from harness.errors import ConfigError

T = TypeVar("T")
_SPLITS = ("validation", "test")


class Shard(NamedTuple):
    """One shard of a global batch.

    Attributes:
        shard: its number, from 0.
        data: a tensor `(n, ...)`, or a tuple or dict of tensors, in the types that they have in the run.
        label: likewise.
        counts: False for samples that stand in on a rank that has none in this update, which `backward` weighs by 0.
    """

    shard: int
    data: Any
    label: Any
    counts: bool = True

    def to(self, device: torch.device | str) -> Shard:
        """The same on a device."""
        return self._replace(data=_moved(self.data, device), label=_moved(self.label, device))


class Update(NamedTuple):
    """What one rank processes for an update: its shards of a global batch.

    The gradient of the update is that of the mean over all samples: of rank r, the losses of `shards` are summed and
    divided by `num_samples`, and the ranks' gradients are added up. `DistributedDataParallel` takes the mean over n
    ranks instead, so there the sum is also multiplied by n; `harness.bridge.updates.backward` does all of it.

    Attributes:
        t: the iteration, from 1.
        shards: of this rank that have samples, in the order in which they are processed; at least one.
        num_samples: of the global batch, all ranks together.
        num_shards: of the global batch that have samples.
        begins: whether an epoch begins, with which states that shards carry begin anew.
        replaced: damaged samples of this rank that others have replaced, in words.
    """

    t: int
    shards: tuple[Shard, ...]
    num_samples: int
    num_shards: int
    begins: bool
    replaced: tuple[str, ...]

    def to(self, device: torch.device | str) -> Update:
        """The same on a device; copies from pinned memory do not wait."""
        return self._replace(shards=tuple(shard.to(device) for shard in self.shards))


class Evaluated(NamedTuple):
    """One batch of an evaluation.

    Attributes:
        number: among the batches of all ranks, from 0.
        data: as in `Shard`.
        label: as in `Shard`.
        group: which batches carry state to each other, where the network carries some.
    """

    number: int
    data: Any
    label: Any
    group: int

    def to(self, device: torch.device | str) -> Evaluated:
        """The same on a device."""
        return self._replace(data=_moved(self.data, device), label=_moved(self.label, device))


class _OfRun(IterableDataset[T]):
    """What both have: a run, which every process that reads it opens for itself."""

    def __init__(self, run: Continued) -> None:
        """Nothing is read yet."""
        self._run = run

    def refuse_workers(self) -> None:
        """Refuse workers of a `DataLoader`.

        Raises:
            ConfigError: where the run has workers of its own.
        """
        if self._run.config.data.worker_kind == "process":
            raise ConfigError(
                "num_workers: the run's own workers read its samples (data.worker_kind: process); give num_workers=0"
            )

    @contextmanager
    def _turns(self) -> Iterator[tuple[Continued, int, int]]:
        """The run in this process, which of several processes takes what, and how many take turns."""
        worker = get_worker_info()
        if worker is None:
            yield self._run, 0, 1
            return
        self.refuse_workers()
        if self._run.is_here:
            yield self._run, worker.id, worker.num_workers
            return
        with self._run.opened_again() as own:
            yield own, worker.id, worker.num_workers


class TrainingBatches(_OfRun[Update]):
    """The updates of a run, one after the other, with this rank's shards.

    An update is a function of its number: iterating again gives the same, and a program that resumes after update t
    passes `begin=t + 1`. Several workers of a `DataLoader` (`as_loader`) take turns, each with the run opened for
    itself; the run's own workers (`data.worker_kind: process`) need none.

    Args:
        run: opened on this rank.
        begin: the first update; by default the one after the run's checkpoint.
        end: the last one; by default the run's.

    Raises:
        ConfigError: for updates that the run does not have.
    """

    def __init__(self, run: Continued, begin: int | None = None, end: int | None = None) -> None:
        """Nothing is read yet."""
        super().__init__(run)
        self.begin = run.iteration + 1 if begin is None else begin
        self.end = run.sizes.num_iterations if end is None else end
        if not 1 <= self.begin <= self.end + 1 <= run.sizes.num_iterations + 1:
            raise ConfigError(
                f"TrainingBatches: updates {self.begin} to {self.end} are not among those of the run, 1 to "
                f"{run.sizes.num_iterations}"
            )

    def __len__(self) -> int:
        """The number of updates."""
        return self.end - self.begin + 1

    @override
    def __iter__(self) -> Iterator[Update]:
        # a worker's next update need not be the following one, and a loader with workers reads ahead as it is
        ahead = None if get_worker_info() is None else 0
        with self._turns() as (run, first, step), _stream(run, run.own_shards, ahead) as stream:
            for t in range(self.begin + first, self.end + 1, step):
                yield _update(run, stream(t))


class EvaluationBatches(_OfRun[Evaluated]):
    """This rank's batches of validation or test samples, in their own order and not augmented.

    All ranks together see every sample once; the last batch may be short, and some ranks may have one batch fewer.

    Args:
        run: opened on this rank.
        split: `validation` or `test`; by default the one that training evaluates.
        batch_size: by default that of a shard.

    Raises:
        ConfigError: if the run has no such samples.
    """

    def __init__(self, run: Continued, split: str | None = None, batch_size: int | None = None) -> None:
        """Nothing is read yet."""
        super().__init__(run)
        held_out = run.data.held_out
        if split not in (None, *held_out) or not held_out:
            there = f"it has {' and '.join(held_out)}" if held_out else "it has none that are held out"
            raise ConfigError(f"EvaluationBatches: the run has no {split or ' or '.join(_SPLITS)} samples; {there}")
        self.split = split or held_out[0]
        self._batch_size = batch_size or run.config.batch.size

    @override
    def refuse_workers(self) -> None:
        super().refuse_workers()
        if self._run.config.network.state is not None:
            raise ConfigError("num_workers: batches that carry state are evaluated one by one; give num_workers=0")

    @override
    def __iter__(self) -> Iterator[Evaluated]:
        with self._turns() as (run, first, step):
            launch, config = run.launch, run.config
            rows = None
            if config.network.state is not None:
                rows = config.evaluation.streams or run.sizes.global_batch
            rank, ranks = launch.rank + first * launch.size, launch.size * step
            share = EvaluationShare(
                getattr(run.data.splits, self.split), self._batch_size, run.augmentation, rank, ranks, rows
            )
            for number, data, label in share.read():
                yield Evaluated(number, _tensors(data), _tensors(label), share.group(number))


def as_loader(dataset: TrainingBatches | EvaluationBatches, **options: Any) -> DataLoader[Any]:
    """A `DataLoader` that hands on what a data set here gives, as it is.

    Args:
        dataset: of this module.
        **options: of the `DataLoader`, such as `num_workers`, `pin_memory` and `multiprocessing_context`.

    Raises:
        ConfigError: for `num_workers`, where the run has workers of its own, or batches carry state.
    """
    if options.get("num_workers"):
        dataset.refuse_workers()
    return DataLoader(dataset, batch_size=None, collate_fn=_as_it_is, **options)


def tensor_of(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor over an array's memory; over a copy where the memory is not writeable or runs backwards."""
    if not array.flags.writeable or min(array.strides, default=0) < 0:
        array = array.copy()
    return torch.from_numpy(array)


def arguments_of(data: Any) -> tuple[Tensor, ...]:
    """The tensors of nested data, which a module is called with as so many arguments."""
    if isinstance(data, Tensor):
        return (data,)
    return tuple(data.values()) if isinstance(data, dict) else tuple(data)


def _tensors(data: Any) -> Any:
    return each_leaf(tensor_of, data)


def _moved(data: Any, device: torch.device | str) -> Any:
    """Nested data on a device; pinning memory has made lists of tuples."""
    nested = tuple(data) if isinstance(data, list) else data
    return each_leaf(lambda one: one.to(device, non_blocking=True), nested)


def _as_it_is(item: Any) -> Any:
    return item


def _stream(run: Continued, shards: Sequence[int], prefetch: int | None) -> BatchStream:
    from harness.train.workers import prefetch_of

    ahead = prefetch_of(run.config.data) if prefetch is None else prefetch
    return BatchStream(run.data.splits.train, run.order, shards, run.augmentation, run.config.seed, prefetch=ahead)


def _update(run: Continued, batch: GlobalBatch) -> Update:
    order, t = run.order, batch.t
    full = [shard for shard in range(order.shards) if len(order.shard_indices(t, shard))]
    own = [shard_of(one) for one in batch.batches if one.count]
    if not own:
        # every rank has to take part in the sum of gradients, and a module may not take a batch without samples
        with _stream(run, full[:1], prefetch=0) as stream:
            own = [shard_of(one)._replace(counts=False) for one in stream(t).batches]
    return Update(t, tuple(own), batch.num_samples, len(full), batch.begins, tuple(str(one) for one in batch.replaced))


def shard_of(batch: Batch) -> Shard:
    """A shard of a global batch, its arrays as tensors."""
    return Shard(batch.shard, _tensors(batch.data), _tensors(batch.label))
