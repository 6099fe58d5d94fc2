"""Which array of the module comes from which of the run. Pure; `mapping_file.py` writes and reads it.

An entry is `target: source`. A target is an array of the module, or some rows of it (`attention.in_proj_weight[0:64]`).
A source is an array of the run, some rows of it, a number that fills the target, or a mapping:

    {from: conv.weight, axes: [0, 3, 1, 2]}      axes in another order
    {from: lstm.weight, blocks: [0, 1, 3, 2]}    equal blocks of rows in another order: the gates
    {from: group_norm.gamma, repeat: 4}          each number so many times
    {from: dense.weight, flat: [4, 4, 20]}       columns flattened from (height, width, channels)

All but a number are one to one, so gradients and the optimizer's arrays go the same way. `repeat` is not: what the run
trains as one number the module trains as several.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeVar

import numpy as np

from harness.bridge.layers import Array, Shape, squeezed_all
from harness.errors import ConfigError
from harness.named import did_you_mean

T = TypeVar("T")
_PART = re.compile(r"(.+)\[(\d+):(\d+)\]")
OPEN = "?"


@dataclass(frozen=True)
class Source:
    """Where a target's numbers come from.

    Attributes:
        name: of the run's array, or `name[0:64]`; empty for a number.
        axes: the order of its axes.
        blocks: the order of equal blocks of its rows.
        repeat: how often each number is repeated.
        flat: the lengths, channels last, from which its columns were flattened.
        number: that fills the target.
    """

    name: str = ""
    axes: tuple[int, ...] | None = None
    blocks: tuple[int, ...] | None = None
    repeat: int = 1
    flat: tuple[int, ...] | None = None
    number: float | None = None

    @property
    def array(self) -> str:
        """The name of the whole array."""
        return whole(self.name)

    def __call__(self, arrays: Mapping[str, Array], shape: Shape) -> Array:
        """The target's numbers, from the run's arrays by name.

        Raises:
            ConfigError: if they do not have the target's shape.
        """
        if self.number is not None:
            return np.full(shape, self.number, np.float32)
        shape_there = arrays[self.array].shape
        (begin, end), (_, length) = _rows(self.name, shape_there), _rows(self.array, shape_there)
        if not begin < end <= length:
            raise ConfigError(f"{self.name} are not rows of {self.array}, which has {length}")
        found = rows_of(arrays, self.name)
        if self.axes is not None:
            if len(self.axes) != found.ndim:
                raise ConfigError(f"axes: {list(self.axes)} are not the {found.ndim} axes of {self.name}")
            found = found.transpose(self.axes)
        if self.blocks is not None:
            if len(found) % len(self.blocks):
                raise ConfigError(f"blocks: {len(found)} rows are not {len(self.blocks)} equal blocks")
            found = np.concatenate([np.split(found, len(self.blocks))[block] for block in self.blocks])
        if self.flat is not None:
            columns = found[0].size
            if prod(self.flat) != columns:
                raise ConfigError(
                    f"flat: {list(self.flat)} are {prod(self.flat)} columns, and {self.name} has {columns}"
                )
            found = np.moveaxis(found.reshape(len(found), *self.flat), -1, 1).reshape(len(found), -1)
        if self.repeat > 1:
            found = found.repeat(self.repeat, axis=0)
        if found.shape != shape and squeezed_all(found.shape) == squeezed_all(shape):
            found = found.reshape(shape)
        if found.shape != shape:
            raise ConfigError(f"{self.name} becomes {found.shape}, and {shape} are wanted")
        return np.ascontiguousarray(found)

    def plain(self) -> Any:
        """As YAML has it."""
        if self.number is not None:
            return self.number
        more = {
            "axes": None if self.axes is None else list(self.axes),
            "blocks": None if self.blocks is None else list(self.blocks),
            "repeat": self.repeat if self.repeat > 1 else None,
            "flat": None if self.flat is None else list(self.flat),
        }
        set_ones = {key: value for key, value in more.items() if value is not None}
        return {"from": self.name, **set_ones} if set_ones else self.name


@dataclass(frozen=True)
class ArrayMap:
    """The mapping.

    Attributes:
        sources: by target.
        unused: arrays of the run that go nowhere, which is meant.
        open: what `match` could not decide: by target the sources that it might have.
    """

    sources: Mapping[str, Source]
    unused: Sequence[str] = ()
    open: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def convert(self, arrays: Mapping[str, Array], shapes: Mapping[str, Shape]) -> dict[str, Array]:
        """The module's arrays by target, from the run's.

        Args:
            arrays: by name; targets of which the source is not among them are left out.
            shapes: of the module's arrays.
        """
        found = {}
        for target, source in self.sources.items():
            if source.number is not None or source.array in arrays:
                try:
                    found[target] = source(arrays, shape_of(shapes, target))
                except ConfigError as error:
                    raise ConfigError(f"arrays.{target}: {error}") from None
        return found

    def problems(self, run: Mapping[str, Shape], module: Mapping[str, Shape]) -> list[str]:
        """What is missing, unknown or there twice, a sentence each.

        Args:
            run: the shapes of the run's arrays by name.
            module: of the module's.
        """
        problems = [f"{target}: is {OPEN}; it is one of {', '.join(names)}" for target, names in self.open.items()]
        covered: dict[str, list[tuple[int, int]]] = {}
        for target, source in self.sources.items():
            name = whole(target)
            if name not in module:
                problems.append(f"{target}: the module has no such array; {did_you_mean(name, list(module))}remove it")
                continue
            covered.setdefault(name, []).append(_rows(target, module[name]))
            if source.number is None and source.array not in run:
                meant = did_you_mean(source.array, list(run))
                problems.append(f"{target}: the run has no array {source.array!r}; {meant}run match to see its names")
            elif source.number is None:
                try:
                    nothing: Array = np.broadcast_to(np.float32(0), run[source.array])
                    source({source.array: nothing}, shape_of(module, target))
                except ConfigError as error:
                    problems.append(f"{target}: {error}")
        problems += [
            f"unused: the run has no array {name!r}; {did_you_mean(name, list(run))}remove it"
            for name in self.unused
            if name not in run
        ]
        named = {source.array for source in self.sources.values()} | set(self.unused)
        maybe = {name for names in self.open.values() for name in names}
        for name in module:
            spans = sorted(covered.get(name, []))
            if not spans and not any(whole(target) == name for target in self.open):
                problems.append(f"{name}: the module has this array, and nothing in the run goes there")
            elif spans and not _are_whole(spans, module[name]) and name not in {whole(one) for one in self.open}:
                problems.append(f"{name}: its rows are not all filled once; it has {module[name][0]}")
        problems += [
            f"{name}: the run has this array, and it goes nowhere; if that is meant, list it under unused"
            for name in run
            if name not in named and name not in maybe
        ]
        return problems


def whole(name: str) -> str:
    """The name of the array of which some rows are meant.

    >>> whole("in_proj_weight[0:64]"), whole("weight")
    ('in_proj_weight', 'weight')
    """
    found = _PART.fullmatch(name)
    return name if found is None else found[1]


def rows_of(arrays: Mapping[str, T], name: str) -> T:
    """An array or tensor by name, or some rows of it, in its memory, by `name[0:64]`."""
    found = _PART.fullmatch(name)
    if found is None:
        return arrays[name]
    whole_one: Any = arrays[found[1]]
    rows: T = whole_one[int(found[2]) : int(found[3])]
    return rows


def shape_of(shapes: Mapping[str, Shape], name: str) -> Shape:
    """The shape of an array, or of some rows of it."""
    found = _PART.fullmatch(name)
    return shapes[name] if found is None else (int(found[3]) - int(found[2]), *shapes[found[1]][1:])


def _rows(target: str, shape: Shape) -> tuple[int, int]:
    found = _PART.fullmatch(target)
    return (0, shape[0] if shape else 1) if found is None else (int(found[2]), int(found[3]))


def _are_whole(spans: Sequence[tuple[int, int]], shape: Shape) -> bool:
    ends = [0, *(end for _, end in spans)]
    return all(begin == end for (begin, _), end in zip(spans, ends, strict=False)) and ends[-1] == (
        shape[0] if prod(shape) and shape else 1
    )
