"""What a network tells of its layers and of one run through them, in the same words on both sides. Pure.

The words are those of PyTorch: a batch norm has `weight`, `bias`, `running_mean` and `running_var`, whatever Gluon
calls them, and its `momentum` is the weight of the new value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

NOTHING: Array = np.zeros(0)
DENSE = "dense"
OWN = "own parameters"
"""The kind of a block that is none of the known ones; its arrays are `0`, `1` and so on, in the order it made them."""


@dataclass(frozen=True)
class Layer:
    """A block that has arrays of its own.

    Attributes:
        name: structural, such as `features.0`; the network itself is empty.
        kind: such as `dense`, `conv`, `batch norm`, `lstm`.
        arrays: the names of its arrays by what they are (`weight`, `bias`, `weight_ih_l0`); of two layers that share
            one both have the name that it has in the first. A part of an array is `name[0:64]`, some rows of it.
        shapes: of these, as they are in PyTorch.
        settings: what else decides what it computes: `eps`, `stride`, `groups`.
        constants: arrays that are not trained, and of which every number is this one.
        frozen: arrays that are not trained.
        own_class: the class of a block that is none of the known ones.
    """

    name: str
    kind: str
    arrays: Mapping[str, str]
    shapes: Mapping[str, Shape]
    settings: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, float] = field(default_factory=dict)
    frozen: frozenset[str] = frozenset()
    own_class: str = ""

    @property
    def signature(self) -> tuple[str, tuple[Shape, ...]]:
        """What two layers have in common between which one could be mistaken for the other.

        A convolution with a kernel of 1 is a dense layer. A bias that one side lacks, or the scale of a norm, is found
        later, and by name.
        """
        if self.kind == "group norm":
            return self.kind, ((self.settings["num_groups"],),)
        if self.kind.endswith(" norm"):
            return self.kind, (max(self.shapes.values()),)
        kind, weights = self.kind, [self.shapes[role] for role in sorted(self.shapes) if is_main(role)]
        if kind in ("conv", DENSE) and not self.settings.get("is_grouped"):
            weights = [squeezed(shape) for shape in weights]
            kind = DENSE if all(len(shape) <= 2 for shape in weights) else kind
        return kind, tuple(weights)

    @property
    def is_neutral(self) -> bool:
        """Whether all its arrays are numbers that change nothing: scales of 1 and offsets of 0 that are not trained."""
        return all(is_neutral(role, self.constants.get(role)) for role in self.arrays)

    def described(self) -> str:
        """Its name and kind, for messages."""
        return f"{self.name or 'the network itself'} ({self.own_class or self.kind})"


class Call(NamedTuple):
    """One use of a layer.

    Attributes:
        layer: its name.
        given: what it was called with, the first array.
        gave: what it returned, the first array, before an activation that belongs to it.
    """

    layer: str
    given: Array
    gave: Array


@dataclass(frozen=True)
class Trace:
    """One run of some samples through a network.

    Attributes:
        calls: of layers with arrays, in the order in which they were called.
        steps: every block without children that was called, in order, with its name: layers, activations, pooling.
        predictions: the arrays that the network returned.
        losses: one a sample.
        loss: their mean; of a loss with weights the sum of its numerators divided by the sum of its weights.
        gradients: of `loss`, by the name of the array; empty in predict mode.
        statistics: running statistics after the run, by the name of the array; empty in predict mode.
        at_rest: those that the run has left as they were.
    """

    calls: Sequence[Call]
    steps: Sequence[str]
    predictions: Sequence[Array]
    losses: Array
    loss: float
    gradients: Mapping[str, Array] = field(default_factory=dict)
    statistics: Mapping[str, Array] = field(default_factory=dict)
    at_rest: frozenset[str] = frozenset()

    def first_calls(self) -> dict[str, Call]:
        """The first call of each layer, in the order of these."""
        found: dict[str, Call] = {}
        for call in self.calls:
            found.setdefault(call.layer, call)
        return found


class Recorder:
    """Collects calls of layers, which may be inside each other, and the steps between them.

    Attributes:
        calls: in the order in which they began.
        steps: in order.
    """

    def __init__(self) -> None:
        """Nothing has been called yet."""
        self.calls: list[Call] = []
        self.steps: list[str] = []
        self._under_way: list[int] = []

    def begin(self, layer: str, given: Array) -> None:
        """A layer is called."""
        self._under_way.append(len(self.calls))
        self.calls.append(Call(layer, given, NOTHING))

    def before_activation(self, gave: Array) -> None:
        """The layer that was called last gives this to an activation that belongs to it."""
        place = self._under_way[-1]
        self.calls[place] = self.calls[place]._replace(gave=gave)

    def end(self, gave: Array) -> None:
        """The layer that was called last returns."""
        place = self._under_way.pop()
        if self.calls[place].gave is NOTHING:
            self.calls[place] = self.calls[place]._replace(gave=gave)


def is_main(role: str) -> bool:
    """Whether an array decides what a layer is: not a bias, which may be absent, nor what accompanies a weight."""
    return not role.startswith(("bias", "running_")) or role.isdigit()


def is_neutral(role: str, value: float | None) -> bool:
    """Whether an array of this number changes nothing: a scale of 1, an offset of 0."""
    return value == (1.0 if is_main(role) else 0.0)


def squeezed(shape: Sequence[int]) -> Shape:
    """A shape without the lengths of 1 behind its second.

    >>> squeezed((10, 64, 1, 1)), squeezed((1, 5, 1))
    ((10, 64), (1, 5))
    """
    return (*shape[:2], *(length for length in shape[2:] if length != 1))


def distance(one: Array, other: Array, least: float = 0.0) -> float:
    """The largest difference of two arrays of one shape as a part of the largest number in either; 0 for two of zeros.

    One number for an array, because rounding in a sum is as large as its terms, not as large as the sum: an element
    near 0 has no small error of its own.

    >>> distance(np.array([1.0, 0.0]), np.array([1.0, 0.01]))
    0.01

    Args:
        one: an array.
        other: of the same shape.
        least: what the largest number counts for at least; for arrays that would be 0 but for rounding.
    """
    if not one.size:
        return 0.0
    one, other = one.astype(np.float64), other.astype(np.float64)
    largest = max(float(np.abs(one).max()), float(np.abs(other).max()), least)
    found = float(np.abs(one - other).max())
    if not np.isfinite(found):
        return float("inf")
    return found / largest if largest else 0.0


def distance_in_any_layout(one: Array, other: Array) -> float:
    """The smallest distance over the layouts in which either side may keep the same numbers.

    Channels first or last, time before or behind samples, positions in one axis with the samples or in one of their
    own; infinite where no layout fits.
    """
    best = float("inf")
    for candidate in _layouts(one):
        if candidate.size == other.size and squeezed_all(candidate.shape) == squeezed_all(other.shape):
            best = min(best, distance(candidate.reshape(other.shape), other))
        elif candidate.size == other.size and candidate.shape[-1:] == other.shape[-1:]:
            best = min(best, distance(candidate.reshape(-1), other.reshape(-1)))
    return best


def squeezed_all(shape: Sequence[int]) -> Shape:
    """A shape without any lengths of 1."""
    return tuple(length for length in shape if length != 1)


def _layouts(array: Array) -> list[Array]:
    found = [array]
    if array.ndim >= 3:
        found += [array.swapaxes(0, 1), np.moveaxis(array, -1, 1), np.moveaxis(array, 1, -1)]
    if array.ndim >= 2:
        found.append(array.reshape(len(array), -1))
    return found


def mean_of(losses: Any) -> tuple[Any, Any]:
    """The losses of samples and their mean; of a loss with weights its numerators, and the weighted mean.

    Args:
        losses: an array of either framework, or two of them.
    """
    if isinstance(losses, tuple | list):
        numerators, weights = losses
        return numerators, numerators.sum() / weights.sum()
    return losses, losses.mean()
