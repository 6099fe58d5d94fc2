"""Collates by name: how items become the arrays of a batch. Each is called as a user's own is, with (items, random)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.data.items import Sample
from harness.data.leaves import Array, Data, leaves_of, names_of, pack
from harness.errors import DataError

PARTS = ("data", "label")


@dataclass(frozen=True)
class Stack:
    """Arrays of equal shapes, one above the other; what happens without a collate."""

    def __call__(self, items: list[Sample], random: object) -> Sample:
        """Data and labels `(n, ...)`.

        Raises:
            DataError: naming the first array whose shapes differ.
        """
        return _joined(items, lambda name, arrays: stacked(name, arrays))


@dataclass(frozen=True)
class Pad:
    """Arrays of different lengths, filled up at their end to the longest one.

    Attributes:
        value: to fill up with: a number, or numbers for `data`, `label` or single arrays (`data[1]`,
            `label['classes']`), 0 for others.
        axis: of an item's array, along which lengths differ; or several.
        to: lengths to fill up to, the first that is long enough; by default that of the longest item in the batch. A
            network compiled for few shapes is the faster.
        arrays: names of the arrays to fill up; by default all that have such an axis. Others are stacked.
        lengths: whether items' lengths before they were filled up are returned too, int32 `(n,)`: behind the data, or
            as `lengths` in a dict (`true` or `"data"`), with the labels (`"label"`), or with each (`"both"`). They are
            those of the first array that is filled up, along the first axis.
    """

    value: float | Mapping[str, float] = 0
    axis: int | Sequence[int] = 0
    to: Sequence[int] = ()
    arrays: Sequence[str] | None = None
    lengths: bool | str = False
    _axes: tuple[int, ...] = field(init=False, repr=False, default=())

    def __post_init__(self) -> None:
        """Refuse impossible parameters."""
        axes = (self.axis,) if isinstance(self.axis, int) else tuple(self.axis)
        if not axes or not all(_is_whole(axis, 0) for axis in axes) or len(set(axes)) < len(axes):
            raise ValueError(f"axis is {self.axis!r}; allowed: a whole number from 0, or a list of several")
        if (
            isinstance(self.to, str)
            or not all(_is_whole(one, 1) for one in self.to)
            or list(self.to) != sorted(set(self.to))
        ):
            raise ValueError(f"to is {self.to!r}; allowed: a list of whole numbers from 1, each larger than the last")
        if self.lengths not in (False, True, *PARTS, "both"):
            raise ValueError(f"lengths is {self.lengths!r}; allowed: true, false, 'data', 'label' or 'both'")
        values = self.value.values() if isinstance(self.value, Mapping) else [self.value]
        if not all(isinstance(one, int | float) and not isinstance(one, bool) and np.isfinite(one) for one in values):
            raise ValueError(
                f"value is {self.value!r}; allowed: a finite number, or a mapping of arrays to such numbers"
            )
        object.__setattr__(self, "_axes", axes)

    def __call__(self, items: list[Sample], random: object) -> Sample:
        """Data and labels `(n, ...)`.

        Raises:
            DataError: naming the first array that cannot be filled up.
        """
        known = {name for what, one in zip(PARTS, items[0], strict=True) for name in names_of(one, what)}
        named = [*(self.arrays or ()), *(self.value if isinstance(self.value, Mapping) else ())]
        unknown = [name for name in named if name not in known and not (name in PARTS and name in self._values)]
        if unknown:
            raise DataError(f"there is no {unknown[0]}; items have {', '.join(sorted(known))}")
        data, label = _joined(items, self._join)
        wanted = "data" if self.lengths is True else self.lengths
        if wanted in ("data", "both"):
            data = self._with_lengths("data", data, [item[0] for item in items])
        if wanted in ("label", "both"):
            label = self._with_lengths("label", label, [item[1] for item in items])
        return data, label

    @property
    def _values(self) -> Mapping[str, float]:
        return self.value if isinstance(self.value, Mapping) else {}

    def _join(self, name: str, arrays: list[Array]) -> Array:
        if not self._is_padded(name, arrays[0]):
            return stacked(name, arrays)
        shapes = [array.shape for array in arrays]
        rest = {tuple(size for axis, size in enumerate(shape) if axis not in self._axes) for shape in shapes}
        if len({len(shape) for shape in shapes}) > 1 or len(rest) > 1:
            axes = ", ".join(map(str, self._axes))
            raise DataError(
                f"{name} has the shapes {_some(shapes)}, which differ in more than axis {axes}, along which they are "
                "filled up; name other axes (pad: {axis: ...}), or collate by a function of your own"
            )
        shape = list(shapes[0])
        for axis in self._axes:
            shape[axis] = self._size(name, max(one[axis] for one in shapes))
        dtype, value = arrays[0].dtype, self._value(name)
        if dtype.kind in "iu" and not (value == int(value) and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max):
            raise DataError(f"{name} is {dtype}, which cannot hold the value {value:g}; give another pad.value")
        joined = np.full((len(arrays), *shape), value, dtype)
        for row, array in zip(joined, arrays, strict=True):
            row[tuple(slice(size) for size in array.shape)] = array
        return joined

    def _is_padded(self, name: str, array: Array) -> bool:
        return array.ndim > max(self._axes) and (self.arrays is None or name in self.arrays)

    def _size(self, name: str, longest: int) -> int:
        if not self.to:
            return max(1, longest)  # MXNet has no empty arrays
        enough = next((size for size in self.to if size >= longest), None)
        if enough is None:
            raise DataError(
                f"{name} has a length of {longest}, more than the largest of pad.to, {self.to[-1]}; add a larger one, "
                "or cut items in data.transform"
            )
        return enough

    def _value(self, name: str) -> float:
        part = name.partition("[")[0]
        return self._values.get(name, self._values.get(part, 0)) if isinstance(self.value, Mapping) else self.value

    def _with_lengths(self, part: str, joined: Data, parts: Sequence[Data]) -> Data:
        names = names_of(parts[0], part)
        place = next((k for k, leaf in enumerate(leaves_of(parts[0])) if self._is_padded(names[k], leaf)), None)
        if place is None:
            raise DataError(f"there is no array in {part} to fill up, so it has no lengths; change pad.lengths")
        axis = self._axes[0]
        lengths = np.array([leaves_of(one)[place].shape[axis] for one in parts], np.int32)
        if isinstance(joined, dict):
            if "lengths" in joined:
                raise DataError(f"{part} has an array named lengths already; rename it, or leave out pad.lengths")
            return {**joined, "lengths": lengths}
        return (*leaves_of(joined), lengths)


def stacked(name: str, arrays: Sequence[Array]) -> Array:
    """Arrays of equal shapes in one, `(n, ...)`.

    Raises:
        DataError: with the shapes, if they differ.
    """
    shapes = [array.shape for array in arrays]
    if len(set(shapes)) > 1:
        raise DataError(
            f"{name} has the shapes {_some(shapes)}, which cannot be stacked; fill up what differs in length "
            "(collate: pad), or collate by a function of your own"
        )
    return np.stack(arrays)


def _joined(items: list[Sample], join: Callable[[str, list[Array]], Array]) -> Sample:
    """Each leaf of all items, joined."""
    data, label = (
        pack(
            [
                join(name, [leaves_of(item[number])[k] for item in items])
                for k, name in enumerate(names_of(items[0][number], what))
            ],
            items[0][number],
        )
        for number, what in enumerate(PARTS)
    )
    return data, label


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _some(shapes: Sequence[tuple[int, ...]]) -> str:
    distinct = list(dict.fromkeys(shapes))
    return ", ".join(map(str, distinct[:3])) + (", ..." if len(distinct) > 3 else "")
