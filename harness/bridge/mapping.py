"""Which array of the module comes from which of the run: `mapping.yaml`, written by `match`, to be corrected by hand.

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
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from harness.bridge.layers import Array, Layer, Shape, squeezed_all
from harness.config.reading import read_yaml
from harness.errors import ConfigError, listed
from harness.files import replace_file
from harness.named import brief, did_you_mean

T = TypeVar("T")
_PART = re.compile(r"(.+)\[(\d+):(\d+)\]")
_HOW = {"from", "axes", "blocks", "repeat", "flat"}
_KEYS = ("module", "arrays", "unused")
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


def write_mapping(path: Path, mapping: ArrayMap, layers: Sequence[tuple[Layer, Layer]], module: str) -> None:
    """Write `mapping.yaml`.

    Args:
        path: of the file.
        mapping: what to write.
        layers: the pairs of layers (of the run, of the module) that it follows, for its comments.
        module: what `--module` names.

    Raises:
        ConfigError: if it cannot be written.
    """
    lines = [
        "# Which array of the module (left) comes from which array of the run (right). Correct what is wrong, replace",
        f"# every {OPEN}, and run `verify`. docs/leaving.md says what can stand on the right.",
        f"module: {module}",
        "arrays:",
    ]
    comments = {
        name: f"{there.described()} <- {here.described()}"
        for here, there in layers
        for name in list(there.arrays.values())[:1]
    }
    for target, source in mapping.sources.items():
        lines += [f"  # {comments[target]}"] if target in comments else []
        lines.append(f"  {target}: {_flow(source.plain())}")
    for target, names in mapping.open.items():
        lines.append(f"  {target}: '{OPEN}'  # one of {', '.join(names)}")
    if mapping.unused:
        lines += ["# arrays of the run that the module does not need", "unused:"]
        lines += [f"  - {name}" for name in mapping.unused]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, "\n".join(lines) + "\n")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); choose another --mapping") from None


def read_mapping(path: Path) -> tuple[ArrayMap, str]:
    """A mapping from its file, and the module that it was written for.

    Raises:
        ConfigError: if it cannot be read, or an entry is not what it may be.
    """
    if not path.exists():
        raise ConfigError(f"{path}: there is no mapping yet; write it with `bridge match`")
    raw = read_yaml(path)
    if not isinstance(raw, dict) or not isinstance(raw.get("arrays"), dict):
        raise ConfigError(f"{path}: must be a mapping with `arrays`, as `bridge match` writes it")
    sources, left_open, problems = {}, {}, []
    for target, value in raw["arrays"].items():
        if value == OPEN:
            left_open[str(target)] = ["the run's arrays"]
            continue
        try:
            sources[str(target)] = _source(value)
        except ConfigError as error:
            problems.append(f"arrays.{target}: {error}")
    problems += [f"{key}: unknown key; known: {', '.join(_KEYS)}" for key in raw if key not in _KEYS]
    unused = raw.get("unused") or []
    if not isinstance(unused, list):
        problems.append(f"unused: found {brief(unused)}; give a list of the run's arrays")
    if problems:
        raise ConfigError(f"{path}:{listed(problems)}")
    return ArrayMap(sources, [str(name) for name in unused], left_open), str(raw.get("module", ""))


def _source(value: Any) -> Source:
    if isinstance(value, bool) or value is None or isinstance(value, list):
        raise ConfigError(f"found {brief(value)}; give the name of an array, a number, or {{from: name, ...}}")
    if isinstance(value, int | float):
        return Source(number=float(value))
    if isinstance(value, str):
        return Source(value)
    unknown = set(value) - _HOW
    if unknown or not isinstance(value.get("from"), str):
        raise ConfigError(f"found {brief(value)}; it must have `from`, and may have axes, blocks, repeat and flat")
    numbers: dict[str, Any] = {}
    for key in ("axes", "blocks", "flat"):
        if key in value:
            numbers[key] = _whole_numbers(value[key], key)
    for key in ("axes", "blocks"):
        if key in numbers and sorted(numbers[key]) != list(range(len(numbers[key]))):
            raise ConfigError(f"{key} is {value[key]}; give each of 0 to {len(numbers[key]) - 1} once")
    repeat = value.get("repeat", 1)
    if not isinstance(repeat, int) or repeat < 1:
        raise ConfigError(f"repeat is {brief(repeat)}; give a whole number from 1")
    return Source(value["from"], repeat=repeat, **numbers)


def _whole_numbers(value: Any, key: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or any(not isinstance(one, int) or one < 0 for one in value):
        raise ConfigError(f"{key} is {brief(value)}; give a list of whole numbers")
    return tuple(value)


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {one}" for key, one in value.items()) + "}"
    return str(value)


def _rows(target: str, shape: Shape) -> tuple[int, int]:
    found = _PART.fullmatch(target)
    return (0, shape[0] if shape else 1) if found is None else (int(found[2]), int(found[3]))


def _are_whole(spans: Sequence[tuple[int, int]], shape: Shape) -> bool:
    ends = [0, *(end for _, end in spans)]
    return all(begin == end for (begin, _), end in zip(spans, ends, strict=False)) and ends[-1] == (
        shape[0] if prod(shape) and shape else 1
    )
