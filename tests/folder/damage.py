"""Ways in which a file gets damaged: a byte, or a value of its JSON; each drawn from a seeded generator."""

from __future__ import annotations

import copy
import json
import random

DEEP = "[" * 100_000 + "]" * 100_000
HUGE = (
    10**400,
    -1,
    -(10**400),
    1e308,
    2**63,
    0,
    "x" * 1_000_000,
    "\x1b[2J\u202e</script><script>alert(1)</script>",
    float("nan"),
    "\ud800",
)
PLACES = "PLACE-OF-A-DAMAGE"


def change_byte(data: bytes, draw: random.Random) -> bytes:
    """One byte is another one, is missing, or is there once more."""
    at = draw.randrange(len(data))
    other = bytes([draw.choice([draw.randrange(256), data[at] ^ (1 << draw.randrange(8))])])
    return data[:at] + draw.choice([other, other, other, b"", data[at : at + 1] * 2]) + data[at + 1 :]


def places_of(value, path=()):
    """The path of every value in plain data."""
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places_of(inner, (*path, key))


def change_value(content, draw: random.Random):
    """Damage one value.

    Returns:
        JSON text, the kind of the damage, and the path of the value.
    """
    path = draw.choice([path for path in places_of(content) if path])
    kind = draw.choice(["deleted", "retyped", "nested", "deep", "huge", "twice"])
    content = copy.deepcopy(content)
    around = content
    for key in path[:-1]:
        around = around[key]
    key, value = path[-1], around[path[-1]]
    if kind == "twice" and isinstance(around, list):
        kind = "nested"
    if kind == "deleted":
        del around[key]
    elif kind == "retyped":
        around[key] = draw.choice(
            [other for other in ("text", 1.5, True, None, [], {}) if type(other) is not type(value)]
        )
    elif kind == "nested":
        around[key] = draw.choice([[value], {"inner": value}, [[[[value]]]]])
    elif kind == "huge":
        around[key] = draw.choice(HUGE)
    elif kind == "deep":
        around[key] = PLACES
    elif kind == "twice":
        text = json.dumps(content)
        name = json.dumps(key)
        return text.replace(f"{name}:", f"{name}: null, {name}:", 1), kind, path
    return json.dumps(content).replace(f'"{PLACES}"', DEEP), kind, path
