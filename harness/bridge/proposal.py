"""Proposes which layer of the run is which of the module: by kind, shape and order of calls; refuses to guess. Pure.

Two layers can be the same if their kind and shapes are. Among several of one kind and shape the order in which samples
pass them decides, together with the layers right before and after them. It says nothing where several of them are
given the same input, as query, key and value are: there names decide if they are the same on both sides, or nobody.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from harness.bridge.layers import Array, Layer, Shape, Trace, is_neutral
from harness.bridge.mapping import ArrayMap, Source, whole

_ROUNDS = 3  # how far neighbours count
_SAME_NAMES = {"q": "query", "k": "key", "v": "value", "proj": "out", "output": "out"}
_FILLERS = {"proj", "linear", "dense", "layer", "fc", "weight", "attention", "attn", "self"}


class Proposal(NamedTuple):
    """What `propose` has found.

    Attributes:
        mapping: which array goes where, with what is left open.
        pairs: the layers (of the run, of the module) that it takes for the same.
        problems: what has no counterpart, a sentence each.
        unpaired: the names of the arrays of layers without one, on both sides.
    """

    mapping: ArrayMap
    pairs: Sequence[tuple[Layer, Layer]]
    problems: Sequence[str]
    unpaired: frozenset[str] = frozenset()

    def all_problems(self, run: Mapping[str, Shape], module: Mapping[str, Shape]) -> list[str]:
        """Those, and what the mapping lacks beside them, a sentence each.

        Args:
            run: the shapes of the run's arrays by name.
            module: of the module's.
        """
        told = {whole(name) for name in self.unpaired} | {problem.partition(": ")[0] for problem in self.problems}
        more = [one for one in self.mapping.problems(run, module) if whole(one.partition(": ")[0]) not in told]
        return list(dict.fromkeys([*self.problems, *more]))


class Side(NamedTuple):
    """A network as far as it is compared.

    Attributes:
        layers: in the order of their parameters.
        trace: of some samples.
        axes: by array, in which order its axes are PyTorch's; of those alone that are in another.
    """

    layers: Sequence[Layer]
    trace: Trace
    axes: Mapping[str, tuple[int, ...]]


def propose(run: Side, module: Side) -> Proposal:
    """Pair the layers of a run with those of a module."""
    here, there = _in_order(run), _in_order(module)
    colours = _colours(run, here), _colours(module, there)
    pairs: list[tuple[Layer, Layer]] = []
    left_open: dict[str, list[str]] = {}
    problems: list[str] = []
    # By kind, shape and neighbours first; what is left, with other neighbours on either side, by kind and shape alone.
    rest = [here, there]
    for keys in (colours, tuple({layer.name: str(layer.signature) for layer in side} for side in rest)):
        groups = [_grouped(side, names) for side, names in zip(rest, keys, strict=True)]
        for key in groups[0]:
            ours, theirs = groups[0][key], groups[1].get(key, [])
            if len(ours) == len(theirs):
                found = _pair(ours, theirs, run.trace, module.trace)
                if found is None:
                    _leave_open(ours, theirs, left_open)
                    found = list(zip(ours, theirs, strict=True))
                    done = [layer for pair in found for layer in pair]
                    rest = [[layer for layer in side if layer not in done] for side in rest]
                    continue
                pairs += found
        taken = [layer for pair in pairs for layer in pair]
        rest = [[layer for layer in side if layer not in taken] for side in rest]
    needless = [layer for layer in rest[0] if layer.is_neutral]
    without = [layer for layer in rest[0] if layer not in needless], rest[1]
    problems += _unpaired(*without)
    names_without = {name for side in without for layer in side for name in layer.arrays.values()}
    order = {layer.name: place for place, layer in enumerate(there)}
    pairs.sort(key=lambda pair: order[pair[1].name])
    mapping, more = _arrays(pairs, left_open, run.axes)
    unused = [name for layer in needless for name in layer.arrays.values()]
    mapping = replace(mapping, unused=[*mapping.unused, *unused])
    return Proposal(mapping, pairs, problems + more, frozenset(names_without))


def _in_order(side: Side) -> list[Layer]:
    """Layers in the order of their first calls; those that are never called where their parameters stand."""
    called = {name: place for place, name in enumerate(side.trace.first_calls())}
    places, last = {}, -1.0
    for layer in side.layers:
        last = places[layer.name] = float(called.get(layer.name, last))
    return sorted(side.layers, key=lambda layer: places[layer.name])


def _colours(side: Side, layers: Sequence[Layer]) -> dict[str, str]:
    """For each layer its kind and shapes, and those of the layers right before and after it, as far as arrays tell."""
    calls = side.trace.first_calls()
    gave = {_digest(call.gave): name for name, call in calls.items() if call.gave.size}
    before = {name: gave.get(_digest(call.given)) for name, call in calls.items() if call.given.size}
    after: dict[str, list[str]] = {}
    for name, feeder in before.items():
        if feeder is not None:
            after.setdefault(feeder, []).append(name)
    colours = {layer.name: str(layer.signature) for layer in layers}
    for _ in range(_ROUNDS):
        colours = {
            name: hashlib.sha256(
                repr(
                    (own, colours.get(before.get(name) or "", ""), sorted(colours[one] for one in after.get(name, [])))
                ).encode()
            ).hexdigest()
            for name, own in colours.items()
        }
    return colours


def _digest(array: Array) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def _grouped(layers: Sequence[Layer], keys: Mapping[str, str]) -> dict[str, list[Layer]]:
    groups: dict[str, list[Layer]] = {}
    for layer in layers:
        groups.setdefault(keys[layer.name], []).append(layer)
    return groups


def _pair(
    ours: Sequence[Layer], theirs: Sequence[Layer], run: Trace, module: Trace
) -> list[tuple[Layer, Layer]] | None:
    """Pair layers of one kind and shape by order, where order tells them apart; `None` where it does not."""
    alike = [_that_share_input(ours, run), _that_share_input(theirs, module)]
    if [len(group) for group in alike[0]] != [len(group) for group in alike[1]]:
        return None
    pairs: list[tuple[Layer, Layer]] = []
    for ours_alike, theirs_alike in zip(*alike, strict=True):
        if len(ours_alike) == 1:
            pairs.append((ours_alike[0], theirs_alike[0]))
            continue
        by_name = {_own_name(layer): layer for layer in theirs_alike}
        names = [_own_name(layer) for layer in ours_alike]
        if len(by_name) < len(theirs_alike) or len(set(names)) < len(names) or set(names) != set(by_name):
            return None
        pairs += [(layer, by_name[name]) for layer, name in zip(ours_alike, names, strict=True)]
    return pairs


def _that_share_input(layers: Sequence[Layer], trace: Trace) -> list[list[Layer]]:
    """Layers in groups that were given the same array."""
    calls = trace.first_calls()
    groups: dict[str, list[Layer]] = {}
    for layer in layers:
        call = calls.get(layer.name)
        key = layer.name if call is None or not call.given.size else _digest(call.given)
        groups.setdefault(key, []).append(layer)
    return list(groups.values())


def _own_name(layer: Layer) -> str:
    """The last word of a name that says what a layer is for.

    >>> _own_name(Layer("encoder.0.q_proj", "dense", {}, {})), _own_name(Layer("encoder.0.self.query", "dense", {}, {}))
    ('query', 'query')
    """
    words = [word for word in re.split(r"[._]", layer.name.lower()) if word]
    telling = [word for word in words if word not in _FILLERS] or words or [""]
    return _SAME_NAMES.get(telling[-1], telling[-1])


def _leave_open(ours: Sequence[Layer], theirs: Sequence[Layer], left_open: dict[str, list[str]]) -> None:
    for layer in theirs:
        for role, target in layer.arrays.items():
            left_open[target] = [one.arrays[role] for one in ours if role in one.arrays]


def _unpaired(here: Sequence[Layer], there: Sequence[Layer]) -> list[str]:
    """What is said of layers without a counterpart."""
    problems = []
    for side, other, whose in ((here, there, "run"), (there, here, "module")):
        counts = Counter(str(layer.signature) for layer in other)
        for layer in side:
            shapes = ", ".join(f"{role} {shape}" for role, shape in layer.shapes.items())
            near = [one for one in other if one.kind == layer.kind]
            hint = "" if not near else f"; nearest: {near[0].described()} with {_shapes(near[0])}"
            count = counts[str(layer.signature)]
            hint = f"; the other side has {count} of these and this side more or fewer" if count else hint
            problems.append(f"the {whose}'s {layer.described()} with {shapes} has no counterpart{hint}")
    return problems


def _shapes(layer: Layer) -> str:
    return ", ".join(f"{role} {shape}" for role, shape in layer.shapes.items())


def _arrays(
    pairs: Sequence[tuple[Layer, Layer]], left_open: Mapping[str, list[str]], axes: Mapping[str, tuple[int, ...]]
) -> tuple[ArrayMap, list[str]]:
    """From pairs of layers to pairs of arrays."""
    sources: dict[str, Source] = {}
    unused: list[str] = []
    problems: list[str] = []
    for here, there in pairs:
        roles = there.arrays
        for role, target in roles.items():
            source = _source_of(here, there, role, axes)
            if source is None:
                problems.append(
                    f"{target}: the module's {there.described()} has a {role}, and the run's {here.described()} none"
                )
            elif sources.get(target, source) != source:
                problems.append(
                    f"{target}: is one array in the module, for which the run has two, {sources[target].name} and "
                    f"{source.name}; do not share it"
                )
            else:
                sources[target] = source
        for role, name in here.arrays.items():
            if role in here.constants and (role in roles or is_neutral(role, here.constants[role])):
                unused.append(name)  # its number stands in the mapping, or is not needed
            elif role not in roles:
                problems.append(
                    f"{name}: the run's {here.described()} has a {role}, and the module's {there.described()} none"
                )
    targets: dict[str, set[str]] = {}
    for target, source in sources.items():
        if source.name and source.name == source.array:
            targets.setdefault(source.name, set()).add(whole(target))
    problems += [
        f"{name}: is one array in the run, which two layers share, and several in the module: "
        f"{', '.join(sorted(several))}; share it there as well"
        for name, several in targets.items()
        if len(several) > 1
    ]
    return ArrayMap(sources, [name for name in unused if name not in targets], left_open), problems


def _source_of(here: Layer, there: Layer, role: str, axes: Mapping[str, tuple[int, ...]]) -> Source | None:
    if role in here.constants:
        return Source(number=here.constants[role])
    if role not in here.arrays:
        return None
    name, ours, theirs = here.arrays[role], here.shapes[role], there.shapes[role]
    if here.kind == "group norm" and ours != theirs and len(ours) == 1 and theirs[0] % ours[0] == 0:
        return Source(name, repeat=theirs[0] // ours[0])
    return Source(name, axes=axes.get(name))
