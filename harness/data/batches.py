"""Batches as a pure function of the iteration; one thread assembles the next batch ahead of time.

Knows which samples a reader needs and how to augment them; knows nothing about ranks, devices or MXNet.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from harness.data.augment import labels_as_they_are
from harness.data.collated import BatchForm, CollatedDataset, innermost, training_batch, uncollated
from harness.data.leaves import count_of, rows_of, sample_shape_of
from harness.data.pictures.dataset import PictureDataset
from harness.data.purity import draws_at_random
from harness.data.sequences import SequenceDataset
from harness.data.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType

    from harness.data.arrays import Dataset, Indices
    from harness.data.augment import Augmentation
    from harness.data.dtypes import Name
    from harness.data.leaves import Data
    from harness.data.order import Order
    from harness.data.pictures.replacement import Replacement


_MANY = 50_000  # samples, whose order takes milliseconds
_END_S = 5.0  # to wait for a batch that nobody will use


@dataclass(frozen=True, eq=False)
class Batch:
    """One shard of a global batch.

    Attributes:
        shard: its number, from 0.
        data: `(n, ...)`, float32 or integers (int8, uint8, int32, int64), or a tuple or dict of such arrays; `n` is the
            batch size, or less, even 0, at the end of an epoch that keeps its remainder.
        label: `(n, ...)`, float32 or integers, or a tuple or dict of such arrays.
    """

    shard: int
    data: Data
    label: Data

    @property
    def count(self) -> int:
        """The number of samples, `n`."""
        return count_of(self.data)


@dataclass(frozen=True, eq=False)
class GlobalBatch:
    """The requested part of global batch `t`.

    Attributes:
        t: the iteration, from 1.
        batches: the requested shards in the requested order.
        num_samples: the size of the entire global batch, including the shards of others.
        begins: whether it is the first of its epoch, with which states that shards carry begin anew.
        replaced: the damaged samples in the requested shards that others have replaced.
    """

    t: int
    batches: tuple[Batch, ...]
    num_samples: int
    begins: bool = False
    replaced: tuple[Replacement, ...] = ()


class _Numbered(NamedTuple):
    number: int
    data: Data
    label: Data


class EvaluationBatch(_Numbered):
    """A batch of an evaluation, which unpacks as its number from 0, its data and its labels, as in `Batch`.

    Attributes:
        replaced: the damaged samples that others have replaced.
    """

    replaced: tuple[Replacement, ...] = ()


class BatchStream:
    """The training batches of one reader: `stream(t)` is a pure function of `t`, and works in any order.

    While the caller works on batch `t`, a thread assembles those that follow, or two where several workers read: as
    soon as a batch has no work left for one of them, it begins the next. An error is raised by the call that requests
    that batch. The caller itself reads items that draw from global generators, because its own computation may draw
    from them too. The order of a large data set's next epoch is computed in the course of an epoch. Arrays are written
    once; their memory is used again when nobody holds them any more. A stream serves one caller at a time; close it or
    use it as a context manager.

    Attributes:
        shards: those that it returns.
        waited_s: how long its caller has waited for it, all calls together.

    Args:
        dataset: the training set.
        order: says which samples are in which batch.
        shards: the shards to return, each from 0 to `order.shards - 1`, in this order.
        augmentation: applied to the data.
        seed: the seed of the augmentation.
        prefetch: how many batches are assembled ahead of time; with 0 the caller assembles each itself.

    Raises:
        DataError: if the augmentation does not suit the samples.
        ValueError: if the order is for a data set of another size, or has no such shard.
    """

    def __init__(
        self,
        dataset: Dataset,
        order: Order,
        shards: Sequence[int],
        augmentation: Augmentation,
        seed: int,
        *,
        prefetch: int = 1,
    ) -> None:
        """Check that the parts fit together; the first call assembles the first batch."""
        if len(dataset) != order.num_samples:
            raise ValueError(f"the order is for {order.num_samples} samples, but the data set has {len(dataset)}")
        wrong = [shard for shard in shards if not 0 <= shard < order.shards]
        if wrong or not shards:
            raise ValueError(f"shards {list(shards)}: give some of 0 to {order.shards - 1}")
        self._form = _form_of(dataset, augmentation)
        self._dataset = dataset
        self._order = order
        self._shards = self.shards = tuple(shards)
        self._augmentation = augmentation
        self._seed = seed
        self._prefetch = prefetch
        self._ahead: deque[tuple[int, Future[GlobalBatch]]] = deque()  # of consecutive iterations
        self._makers = Threads(_num_makers(dataset), "batches")
        self._orders, self._ordered = Threads(1, "order"), 0
        self.waited_s = 0.0

    def __call__(self, t: int) -> GlobalBatch:
        """This reader's shards of global batch `t`, from 1."""
        asked_s = time.perf_counter()
        try:
            return self._batch(t)
        finally:
            self.waited_s += time.perf_counter() - asked_s

    def _batch(self, t: int) -> GlobalBatch:
        if self._prefetch == 0 or draws_at_random(self._dataset):
            return self._assemble(t)
        if self._ahead and self._ahead[0][0] != t:
            self._cancel()
        for following in range(t + len(self._ahead), t + self._prefetch + 1):
            self._ahead.append((following, self._makers.submit(self._assemble, following)))
        return self._ahead.popleft()[1].result()

    def close(self) -> None:
        """End the threads after their current batches, for which it waits some seconds; again it does nothing."""
        self._cancel()
        self._makers.close(_END_S)
        self._orders.close(_END_S)

    def _cancel(self) -> None:
        while self._ahead:
            self._ahead.popleft()[1].cancel()

    def __enter__(self) -> Self:
        """The stream itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the stream."""
        self.close()

    def _assemble(self, t: int) -> GlobalBatch:
        """Read and augment all shards at once, then cut them apart; collated ones are made one by one."""
        order = self._order
        parts = [order.shard_indices(t, shard) for shard in self._shards]
        if order.num_samples >= _MANY and self._ordered != order.epoch(t):  # which this epoch's own must not wait for
            self._ordered = order.epoch(t)
            self._orders.submit(order.prepare, self._ordered + 1)
        if isinstance(self._dataset, CollatedDataset):
            shards = [self._collated(self._dataset, t, *one) for one in zip(self._shards, parts, strict=True)]
            replaced = tuple(itertools.chain.from_iterable(others for _, others in shards))
            batches = [batch for batch, _ in shards]
            return GlobalBatch(t, tuple(batches), order.global_count(t), order.begins(t), replaced)
        indices = np.concatenate(parts)
        data, label = self._dataset.take(indices, order.epoch(t), self._seed)
        replaced = _replaced_in(self._dataset)
        name = _name_of(self._dataset, indices)
        images = self._augmentation.train(
            data, order.epoch(t), indices, self._seed, self._dataset.full_scale, name("sample")
        )
        labels = labels_as_they_are(label, name("label"))
        ends = np.cumsum([len(part) for part in parts]).tolist()
        batches = [
            Batch(shard, rows_of(images, rows), rows_of(labels, rows))
            for shard, part, end in zip(self._shards, parts, ends, strict=True)
            for rows in [slice(end - len(part), end)]
        ]
        return GlobalBatch(t, tuple(batches), order.global_count(t), order.begins(t), replaced)

    def _collated(
        self, dataset: CollatedDataset, t: int, shard: int, part: Indices
    ) -> tuple[Batch, tuple[Replacement, ...]]:
        """A shard that a function makes of its items, and which of these are in the place of damaged ones."""
        assert self._form is not None
        epoch = self._order.epoch(t)
        collated = training_batch(
            dataset, self._form, part, self._augmentation, epoch=epoch, seed=self._seed, t=t, shard=shard
        )
        return Batch(shard, *collated), _replaced_in(dataset) if len(part) else ()


def evaluation_batches(
    dataset: Dataset, batch_size: int, augmentation: Augmentation, first: int = 0, step: int = 1
) -> Iterator[EvaluationBatch]:
    """Every `step`-th batch of a data set in its own order, from batch `first` on, reading ahead.

    Rank `r` of `n` uses `first=r, step=n`; together the ranks see every sample once, and the last batch may be short.

    Args:
        dataset: the validation or test set.
        batch_size: the samples of a batch, at least 1.
        augmentation: only its normalisation is applied.
        first: the number of the first batch, from 0.
        step: the distance to the next, at least 1.

    Raises:
        DataError: if the augmentation does not suit the samples.
    """
    if batch_size < 1 or first < 0 or step < 1:
        raise ValueError(f"batch_size {batch_size}, first {first}, step {step}: they must be at least 1, 0 and 1")
    numbers = range(first, -(-len(dataset) // batch_size), step)
    rows = (np.arange(number * batch_size, min((number + 1) * batch_size, len(dataset))) for number in numbers)
    return chosen_batches(dataset, zip(numbers, rows, strict=True), augmentation)


def chosen_batches(
    dataset: Dataset, parts: Iterable[tuple[int, Indices]], augmentation: Augmentation
) -> Iterator[EvaluationBatch]:
    """Batches of an evaluation, reading ahead.

    Args:
        dataset: the validation or test set.
        parts: number and samples of each batch.
        augmentation: only its normalisation is applied.

    Raises:
        DataError: if the augmentation does not suit the samples.
    """
    return _read_ahead(dataset, parts, augmentation, _form_of(dataset, augmentation))


def evaluation_samples(dataset: Dataset, indices: Indices, augmentation: Augmentation) -> tuple[Data, Data]:
    """These samples in a batch, as a network gets it in evaluation.

    Args:
        dataset: any.
        indices: at least one.
        augmentation: only its normalisation is applied.
    """
    if isinstance(dataset, CollatedDataset):
        return dataset.batch(indices, augmentation)
    data, label = dataset.take(indices)
    name = _name_of(dataset, indices)
    images = augmentation.evaluate(data, dataset.full_scale, name("sample"))
    return images, labels_as_they_are(label, name("label"))


def _read_ahead(
    dataset: Dataset, parts: Iterable[tuple[int, Indices]], augmentation: Augmentation, form: BatchForm | None
) -> Iterator[EvaluationBatch]:
    def assemble(number: int, indices: Indices) -> EvaluationBatch:
        samples = evaluation_samples(dataset, indices, augmentation)
        batch = EvaluationBatch(number, *samples)
        batch.replaced = _replaced_in(dataset)
        if form is not None and isinstance(dataset, CollatedDataset):
            form.check(f"{dataset.collate.where}: {dataset.source}: batch {number}", batch.data, batch.label)
        return batch

    if draws_at_random(dataset):
        yield from itertools.starmap(assemble, parts)
        return
    makers = Threads(_num_makers(dataset), "evaluation")
    ahead: deque[Future[EvaluationBatch]] = deque()
    try:
        for part in parts:
            ahead.append(makers.submit(assemble, *part))
            if len(ahead) > makers.count:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        makers.close(_END_S)


def _num_makers(dataset: Dataset) -> int:
    """Threads that assemble batches: two where several workers read samples, so that these never wait for a batch."""
    items = innermost(dataset)
    if isinstance(items, SequenceDataset):
        return 1 if items.workers is None else 2
    return 2 if isinstance(items, PictureDataset) and items.num_workers > 1 else 1


def _form_of(dataset: Dataset, augmentation: Augmentation) -> BatchForm | None:
    """The form of collated batches; refuses an augmentation that does not suit the samples."""
    augmentation.check(sample_shape_of(uncollated(dataset).take(np.arange(1))[0]))
    return BatchForm.of(dataset, augmentation) if isinstance(dataset, CollatedDataset) else None


def _name_of(dataset: Dataset, indices: Indices) -> Callable[[str], Name]:
    """How messages name a row of a batch, by its sample."""
    return lambda what: lambda row: f"{dataset.source}: {what} {indices[row]}"


def _replaced_in(dataset: Dataset) -> tuple[Replacement, ...]:
    """The damaged samples that others replaced in what this thread has just taken."""
    pictures = innermost(dataset)
    return pictures.last_replaced if isinstance(pictures, PictureDataset) else ()
