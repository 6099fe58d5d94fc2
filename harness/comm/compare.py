"""Finds the facts that differ between ranks, and says which ranks have which value. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

Facts: TypeAlias = Mapping[str, object]  # by their names in messages; plain data that JSON can hold

_MOST = 12
_MISSING = "nothing"


def differences(everyone: Sequence[Facts]) -> list[str]:
    """Every place at which the ranks' facts differ, a sentence each, with the ranks and their values.

    Args:
        everyone: what each rank has, in the order of ranks; mappings and lists are compared inside.

    >>> differences([{"seed": 0}, {"seed": 1}, {"seed": 0}])
    ['seed: 0 on ranks 0, 2; 1 on rank 1']
    """
    found = list(_walk("", everyone))
    return [*found[:_MOST], f"and {len(found) - _MOST} more"] if len(found) > _MOST else found


def _walk(place: str, values: Sequence[Any]) -> Iterator[str]:
    if all(value == values[0] and type(value) is type(values[0]) for value in values):
        return
    if all(isinstance(value, dict) for value in values):
        for key in dict.fromkeys(key for value in values for key in value):
            yield from _walk(f"{place}.{key}" if place else key, [value.get(key, _MISSING) for value in values])
    elif all(isinstance(value, list) for value in values) and len(set(map(len, values))) == 1:
        for index in range(len(values[0])):
            yield from _walk(f"{place}[{index}]", [value[index] for value in values])
    else:
        ranks: dict[str, list[int]] = {}
        for rank, value in enumerate(values):
            ranks.setdefault(_show(value), []).append(rank)
        yield f"{place}: " + "; ".join(f"{shown} on {name_ranks(of)}" for shown, of in ranks.items())


def name_ranks(ranks: Sequence[int]) -> str:
    """`rank 1`, or `ranks 0, 2, 3`."""
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"


def _show(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
