"""Checks once, before the first update, that the user's transform and collate are functions of their arguments.

Each is called twice with the same items and the same generator, in two orders and with differently seeded global
generators: the values must be equal, Python's and NumPy's global generators where they were, a transform's item as it
was (a collate cannot write to its items), and so the batches that a collate returned before. A third call, seeded as
the first, tells what draws from MXNet's generator from what keeps a counter. What the probe cannot see is what
`purity.py` cannot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np

from harness.data.arrays import Dataset, Indices
from harness.data.augment import Augmentation
from harness.data.collated import BatchForm, CollatedDataset, innermost, network_samples
from harness.data.functions import Collate, numbered
from harness.data.generators import SeedMore, Watch, generator_of, kept_generators, number_of, seed_generators, states
from harness.data.items import Sample, digest_of, digest_of_any
from harness.data.leaves import each_leaf
from harness.data.sequences import SequenceDataset, probed_indices
from harness.errors import DataError

_MOST_COLLATED = 8
_BITS = "The run could not be repeated or resumed, or have the same bits on another number of workers."
_DRAW = (
    "Draw from the generator that is the second argument: random.random(), random.integers(9), random.normal(size=3). "
    "Code that draws from global generators, such as transforms of GluonCV, belongs in the items of the data set, "
    "which are seeded one by one"
)


_Call = Callable[[int, int, SeedMore | None, Watch | None], Sample]


class _Probed(NamedTuple):
    """A function in one of its uses.

    Attributes:
        where: how messages begin.
        call: calls it for the item, or the batch, of a number; gives its result.
    """

    where: str
    call: _Call


def probe_functions(
    dataset: Dataset, more: SeedMore | None = None, library: str = "mxnet", calls_more: bool = False
) -> str | None:
    """Call the functions of a data set a few times; see the module docstring.

    Args:
        dataset: with a transform, a collate, both or neither.
        more: seeds the generator of `library`.
        library: the name of its package.
        calls_more: whether reading an item calls it.

    Returns:
        A digest of what they gave, the same on every rank; None if there are no functions.

    Raises:
        DataError: naming the function, and the item that it was called with.
    """
    digests: list[bytes] = []
    items = innermost(dataset)
    with kept_generators():
        if isinstance(items, SequenceDataset) and items.transform is not None:
            indices = probed_indices(len(items)).tolist()
            for is_training in (True, False):
                call = _transforming(items, is_training, more if calls_more else None)
                digests += _probe(_Probed(items.transform.where, call), indices, more, library)
            items.samples(np.array(indices), 1, 0)  # which compares them with the first in evaluation
        if isinstance(dataset, CollatedDataset):
            form = BatchForm.of(dataset, Augmentation())
            indices = probed_indices(len(dataset))[:_MOST_COLLATED]
            for is_training in (True, False):
                call = _collating(dataset, form, indices, is_training, more)
                digests += _probe(_Probed(dataset.collate.where, call), (0, 1), more, library)
    return hashlib.blake2b(b"".join(digests), digest_size=8).hexdigest() if digests else None


def _probe(probed: _Probed, numbers: Sequence[int], more: SeedMore | None, library: str) -> list[bytes]:
    """Call a function for each number, then backwards; and where results differ, find out why."""
    watch = Watch(library)
    held, first = {}, {}
    for number in numbers:
        held[number] = probed.call(number, 0, more, watch)
        first[number] = digest_of(*held[number])
    more = more if watch.has_called else None
    for number in reversed(numbers):
        if digest_of(*probed.call(number, 1, more, None)) == first[number]:
            continue
        if digest_of(*probed.call(number, 0, more, None)) == first[number]:
            raise DataError(f"{probed.where}: draws from a global generator, such as mx.random. {_BITS} {_DRAW}")
        raise DataError(
            f"{probed.where}: was called twice with the same arguments, and gave different values: it depends on how "
            "often or in which order it is called, on the clock, or on a generator of its own, such as "
            f"np.random.default_rng() without a seed. {_BITS} Make it a function of its arguments, and draw random "
            "numbers from the second, a numpy.random.Generator"
        )
    if any(digest_of(*held[number]) != digest for number, digest in first.items()):
        raise DataError(
            f"{probed.where}: wrote to arrays that it had returned in an earlier call, and that may still be in use; "
            "return new arrays in every call"
        )
    return list(first.values())


def _transforming(items: SequenceDataset, is_training: bool, reads_more: SeedMore | None) -> _Call:
    """Calls the transform on one item."""
    transform = items.transform
    assert transform is not None

    def call(index: int, number: int, more: SeedMore | None, watch: Watch | None) -> Sample:
        seed_generators(number_of(f"probe/0/{index}"), reads_more)
        item = items.read_raw(index)
        before = digest_of_any(item)
        random = generator_of(f"probe/transform/{index}") if is_training else None
        found = _seeded(transform.where, number, more, watch, lambda: transform(item, random, index))
        if digest_of_any(item) != before:
            raise DataError(
                f"{transform.where}: changed item {index}, which belongs to the data set and would come changed the "
                "next time. Return new arrays, such as item.copy()"
            )
        data, label = (each_leaf(np.copy, part) for part in found)  # as the data set does
        return data, label

    return call


def _collating(
    dataset: CollatedDataset, form: BatchForm, indices: Indices, is_training: bool, more: SeedMore | None
) -> _Call:
    """Calls the collate on all items (0), and on the last alone (1)."""
    seed_generators(number_of("probe/collate"), more)
    items = network_samples(dataset.dataset, indices, Augmentation(), (1, 0) if is_training else ())
    collate: Collate = dataset.collate

    def call(batch: int, number: int, more: SeedMore | None, watch: Watch | None) -> Sample:
        random = generator_of(f"probe/collate/{batch}") if is_training else None
        part = slice(-1, None) if batch else slice(None)
        what = f"{dataset.source}: {numbered(indices[part].tolist())}"
        found = _seeded(collate.where, number, more, watch, lambda: collate(items[part], random, what))
        form.check(f"{collate.where}: {what}{' in training' if is_training else ''}", *found)
        return found

    return call


def _seeded(where: str, number: int, more: SeedMore | None, watch: Watch | None, work: Callable[[], Sample]) -> Sample:
    """The result of a call that must leave global generators, which are seeded by a number, alone."""
    seed_generators(number_of(f"probe/function/{number}"), more)
    before = states()
    with watch or nullcontext():
        found = work()
    if states() != before:
        raise DataError(f"{where}: draws from the global generators of random or np.random. {_BITS} {_DRAW}")
    return found
