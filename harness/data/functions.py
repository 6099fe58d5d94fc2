"""The user's functions between items and batches: `transform(item, random)` and `collate(items, random)`.

Both are functions of their arguments alone: what they draw comes from the generator that they are given, which depends
on `(seed, epoch, index)` or `(seed, t, shard)`. In evaluation `random` is None. `purity.py` checks that they are such.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.data.arrays import as_array
from harness.data.collates import Pad, Stack
from harness.data.dtypes import as_they_are, refuse_dtype
from harness.data.items import Sample, pair_of
from harness.data.leaves import Array, Data, each_leaf, leaves_of, names_of
from harness.data.mixes import CutMix, Mixup
from harness.errors import ConfigError, DataError, HarnessError
from harness.named import call, choose, kind_of, load_function, where_raised

Random = np.random.Generator | None
TransformFunction = Callable[[Any, Random], Any]
CollateFunction = Callable[[list[Sample], Random], Any]

COLLATES: dict[str, Callable[..., CollateFunction]] = {"stack": Stack, "pad": Pad, "mixup": Mixup, "cutmix": CutMix}
_MOST_NAMED = 4  # items in a message
_ONE_AT_A_TIME = threading.RLock()  # training reads ahead in a thread of its own while an evaluation begins


@dataclass(frozen=True, eq=False)
class Transform:
    """Makes an item, a pair of data and label, of whatever the data set holds.

    Attributes:
        function: `function(item, random)`; `random` is a `numpy.random.Generator`, or None in evaluation.
        where: how messages begin.
    """

    function: TransformFunction
    where: str = "transform"

    def __call__(self, item: Any, random: Random, index: int) -> Sample:
        """Data and label of an item.

        Args:
            item: as the data set gives it.
            random: the item's own generator; None in evaluation.
            index: its number, for messages.

        Raises:
            DataError: if the function raises, or gives something else.
        """
        what = f"item {index}"
        return pair_of(f"{self.where}: {what}", called(self.where, what, self.function, item, random))


@dataclass(frozen=True, eq=False)
class Collate:
    """Makes a batch of items, which may differ in shape.

    Attributes:
        function: `function(items, random)` returns `(data, label)`; items are pairs of data and label with the types
            that the network gets, arrays that cannot be written to. `random` is a `numpy.random.Generator`, or None in
            evaluation.
        where: how messages begin.
    """

    function: CollateFunction
    where: str = "collate"

    def __call__(self, items: list[Sample], random: Random, what: str) -> Sample:
        """Data and labels of a batch, each `(n, ...)` or a tuple or dict of such arrays, in MXNet's types.

        Args:
            items: n of them, at least one.
            random: the batch's own generator; None in evaluation.
            what: is collated, for messages.

        Raises:
            DataError: if the function raises, or gives something else.
        """
        where = f"{self.where}: {what}"
        found = called(self.where, what, self.function, items, random)
        if not isinstance(found, tuple | list) or len(found) != 2:
            size = f" of {len(found)}" if isinstance(found, tuple | list) else ""
            raise DataError(
                f"{where}: returned {kind_of(found)}{size}; return a pair (data, label), each an array (n, ...), or a "
                "tuple or dict of such arrays"
            )
        data, label = (
            _batch(where, name, value, len(items)) for name, value in zip(("data", "label"), found, strict=True)
        )
        return data, label


@dataclass(frozen=True)
class Functions:
    """The functions of a job, either of which may be missing."""

    transform: Transform | None = None
    collate: Collate | None = None

    def for_classes(self, num_classes: int | None) -> Functions:
        """The same, for data of so many classes, where a collate by name needs to know them."""
        if self.collate is None or num_classes is None:
            return self
        function = self.collate.function
        if not isinstance(function, Mixup | CutMix) or function.classes is not None:
            return self
        return replace(self, collate=replace(self.collate, function=replace(function, classes=num_classes)))

    @classmethod
    def of(cls, transform: object, collate: object, begin: str = "data.") -> Functions:
        """Functions by name, or as they are.

        Args:
            transform: a function, `module:function`, or None.
            collate: a function, `module:function`, a name of `COLLATES`, a name with its parameters, or None.
            begin: what messages say before `transform` and `collate`.

        Raises:
            ConfigError: if there is none of that name, or it does not take two arguments.
        """
        keys = f"{begin}transform", f"{begin}collate"
        own = None if transform is None else Transform(*own_function(transform, keys[0], ("item", "random")))
        if collate is None:
            return cls(own)
        if isinstance(collate, Mapping) and len(collate) == 1:
            ((name, params),) = collate.items()
            if isinstance(name, str) and isinstance(params, Mapping | None):
                return cls(own, _named(name, dict(params or {}), keys[1]))
        if isinstance(collate, str) and ":" not in collate:
            return cls(own, _named(collate, {}, keys[1]))
        known = f", {', '.join(COLLATES)}"
        return cls(own, Collate(*own_function(collate, keys[1], ("items", "random"), known)))


def called(where: str, what: str, function: Callable[..., Any], argument: Any, random: Random) -> Any:
    """The result of a user's function, called by one thread at a time; whatever it raises becomes one message."""
    try:
        with _ONE_AT_A_TIME:
            return function(argument, random)
    except HarnessError as error:
        raise type(error)(f"{where}: {what}: {error}") from error
    except (Exception, SystemExit) as error:
        without = "; random is None outside of training" if random is None else ""
        if isinstance(error, ValueError) and "read-only" in str(error):
            without = "; what it is given belongs to the data set, so return new arrays, such as item.copy()"
        raise DataError(
            f"{where}: raised {type(error).__name__}: {error} for {what} (at {where_raised(error)}){without}"
        ) from error


def numbered(indices: Sequence[int]) -> str:
    """Some items, for messages.

    >>> numbered([7]), numbered([5, 2, 9, 1, 3, 4])
    ('item 7', '6 items (5, 2, 9, 1, ...)')
    """
    if len(indices) == 1:
        return f"item {indices[0]}"
    more = ", ..." if len(indices) > _MOST_NAMED else ""
    return f"{len(indices)} items ({', '.join(map(str, indices[:_MOST_NAMED]))}{more})"


def _named(name: str, params: dict[str, Any], key: str) -> Collate:
    """A collate of ours with its parameters."""
    if ":" in name:
        raise ConfigError(f"{key}: {name!r} takes no parameters here; give only its name")
    builder = choose(name, COLLATES, key)
    return Collate(call(builder, params, f"{key}.{name}"), f"{key}: {name!r}")


def own_function(value: Any, key: str, arguments: tuple[str, ...], known: str = "") -> tuple[Callable[..., Any], str]:
    """A function of the user's own, by its name or as it is, and how messages about it begin.

    Args:
        value: `module:function`, or a function.
        key: of the setting.
        arguments: that it is called with.
        known: what else may be given, for messages.

    Raises:
        ConfigError: if there is none of that name, or it does not take these arguments.
    """
    takes = f"({', '.join(arguments)})"
    if isinstance(value, str):
        function, where = load_function(value, key), f"{key}: {value!r}"
    elif callable(value):
        function, where = value, f"{key}: {getattr(value, '__qualname__', type(value).__name__)}"
    else:
        raise ConfigError(f"{key}: found {kind_of(value)}; give a function{takes}{known}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some functions written in C have none
        return function, where
    try:
        signature.bind(*arguments)
    except TypeError as error:
        hint = ", where random is a numpy.random.Generator, or None in evaluation" if "random" in arguments else ""
        raise ConfigError(f"{where}: takes {signature}, but is called with {takes}{hint}") from error
    return function, where


def _batch(where: str, what: str, value: Any, count: int) -> Data:
    """Arrays of a batch: checked, and in MXNet's types."""
    if isinstance(value, list):
        raise DataError(f"{where}: {what} is a list; return an array (np.stack), or a tuple of arrays")
    if isinstance(value, Mapping):
        value = {str(key): one for key, one in value.items()}
    if not leaves_of(value):
        raise DataError(f"{where}: {what} is empty; return arrays")
    names = iter(names_of(value, what))
    found: Data = each_leaf(lambda leaf: _leaf(where, next(names), leaf, count), value)
    return found


def _leaf(where: str, name: str, value: Any, count: int) -> Array:
    if not (hasattr(value, "shape") and hasattr(value, "dtype")):
        raise DataError(f"{where}: {name} is {kind_of(value)}; return arrays of NumPy or MXNet")
    array = as_array(value)
    refuse_dtype(f"{where}: {name} is", array.dtype, "give integers or floats")
    if array.ndim < 1 or len(array) != count:
        raise DataError(
            f"{where}: {name} has the shape {array.shape}, but its first dimension must be the number of items, {count}"
        )
    if 0 in array.shape:
        raise DataError(f"{where}: {name} has the shape {array.shape}; MXNet has no empty arrays, so pad to at least 1")
    return as_they_are(array, lambda row: f"{where}: {name} of row {row}")
