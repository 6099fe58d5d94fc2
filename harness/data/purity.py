"""Checks once, before the first update, that items are functions of their index.

The sample order and the random numbers of each sample are functions of `(seed, epoch, index)`. That is why a run can be
repeated, resumed, and shared among any number of workers. Items of a user's own must follow this rule. The probe reads
a few items three times, in three orders, with differently seeded global generators. If all values are equal and nothing
drew from Python's or NumPy's generator, the items pass. Otherwise the probe reads them twice more with the seeds of the
first reading: equal values then mean that seeding is enough; different values are refused. So is an item that draws
only in its first reading and keeps the value, because that value depends on what was drawn before. The first reading
often precedes the probe, because shapes are read earlier; `SequenceDataset` remembers its result.

What the probe cannot see: items that it does not read; and an event with probability p in each reading, drawn from
MXNet's generator or the user's own, goes unnoticed with probability `(1 - 3 p (1 - p)) ** 16`: 2e-10 for a flip of
every other image, 0.7 % for every tenth, 62 % for every hundredth.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from harness.data.arrays import Dataset, Indices
from harness.data.collated import innermost, with_innermost
from harness.data.generators import (
    Reading,
    Seeding,
    SeedMore,
    Watch,
    kept_generators,
    number_of,
    seed_generators,
    states,
)
from harness.data.probing import probe_functions
from harness.data.sequences import SequenceDataset, probed_indices
from harness.data.splits import Splits
from harness.errors import DataError

_ORDERS: tuple[Callable[[Indices], Indices], ...] = (
    lambda indices: indices,
    lambda indices: indices[::-1],
    lambda indices: np.roll(indices, len(indices) // 2)[::-1],
)


class Found(NamedTuple):
    """The result of probing items.

    Attributes:
        draws: whether items draw from generators that the harness can seed.
        calls_more: whether reading them calls the library with the additional generator.
        digest: of the items that were read, the same on every rank.
    """

    draws: bool = False
    calls_more: bool = False
    digest: str = ""


def probe_splits(splits: Splits, more: SeedMore | None, library: str = "mxnet") -> dict[str, Found]:
    """Probe every split that is read item by item, and the functions of the user's own between items and batches.

    A data set shared by two splits is probed once.

    Args:
        splits: the data.
        more: seeds the generator of `library`.
        library: the name of its package.

    Returns:
        The results, by split.

    Raises:
        DataError: if items are not a function of their index, even with seeded generators, or a function is not one of
            its arguments.
    """
    found: dict[str, Found] = {}
    known: dict[int, Found] = {}
    for name in ("train", "validation", "test"):
        dataset = getattr(splits, name)
        items = innermost(dataset)
        if isinstance(items, SequenceDataset) and id(items) not in known:
            known[id(items)] = probe(items, more, library)
        one = known.get(id(items))
        digest = (
            None if dataset is None else probe_functions(dataset, more, library, one is not None and one.calls_more)
        )
        if digest is not None:
            one = one or Found()
            one = one._replace(digest=hashlib.blake2b(f"{one.digest}/{digest}".encode(), digest_size=8).hexdigest())
        if one is not None:
            found[name] = one
    return found


def probe(items: SequenceDataset, more: SeedMore | None = None, library: str = "mxnet") -> Found:
    """Read a few items several times; see the module docstring.

    Raises:
        DataError: naming the item, if reading it twice with the same seeds gives different values.
    """
    indices = probed_indices(len(items))
    watch = Watch(library)
    with kept_generators():
        first = _read(items, _ORDERS[0](indices), "0", more, watch)
        more = more if watch.has_called else None
        readings = [first]
        for number, order in enumerate(_ORDERS[1:], start=1):
            readings.append(_read(items, order(indices), str(number), more))
        has_drawn = any(one.drew for reading in [items.first_readings, *readings] for one in reading.values())
        if not has_drawn and _first_difference(readings) is None:
            return Found(digest=_digest(first))
        same = [first, *(_read(items, order(indices), "0", more) for order in _ORDERS[1:])]
    kept = _first_kept(items.first_readings, readings, same)
    if kept is not None:
        raise DataError(
            f"{items.source}: item {kept} drew random numbers when it was first read, and never again: it keeps its "
            "value, or a part of it (a cache). The value then depends on what was drawn before, so the run could not "
            "be repeated or resumed, or have the same bits on another number of workers. Cache only what is not random "
            "and draw in every reading, from random, np.random or mx.random, which are seeded for every item by (seed, "
            f"epoch, item); or cache a function of the index: np.random.default_rng([seed, {kept}])"
        )
    different = _first_difference(same)
    if different is not None:
        raise DataError(
            f"{items.source}: item {different} was read twice with the same seeds of Python's, NumPy's and MXNet's "
            "generators, and gave different values: it depends on how often or in which order items are read, on the "
            "clock, or on a generator of its own, such as np.random.default_rng() without a seed. The run could not be "
            "repeated or resumed, or have the same bits on another number of workers. Make item i a function of i; "
            "draw random numbers from random, np.random or mx.random, which are seeded for every item by (seed, epoch, "
            "item)"
        )
    return Found(draws=True, calls_more=more is not None, digest=_digest(first))


def seeded_splits(splits: Splits, found: Mapping[str, Found], seed: int, more: SeedMore | None) -> Splits:
    """The same data, with the generators seeded before each read of random items."""

    def seeded(name: str, dataset: Dataset | None) -> Any:
        one = found.get(name)
        if dataset is None or one is None or not one.draws:
            return dataset
        seeding = Seeding(seed, more if one.calls_more else None)
        return with_innermost(dataset, lambda items: items.seeded(seeding))

    return replace(splits, **{name: seeded(name, getattr(splits, name)) for name in ("train", "validation", "test")})


def draws_at_random(dataset: Dataset) -> bool:
    """Whether reading items seeds this process's generators, which must not happen while other code draws from them."""
    items = innermost(dataset)
    return isinstance(items, SequenceDataset) and items.seeding is not None and items.workers is None


def _read(
    items: SequenceDataset, order: Indices, key: str, more: SeedMore | None, watch: Watch | None = None
) -> dict[int, Reading]:
    """Read items in this order, each with its own seeds; `watch` does not see the seeding."""
    readings = {}
    for index in order.tolist():
        seed_generators(number_of(f"probe/{key}/{index}"), more)
        before = states()
        with watch or nullcontext():
            digest = items.digest(index)
        readings[index] = Reading(digest, states() != before)
    return readings


def _digest(reading: Mapping[int, Reading]) -> str:
    return hashlib.blake2b(b"".join(reading[index].digest for index in sorted(reading)), digest_size=8).hexdigest()


def _first_difference(readings: list[dict[int, Reading]]) -> int | None:
    first, *others = readings
    return next((i for i, one in first.items() if any(other[i].digest != one.digest for other in others)), None)


def _first_kept(
    begun: Mapping[int, Reading], readings: list[dict[int, Reading]], same: list[dict[int, Reading]]
) -> int | None:
    """The first item that keeps a random value.

    Either, with the same seeds, it draws in one reading but not in another and has the same value; or, if its first
    reading preceded the probe, it drew in that one, never again whatever the seeds, and still has that value.
    """
    for index in readings[0]:
        again = [one[index] for one in same]
        if len(set(again)) > 1 and len({one.digest for one in again}) == 1:
            return index
        later = [one[index] for one in (*readings, *same)]
        oldest = begun.get(index, later[0])
        if oldest.drew and all(one == Reading(oldest.digest, False) for one in later):
            return index
    return None
