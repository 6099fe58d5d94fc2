"""Factors of single parameters, by patterns of their names: learning rates by depth, and all factors in words. Pure.

Rates that fall from the output to the input are those of J. Howard and S. Ruder, Universal Language Model Fine-tuning
for Text Classification, 2018 (arXiv 1801.06146, section 3.2); one factor from each layer to the next, counted from the
output, is how K. Clark et al., ELECTRA, 2020 (arXiv 2003.10555, appendix A), and H. Bao et al., BEiT, 2021 (arXiv
2106.08254) fine-tune.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence

from harness.config.sections import OptimizerConfig
from harness.config.values import LAYER_NUMBER
from harness.errors import ConfigError
from harness.named import did_you_mean

Patterns = Sequence[str | Sequence[str]]

_KEY = "optimizer.layer_decay.layers"
_MARK = "\ue000"  # stands for a number while a pattern is translated; no name has it


def layer_factors(rate: float, layers: Patterns, names: Sequence[str], frozen: Sequence[str] = ()) -> dict[str, float]:
    """The factor of each trainable parameter: `rate ** (n - k)` in layer k of n, counted from 0, and 1 in none.

    Args:
        rate: the factor from a layer to the one below it, above 0 and below 1.
        layers: patterns (as in a shell) from the input to the output, or lists of those of one layer. A pattern with
            numbers (`cells.#.*`) is a layer for each that is found, in ascending order.
        names: structural names of the trainable parameters.
        frozen: those of others, which count as layers.

    Raises:
        ConfigError: for a pattern that matches nothing, a parameter in two layers, or nothing above the last layer.

    >>> layer_factors(0.5, ["embed.*", "cells.#.*"], ["embed.w", "cells.0.w", "cells.1.w", "head.w"])
    {'embed.w': 0.125, 'cells.0.w': 0.25, 'cells.1.w': 0.5, 'head.w': 1.0}
    """
    depths = _depths(layers, [*names, *frozen])
    if all(name in depths for name in names):
        raise ConfigError(
            f"{_KEY}: every parameter is in a layer, so none has the learning rate itself; leave out the last layer "
            f"({', '.join(_listed(layers[-1]))}), which then has the factor 1"
        )
    num_layers = max(depths.values()) + 1
    return {name: rate ** (num_layers - depths[name]) if name in depths else 1.0 for name in names}


def describe_factors(section: OptimizerConfig) -> list[str]:
    """What a configuration says of single parameters, a line each; nothing if it treats all alike."""
    lines = []
    if section.lr_mult:
        lines.append(f"learning rate by name: {_by_name(section.lr_mult)}")
    if section.layer_decay is not None:
        rate, layers = section.layer_decay.rate, section.layer_decay.layers
        shown = [" and ".join(_listed(item)) for item in layers]
        if any(LAYER_NUMBER in pattern for pattern in shown):
            each = [
                f"{one} (a layer for each {LAYER_NUMBER})" if LAYER_NUMBER in one else one for one in reversed(shown)
            ]
            text = f"x {rate:g} more with every layer from the output to the input: {', '.join(each)}"
        else:
            text = ", ".join(f"x {rate ** (len(shown) - k):.4g} for {one}" for k, one in enumerate(shown))
        lines.append(f"learning rate by layer: {text}; x 1 for all others")
    if section.wd_mult:
        lines.append(f"weight decay by name: {_by_name(section.wd_mult)}")
    return lines


def _by_name(factors: Mapping[str, float]) -> str:
    return ", ".join(f"x {factor:g} for {pattern}" for pattern, factor in factors.items())


def _depths(layers: Patterns, names: Sequence[str]) -> dict[str, int]:
    """In which layer each name is, counted from the input; names in none are left out."""
    found: dict[str, tuple[tuple[int, ...], str]] = {}  # the place of its layer, and the pattern
    for position, item in enumerate(layers):
        for pattern in _listed(item):
            matching = list(_matches(pattern, names))
            for name, numbers in matching:
                place = (position, *numbers)
                if found.get(name, (place, pattern))[0] != place:
                    raise ConfigError(
                        f"{_KEY}: {name} is in two layers, by {found[name][1]!r} and by {pattern!r}; a parameter has "
                        "one depth, so narrow one of the patterns"
                    )
                found.setdefault(name, (place, pattern))
            if not matching:
                raise ConfigError(
                    f"{_KEY}: the pattern {pattern!r} (as in a shell; {LAYER_NUMBER} is a number) matches no "
                    f"parameter; {did_you_mean(pattern, names)}the parameters are {', '.join(names)}"
                )
    places = sorted({place for place, _ in found.values()})
    depth = {place: k for k, place in enumerate(places)}
    return {name: depth[place] for name, (place, _) in found.items()}


def _matches(pattern: str, names: Sequence[str]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The names that a pattern matches, each with the numbers in it; a number is matched as a whole."""
    translated = fnmatch.translate(pattern.replace(LAYER_NUMBER, _MARK))
    compiled = re.compile(translated.replace(_MARK, r"(?<!\d)(\d+)(?!\d)"))
    for name in names:
        match = compiled.match(name)
        if match is not None:
            yield name, tuple(map(int, match.groups()))


def _listed(item: str | Sequence[str]) -> Sequence[str]:
    return [item] if isinstance(item, str) else item
