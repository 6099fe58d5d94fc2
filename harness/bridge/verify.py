"""Compares the two networks: settings of layers, predictions, losses, gradients, running statistics. Pure.

The thresholds, each of the largest number in its array (`layers.distance`):

- predictions, in float32, 1e-5: float32 has a relative precision of 6e-8, a network of 20 to 60 layers adds up some
  hundred roundings in other orders on either side, which is a few 1e-7 to 1e-6; a wrong epsilon (1e-3 for 1e-5) in one
  norm already makes 1e-4.
- losses and running statistics, in float64, 1e-5, and gradients 1e-4: rounding is far below these, so that a
  difference of this size is another formula. Where a gradient is 0 but for rounding (a bias before a batch norm, the
  bias of keys), the largest number counts as a hundredth of the largest gradient in the same layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from harness.bridge.layers import OWN, Layer, Shape, Trace, distance, distance_in_any_layout
from harness.bridge.mapping import ArrayMap, rows_of, whole

PREDICTIONS, LOSSES, GRADIENTS, STATISTICS = 1e-5, 1e-5, 1e-4, 1e-5
_SETTINGS_FROM_WEIGHTS = ("is_grouped",)
_TOLERANCE_OF_SETTINGS = 1e-9
_LEAST_PART = 0.01
_ALL_AGREE = 1e-4  # of a layer's numbers in the middle of a network, to find the first that differs


class Worst(NamedTuple):
    """The largest difference of one kind.

    Attributes:
        what: such as `gradients`.
        distance: of the array that differs most.
        name: of it.
        threshold: up to which it is rounding.
        number: of what was compared.
    """

    what: str
    distance: float
    name: str
    threshold: float
    number: int

    @property
    def agrees(self) -> bool:
        """Whether the difference is rounding."""
        return self.distance <= self.threshold

    def __str__(self) -> str:
        """A line for the terminal."""
        verdict = "agree" if self.agrees else "DIFFER"
        where = f" at {self.name}" if self.name else ""
        most = f"by {self.distance:.2g} at most{where} (allowed {self.threshold:g})"
        return f"{self.what}: {self.number} {verdict}, {most}"


class Ran(NamedTuple):
    """One network, run in both modes.

    Attributes:
        layers: of the network.
        predict: its trace in predict mode.
        train: in training mode, without dropout.
        dropout: the rates that were switched off, by block.
        dtype: in which training mode was computed.
    """

    layers: Sequence[Layer]
    predict: Trace
    train: Trace
    dropout: Mapping[str, float]
    dtype: str = "float64"


def compare(run: Ran, module: Ran, mapping: ArrayMap, shapes: Mapping[str, Shape]) -> list[Worst]:
    """The largest difference of each kind.

    Args:
        run: the Gluon side.
        module: the PyTorch side, with the run's arrays by the mapping.
        mapping: which array comes from which.
        shapes: of the module's arrays.
    """
    found = [predictions(run.predict, module.predict)]
    losses = distance(run.train.losses, module.train.losses) if _alike(run.train, module.train) else float("inf")
    found.append(Worst("losses in training mode", losses, "", LOSSES, run.train.losses.size))
    found.append(_worst("gradients", dict(_gradients(run, module, mapping, shapes)), GRADIENTS))
    statistics = dict(_statistics(run.train, module.train, mapping, shapes))
    if statistics:
        found.append(_worst("running statistics after one forward", statistics, STATISTICS))
    return found


def predictions(run: Trace, module: Trace) -> Worst:
    """How far what the networks return is apart; infinitely where they return other shapes."""
    if [one.shape for one in run.predictions] != [one.shape for one in module.predictions]:
        shapes = [[one.shape for one in trace.predictions] for trace in (run, module)]
        name = f"{shapes[0]} in the run, {shapes[1]} in the module"
        return Worst("predictions", float("inf"), name, PREDICTIONS, len(run.predictions))
    apart = [distance(one, other) for one, other in zip(run.predictions, module.predictions, strict=True)]
    return Worst("predictions", max(apart), "", PREDICTIONS, sum(one.size for one in run.predictions))


def differing_settings(run: Ran, pairs: Sequence[tuple[Layer, Layer]]) -> list[str]:
    """Settings of layers that differ, a sentence each; of a batch norm's `momentum` and `eps`, of strides and so on."""
    at_rest = run.train.at_rest
    found = resting_statistics(run, pairs)
    for here, there in pairs:
        if here.kind != there.kind:
            continue
        for name, value in here.settings.items():
            other = there.settings.get(name)
            if name == "momentum" and here.arrays.get("running_mean") in at_rest:
                continue
            if name not in _SETTINGS_FROM_WEIGHTS and not _is_same(value, other):
                told = f"{name} is {_shown(other)}, and {_shown(value)} in the run's {here.described()}"
                found.append(f"{there.described()}: {told}")
    return found


def resting_statistics(run: Ran, pairs: Sequence[tuple[Layer, Layer]]) -> list[str]:
    """Batch norms whose running statistics the run's training leaves alone, and the module's does not.

    MXNet writes them in the backward pass, which a layer does not have if neither it nor any before it is trained.
    """
    at_rest = run.train.at_rest
    return [
        f"{there.described()}: momentum is {there.settings['momentum']}, but training leaves the running statistics of "
        f"the run's {here.described()} as they are, because MXNet writes them in the backward pass, and there is none "
        "where nothing is trained up to there; set momentum to 0 in the module"
        for here, there in pairs
        if here.arrays.get("running_mean") in at_rest and there.settings.get("momentum")
    ]


def differing_dropout(run: Ran, module: Ran) -> list[str]:
    """Rates of dropout that the module does not have as often as the run; a sentence or none."""
    ours, theirs = sorted(run.dropout.values()), sorted(module.dropout.values())
    if ours == theirs:
        return []
    told = [", ".join(f"{name} {rate:g}" for name, rate in one.dropout.items()) or "none" for one in (run, module)]
    return [f"dropout: the run has {told[0]}; the module has {told[1]}"]


def differing_training(run: Ran, module: Ran, mapping: ArrayMap) -> list[str]:
    """Arrays that one side trains and the other does not."""
    frozen = {layer.arrays[role] for layer in run.layers for role in layer.frozen}
    kept = {layer.arrays[role] for layer in module.layers for role in layer.frozen}
    found = []
    for target, source in mapping.sources.items():
        if "running_" in target:
            continue
        is_fixed = source.number is not None or source.array in frozen
        if is_fixed and whole(target) not in kept and target not in kept:
            what = f"{source.number:g}" if source.number is not None else source.name
            found.append(
                f"{target}: is not trained in the run ({what}), and would be in the module: set its requires_grad to "
                "False, or leave it out (affine=False)"
            )
        elif not is_fixed and whole(target) in kept:
            found.append(f"{target}: is trained in the run ({source.name}), and not in the module (requires_grad)")
    return found


def paired_by(mapping: ArrayMap, run: Sequence[Layer], module: Sequence[Layer]) -> list[tuple[Layer, Layer]]:
    """The pairs of layers that a mapping of arrays amounts to."""
    owner = {name: layer for layer in reversed(run) for name in layer.arrays.values()}
    pairs = []
    for there in module:
        for name in there.arrays.values():
            source = mapping.sources.get(name)
            layer = None if source is None else owner.get(source.name, owner.get(source.array))
            if layer is not None:
                pairs.append((layer, there))
                break
    return pairs


class First(NamedTuple):
    """The first layer at which two runs through the networks part.

    Attributes:
        here: the run's layer.
        there: the module's.
        is_input: whether it was given something else already; otherwise it makes something else of the same.
        distance: how far that is apart.
        between: the steps of the run between the last layer that agrees and this one.
        between_there: those of the module, as far as they are modules.
        last: the last layer that agrees.
    """

    here: Layer
    there: Layer
    is_input: bool
    distance: float
    between: Sequence[str]
    between_there: Sequence[str]
    last: Layer | None


def first_difference(run: Ran, module: Ran, pairs: Sequence[tuple[Layer, Layer]]) -> First | None:
    """Where predictions begin to differ, in the order in which the run calls its layers."""
    partner = {here.name: there for here, there in pairs}
    layers = {layer.name: layer for layer in run.layers}
    theirs = module.predict.first_calls()
    both = [
        (layers[name], partner[name], call, theirs[partner[name].name])
        for name, call in run.predict.first_calls().items()
        if name in partner and partner[name].name in theirs
    ]
    last: tuple[str | None, str | None] = None, None
    for here, there, one, two in both:
        # what a block with others inside gives comes after what these give
        looked_at = [(True, one.given, two.given), (False, one.gave, two.gave)]
        for is_input, ours, other in looked_at[: 1 if here.kind == OWN else 2]:
            apart = distance_in_any_layout(ours, other) if ours.size and other.size else 0.0
            if apart > _ALL_AGREE:
                steps = _between(run.predict.steps, last[0], here.name)
                steps_there = _between(module.predict.steps, last[1], there.name)
                before = None if last[0] is None else layers[last[0]]
                return First(here, there, is_input, apart, steps, steps_there, before)
        if here.kind != OWN:
            last = here.name, there.name
    for here, there, one, two in both:
        apart = distance_in_any_layout(one.gave, two.gave) if here.kind == OWN and one.gave.size else 0.0
        if apart > _ALL_AGREE and here.name:  # what the network itself gives are its predictions
            return First(here, there, False, apart, [], [], None)
    return None


def _between(steps: Sequence[str], first: str | None, last: str) -> list[str]:
    """Steps after a layer and before another; of a layer that has an activation inside, that as well.

    >>> _between(["flat (Flatten)", "0.act (relu)", "drop (Dropout)", "1.act (relu)"], "0", "1")
    ['0.act (relu)', 'drop (Dropout)']
    """
    names = [step.rpartition(" (")[0] for step in steps]
    inside = next((i for i, name in enumerate(names) if name.startswith(f"{first}.")), 0)
    begin = max((i + 1 for i, name in enumerate(names) if name == first), default=inside)
    is_last = [name == last or name.startswith(f"{last}.") for name in names]
    end = next((i for i in range(begin, len(names)) if is_last[i]), len(names))
    return list(steps[begin:end])


def _worst(what: str, apart: Mapping[str, float], threshold: float) -> Worst:
    name = max(apart, key=apart.__getitem__, default="")
    return Worst(what, apart.get(name, 0.0), name, threshold, len(apart))


def _gradients(run: Ran, module: Ran, mapping: ArrayMap, shapes: Mapping[str, Shape]) -> Iterator[tuple[str, float]]:
    ours, theirs = mapping.convert(run.train.gradients, shapes), module.train.gradients
    least = {
        name: _LEAST_PART * max(float(np.abs(theirs[whole(one)]).max()) for one in names)
        for layer in module.layers
        if (names := [one for one in layer.arrays.values() if whole(one) in theirs])
        for name in names
    }
    for target, expected in ours.items():
        source = mapping.sources[target]
        if source.number is not None or whole(target) not in theirs:
            continue
        found = rows_of(theirs, target)
        if source.repeat > 1:  # what the run trains as one number
            expected = expected[:: source.repeat]
            found = found.reshape(-1, source.repeat, *found.shape[1:]).sum(1)
        yield target, distance(expected, found, least.get(target, 0.0))


def _statistics(
    run: Trace, module: Trace, mapping: ArrayMap, shapes: Mapping[str, Shape]
) -> Iterator[tuple[str, float]]:
    converted = mapping.convert(run.statistics, shapes)
    for target, ours in converted.items():
        if target in module.statistics:
            yield target, distance(ours, module.statistics[target])


def _alike(run: Trace, module: Trace) -> bool:
    return run.losses.shape == module.losses.shape


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, float) or isinstance(other, float):
        return other is not None and abs(one - other) <= _TOLERANCE_OF_SETTINGS + 1e-6 * abs(one)
    return bool(one == other)
