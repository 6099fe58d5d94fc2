"""The whole of `verify`: settings, predictions, losses, gradients, statistics, and what is wrong by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from harness.bridge.diagnosis import diagnose
from harness.bridge.layers import distance
from harness.bridge.mapping import ArrayMap
from harness.bridge.sides import Sides
from harness.bridge.verify import (
    LOSSES,
    Ran,
    Worst,
    compare,
    differing_dropout,
    differing_settings,
    differing_training,
    paired_by,
)

_DRAWS = (
    "draws random numbers in training that no layer of dropout explains, so losses and gradients cannot be compared; "
    "switch them off (network.params)"
)


class Verified(NamedTuple):
    """What was found.

    Attributes:
        compared: the largest difference of each kind.
        differences: what is wrong, a sentence each; empty where both are the same network.
        remarks: what is not wrong, and to be known.
    """

    compared: Sequence[Worst]
    differences: Sequence[str]
    remarks: Sequence[str]


def verified(sides: Sides, mapping: ArrayMap) -> Verified:
    """Compare two networks.

    Raises:
        ConfigError: if an array of the mapping does not have the shape that is wanted.
    """
    problems = mapping.problems(sides.run_shapes, sides.module_shapes)
    if problems:
        return Verified([], problems, [])
    sides.switch_off_dropout()
    run, module = sides.run(mapping)
    pairs = paired_by(mapping, run.layers, module.layers)
    settings = [
        *differing_settings(run, pairs),
        *differing_dropout(run, module),
        *differing_training(run, module, mapping),
    ]
    compared = compare(run, module, mapping, sides.module_shapes)
    differences, remarks = list(settings), _remarks(run, module)
    wrong = [worst for worst in compared if not worst.agrees]
    if wrong and compared[0] not in wrong:
        noisy = _draws(sides, mapping, run, module)
        if noisy:
            return Verified(compared[:1], [*settings, *noisy], remarks)
    if compared[0] in wrong:
        differences += diagnose(run, module, pairs, mapping, sides.distance, compared[0].distance)
    differences += [str(worst) for worst in wrong]
    return Verified(compared, differences, remarks)


def _draws(sides: Sides, mapping: ArrayMap, run: Ran, module: Ran) -> list[str]:
    """Whether a side gives another loss for the same samples when it is run again."""
    again = sides.run(mapping)
    found = []
    for who, one, two in (("the run's network", run, again[0]), ("the module", module, again[1])):
        if distance(one.train.losses, two.train.losses) > LOSSES:
            found.append(f"{who} {_DRAWS}")
    return found


def _remarks(run: Ran, module: Ran) -> list[str]:
    found = []
    if run.dropout or module.dropout:
        found.append("dropout was switched off on both sides for losses and gradients")
    if run.dtype == "float32":
        found.append(
            "losses and gradients are of float32, because MXNet has some operator of the network in no other type"
        )
    return found
