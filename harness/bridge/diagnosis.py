"""Names what is wrong where predictions differ: tries corrections of the mapping, and tells where the networks part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, islice, permutations
from typing import NamedTuple

from harness.bridge.layers import OWN, Layer, Shape, distance_in_any_layout
from harness.bridge.mapping import ArrayMap, Source
from harness.bridge.verify import PREDICTIONS, First, Ran, first_difference

_MOST_TRIALS = 300
_FUNCTIONS = {"relu", "sigmoid", "tanh", "softrelu", "softsign", "leakyrelu", "elu", "selu", "gelu", "swish"}
_SAME_FUNCTIONS = {"softplus": "softrelu", "silu": "swish"}
_GATES = {"lstm": 4, "gru": 3, "lstm cell": 4, "gru cell": 3}

Predicts = Callable[[ArrayMap], float]
"""How far the predictions are apart with another mapping."""


class Trial(NamedTuple):
    """A correction of the mapping.

    Attributes:
        mapping: the corrected one.
        said: what was corrected.
    """

    mapping: ArrayMap
    said: str


def diagnose(
    run: Ran, module: Ran, pairs: Sequence[tuple[Layer, Layer]], mapping: ArrayMap, predicts: Predicts, apart: float
) -> list[str]:
    """Sentences that say what is wrong; at least one.

    Args:
        run: the Gluon side.
        module: the PyTorch side.
        pairs: the layers that the mapping takes for the same.
        mapping: of the arrays.
        predicts: tries another.
        apart: how far predictions are apart with it.
    """
    first = first_difference(run, module, pairs)
    if first is None:
        return [
            f"every layer that both call agrees, and the predictions differ by {apart:.2g}: what follows the last "
            f"layer differs (run: {_listed(run.predict.steps[-2:])}; module: {_listed(module.predict.steps[-2:])})"
        ]
    for trial in islice(_trials(_suspects(first, module, pairs), pairs, mapping), _MOST_TRIALS):
        if predicts(trial.mapping) <= PREDICTIONS:
            return [f"{trial.said}: then the predictions agree, so the mapping is wrong there"]
    where = f"{first.there.described()} for the run's {first.here.described()}"
    if not first.is_input:
        return [f"{where} gives something else ({first.distance:.2g}) for the same input: its arrays or settings"]
    partner = _layer_given(run, first.there, module)
    if partner is not None and partner.name != first.here.name:
        return [f"{where} is given what the run's {partner.described()} is given: the arrays of that one belong there"]
    before = "the samples" if first.last is None else f"the run's {first.last.described()}"
    return [
        *_other_functions(first),
        f"{where} is given something else ({first.distance:.2g}), though all before it agrees: what lies between it "
        f"and {before} differs (run: {_listed(first.between)}; module: {_listed(first.between_there)}, and functions, "
        "which are not seen)",
    ]


def _other_functions(first: First) -> list[str]:
    """Blocks of activations where the run has another; a sentence or none, where either side has more of them."""
    ours, theirs = (
        [(step, function) for step in steps if (function := _function_of(step))]
        for steps in (first.between, first.between_there)
    )
    if len(ours) != len(theirs):  # because the others are functions, which are not seen
        return []
    return [
        f"{there} is another function than the run's {here}"
        for (here, one), (there, other) in zip(ours, theirs, strict=True)
        if one != other
    ][:1]


def _function_of(step: str) -> str:
    """The activation of a step, by Gluon's name; empty for other steps.

    >>> _function_of("2 (SiLU)"), _function_of("0.act (relu)"), _function_of("1 (Flatten)")
    ('swish', 'relu', '')
    """
    name = step.rpartition(" (")[2].removesuffix(")").lower()
    name = _SAME_FUNCTIONS.get(name, name)
    return name if name in _FUNCTIONS else ""


def _layer_given(run: Ran, there: Layer, module: Ran) -> Layer | None:
    """The run's layer of the same kind and shape that is given what a layer of the module is given."""
    call = module.predict.first_calls().get(there.name)
    layers = {layer.name: layer for layer in run.layers}
    for name, other in run.predict.first_calls().items():
        same = layers[name].signature == there.signature
        if same and call is not None and call.given.size and distance_in_any_layout(other.given, call.given) <= 1e-4:
            return layers[name]
    return None


def _suspects(first: First, module: Ran, pairs: Sequence[tuple[Layer, Layer]]) -> list[tuple[Layer, Layer]]:
    """The pairs of which one may be mistaken: the first that differs, and those of which nothing is known.

    Nobody sees what the parts of an attention give, nor what gives a block of one's own before the blocks inside it.
    """
    calls = module.predict.first_calls()
    unknown = [
        (here, there)
        for here, there in pairs
        if OWN in (here.kind, there.kind) or (there.name in calls and not calls[there.name].gave.size)
    ]
    own = (first.here, first.there)
    return [own, *(pair for pair in unknown if pair != own)]


def _trials(
    suspects: Sequence[tuple[Layer, Layer]], pairs: Sequence[tuple[Layer, Layer]], mapping: ArrayMap
) -> Iterator[Trial]:
    """Mappings that differ by one mistake: two layers exchanged, gates, directions, a matrix on its side."""
    for here, there in suspects:
        yield from _inside(here, there, mapping)
        for other, other_there in pairs:
            if there.signature == other_there.signature and here.name != other.name:
                yield Trial(
                    _exchanged(mapping, there.arrays, other_there.arrays),
                    f"exchange {there.name} and {other_there.name} (the run's {other.name} and {here.name})",
                )


def _inside(here: Layer, there: Layer, mapping: ArrayMap) -> Iterator[Trial]:
    sources = mapping.sources
    by_shape: dict[Shape, list[str]] = {}
    for role, target in there.arrays.items():
        if target in sources:
            by_shape.setdefault(there.shapes[role], []).append(target)
    for shape, targets in by_shape.items():
        for one, other in combinations(targets, 2):
            yield Trial(
                _with(mapping, {one: sources[other], other: sources[one]}),
                f"exchange {one} and {other} (the run's {sources[other].name} and {sources[one].name})",
            )
        if len(shape) == 2 and shape[0] == shape[1] and here.kind == "dense":
            for one in targets:
                turned = (1, 0) if sources[one].axes is None else None
                yield Trial(_with(mapping, {one: replace(sources[one], axes=turned)}), f"transpose {one}")
    for end in sorted({target.rpartition("_l")[2] for target in there.arrays.values() if target.endswith("_reverse")}):
        forward = end.removesuffix("_reverse")
        swapped = {}
        for target in there.arrays.values():
            stem, _, place = target.rpartition("_l")
            if place in (end, forward):
                swapped[target] = sources.get(f"{stem}_l{forward if place == end else end}")
        found = {target: source for target, source in swapped.items() if source is not None}
        if len(found) == len(swapped):
            yield Trial(_with(mapping, found), f"exchange the directions of layer {forward} of {there.name}")
    count = _GATES.get(here.kind, 0)
    rows = [target for target in there.arrays.values() if target in sources and sources[target].number is None]
    for order in permutations(range(count)) if count else ():
        if list(order) != list(range(count)):
            changed = {target: replace(sources[target], blocks=order) for target in rows}
            yield Trial(_with(mapping, changed), f"give the gates of {there.name} in the order blocks: {list(order)}")


def _with(mapping: ArrayMap, changed: Mapping[str, Source]) -> ArrayMap:
    return replace(mapping, sources={**mapping.sources, **changed})


def _exchanged(mapping: ArrayMap, one: Mapping[str, str], other: Mapping[str, str]) -> ArrayMap:
    sources = mapping.sources
    changed: dict[str, Source] = {}
    for role, target in one.items():
        second = other.get(role)
        if second is not None and target in sources and second in sources:
            changed |= {target: sources[second], second: sources[target]}
    return _with(mapping, changed)


def _listed(steps: Sequence[str]) -> str:
    return ", ".join(steps) or "nothing"
