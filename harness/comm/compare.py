"""Finds the facts that differ between ranks, and says which ranks have which value. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

Facts: TypeAlias = Mapping[str, object]  # by their names in messages; plain data that JSON can hold

_MOST = 12


class _Missing:
    def __repr__(self) -> str:
        return "nothing"


_MISSING = _Missing()


def differences(everyone: Sequence[Facts]) -> list[str]:
    """Every place at which the ranks' facts differ, a sentence each, with the ranks and their values.

    Args:
        everyone: what each rank has, in the order of ranks; mappings and lists are compared inside. Values are equal
            where JSON writes the same text: 1 differs from true and from 1.0, and NaN equals NaN.

    >>> differences([{"seed": 0}, {"seed": 1}, {"seed": 0}])
    ['seed: 0 on ranks 0, 2; 1 on rank 1']
    """
    found = list(_walk("", everyone))
    return [*found[:_MOST], f"and {len(found) - _MOST} more"] if len(found) > _MOST else found


def _walk(place: str, values: Sequence[Any]) -> Iterator[str]:
    if all(isinstance(value, Mapping) for value in values):
        for key in dict.fromkeys(key for value in values for key in value):
            yield from _walk(f"{place}.{key}" if place else str(key), [value.get(key, _MISSING) for value in values])
    elif all(isinstance(value, list | tuple) for value in values) and len(set(map(len, values))) == 1:
        for index in range(len(values[0])):
            yield from _walk(f"{place}[{index}]", [value[index] for value in values])
    else:
        ranks: dict[str, list[int]] = {}
        for rank, value in enumerate(values):
            ranks.setdefault(_text(value), []).append(rank)
        if len(ranks) > 1:
            own = [values[of[0]] for of in ranks.values()]
            yield f"{place}: " + "; ".join(
                f"{shown} on {name_ranks(of)}"
                for shown, of in zip(_show(own, list(ranks)), ranks.values(), strict=True)
            )


def name_ranks(ranks: Sequence[int]) -> str:
    """`rank 1`, or `ranks 0, 2, 3`."""
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"


def _text(value: object) -> str:
    """A text that is equal for equal values alone: JSON's, in which 1, true, 1.0 and "1" differ, and NaN does not."""
    return repr(value) if isinstance(value, _Missing) else json.dumps(value, sort_keys=True, default=repr)


def _show(values: Sequence[object], texts: Sequence[str]) -> list[str]:
    """Different values for a message: as Python shows them, or as JSON does where that shows a difference."""
    plain = [str(value) for value in values]
    shown = plain if len(set(plain)) == len(plain) else list(texts)
    columns = enumerate(zip(*shown, strict=False))
    same = next((place for place, letters in columns if len(set(letters)) > 1), min(map(len, shown)))
    begin = same - 20 if same > 60 else 0  # long values that differ late: from shortly before that
    return [_cut(f"...{text[begin:]}" if begin else text) for text in shown]


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
