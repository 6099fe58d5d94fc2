"""Which array of a file is which parameter of a network, and what a run takes of it. Pure: names, shapes and dtypes.

A file names arrays structurally (`features.0.weight`, as `net.save_parameters` and checkpoints do), or by the
parameters' own names (`conv0_weight`, as Module and `net.export` do), which count the layers that a process has made:
the same network made second begins at `conv2`. One way of naming is taken for the whole file: the first of `WAYS` by
which all names pair up, else the one by which most do.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from harness.errors import CheckpointError, listed

Form = tuple[str, tuple[int, ...]]  # dtype and shape
_Token = tuple[str, int]
_COUNTED = re.compile(r"(.*?)(\d+)")
_SHOWN = 20  # names of a kind that a message lists


class Target(NamedTuple):
    """A parameter of the network.

    Attributes:
        full_name: its own, such as `conv0_weight`.
        form: dtype and shape.
    """

    full_name: str
    form: Form


@dataclass(frozen=True)
class Matched:
    """What becomes of every parameter of a network and every array of a file.

    Attributes:
        way: by which names were paired, in words.
        taken: name in the file by parameter.
        fresh: why a parameter is not in the file, or does not fit, by parameter.
        left: names of the file that are no parameter's.
        other_outputs: the layer of which the number of outputs differs; `None` unless nothing else does.
    """

    way: str
    taken: dict[str, str]
    fresh: dict[str, str]
    left: list[str]
    other_outputs: str | None

    @property
    def fits(self) -> bool:
        """Whether every parameter has its array, and every array its parameter."""
        return not self.fresh and not self.left

    def to_json(self) -> dict[str, Any]:
        """As manifests hold it."""
        return {"way": self.way, "taken": self.taken, "fresh": self.fresh, "left": self.left}

    def table(self, source: str) -> list[str]:
        """A few lines: what was taken, what is fresh, what was left, by name."""
        taken = [name if name == theirs else f"{name} ({theirs})" for name, theirs in self.taken.items()]
        fresh = [f"{name}: {reason}" for name, reason in self.fresh.items()]
        lines = [f"init.from: {source}, by {self.way}: {len(taken)} taken, {len(fresh)} fresh, {len(self.left)} left"]
        for title, names in (("taken", taken), ("fresh", fresh), ("left", self.left)):
            lines += [f"  {title}  {name}" for name in names[:_SHOWN]]
            more = len(names) - _SHOWN
            lines += [f"  {title}  and {more:,} more; all are named in every manifest.json (init)"] if more > 0 else []
        return lines


def match(targets: Mapping[str, Target], found: Mapping[str, Form]) -> Matched:
    """Pair the parameters of a network with the arrays of a file.

    Args:
        targets: the parameters by structural name.
        found: dtype and shape of the file's arrays by name.
    """
    pairings = {way: pair(targets, found) for way, pair in WAYS.items()}
    everything = len(targets) == len(found)

    def quality(way: str) -> tuple[bool, int, int]:
        pairs = pairings[way]
        return (
            everything and len(pairs) == len(targets),
            sum(targets[ours].form == found[theirs] for ours, theirs in pairs.items()),
            len(pairs),
        )

    way = max(WAYS, key=quality)  # of equals the first
    pairs = pairings[way]
    taken = {ours: theirs for ours, theirs in pairs.items() if targets[ours].form == found[theirs]}
    fresh = {
        name: f"is {_words(found[pairs[name]])}, expected {_words(target.form)}" if name in pairs else "is missing"
        for name, target in targets.items()
        if name not in taken
    }
    used = set(pairs.values())
    left = [name for name in found if name not in used]
    complete = everything and len(pairs) == len(targets)
    other = _other_outputs({name: (targets[name].form, found[pairs[name]]) for name in fresh}) if complete else None
    return Matched(way, taken, fresh, left, other)


def accept(matched: Matched, policy: str, source: str) -> None:
    """Decide whether what fits is enough.

    Args:
        matched: what fits.
        policy: `all`: everything has to; `head`: everything but the number of outputs of one layer; `shapes`: anything.
        source: the file, for messages.

    Raises:
        CheckpointError: naming what does not fit.
    """
    if matched.fits or (policy == "head" and matched.other_outputs is not None):
        return
    problems = [f"{name} {reason}" for name, reason in matched.fresh.items()]
    problems += [f"{name} is not expected" for name in matched.left]
    if policy != "shapes":
        way_out = (
            "everything has to fit where weights are evaluated or loaded with init.match=all"
            if policy == "all"
            else "only the number of outputs of one layer may differ"
        )
        raise CheckpointError(
            f"{source} does not fit the network (names compared: {matched.way}; {way_out}):{listed(problems)}\n"
            "to train from what fits, with the rest fresh from the initializer: --set init.match=shapes"
        )
    if not matched.taken:
        raise CheckpointError(f"{source}: nothing in it fits the network by name and shape:{listed(problems)}")


def without_kinds(names: Iterable[str]) -> dict[str, str]:
    """Each name of a file by what it is without `arg:` and `aux:`, which Module and `net.export` put in front.

    Raises:
        CheckpointError: if two are the same then.
    """
    plain: dict[str, str] = {}
    for name in names:
        bare = name.partition(":")[2] if name.startswith(("arg:", "aux:")) else name
        if bare in plain:
            raise CheckpointError(f"{bare} appears twice, as {plain[bare]} and {name}")
        plain[bare] = name
    return plain


def _structural(targets: Mapping[str, Target], found: Mapping[str, Form]) -> dict[str, str]:
    return {name: name for name in targets if name in found}


def _by_full_name(targets: Mapping[str, Target], found: Mapping[str, Form]) -> dict[str, str]:
    return {name: target.full_name for name, target in targets.items() if target.full_name in found}


def _counted_anew(targets: Mapping[str, Target], found: Mapping[str, Form]) -> dict[str, str]:
    """By full names whose counters begin at 0 within what they count; where both sides count as many."""
    ours, our_counts = _count_anew([target.full_name for target in targets.values()])
    theirs, their_counts = _count_anew(list(found))
    uneven = {group for group in our_counts.keys() | their_counts.keys() if our_counts[group] != their_counts[group]}
    by_path = {path: name for name, path in theirs.items()}
    if len(by_path) < len(theirs) or len(set(ours.values())) < len(ours):
        return {}
    pairs = {}
    for name, target in targets.items():
        path = ours[target.full_name]
        groups = {(path[:depth], path[depth][0]) for depth in range(len(path))}
        if path in by_path and not groups & uneven:
            pairs[name] = by_path[path]
    return pairs


def _count_anew(names: list[str]) -> tuple[dict[str, tuple[_Token, ...]], Counter[tuple[tuple[_Token, ...], str]]]:
    """The path of each name with its counters as ranks, and how many are counted in each place."""
    tokens = {name: name.split("_") for name in names}
    while len({words[0] for words in tokens.values()}) == 1 and all(len(words) > 1 for words in tokens.values()):
        tokens = {name: words[1:] for name, words in tokens.items()}  # the network's own name
    numbers: dict[tuple[tuple[str, ...], str], set[int]] = {}
    for words in tokens.values():
        for depth, word in enumerate(words):
            counted = _COUNTED.fullmatch(word)
            if counted:
                numbers.setdefault((tuple(words[:depth]), counted[1]), set()).add(int(counted[2][:18]))
    ranks = {group: {number: rank for rank, number in enumerate(sorted(met))} for group, met in numbers.items()}
    paths: dict[str, tuple[_Token, ...]] = {}
    counts: Counter[tuple[tuple[_Token, ...], str]] = Counter()
    for name, words in tokens.items():
        path: list[_Token] = []
        for depth, word in enumerate(words):
            counted = _COUNTED.fullmatch(word)
            if counted:
                group = ranks[tuple(words[:depth]), counted[1]]
                counts[tuple(path), counted[1]] = len(group)
                path.append((counted[1], group[int(counted[2][:18])]))
            else:
                path.append((word, -1))
        paths[name] = tuple(path)
    return paths, counts


def _below(targets: Mapping[str, Target], found: Mapping[str, Form]) -> dict[str, str]:
    """By structural names of which one side is a part of the other: a backbone's in a whole network, or the reverse."""
    ours = _under_one_prefix(targets, found)
    if ours is not None:
        return {f"{ours}.{name}": name for name in found if f"{ours}.{name}" in targets}
    theirs = _under_one_prefix(found, targets)
    return {} if theirs is None else {name: f"{theirs}.{name}" for name in targets if f"{theirs}.{name}" in found}


def _under_one_prefix(longer: Iterable[str], shorter: Mapping[str, Any]) -> str | None:
    """The prefix under which most names of one side stand on the other; `None` where there is none, or not one."""
    prefixes: Counter[str] = Counter()
    for name in longer:
        parts = name.split(".")
        for depth in range(1, len(parts)):
            if ".".join(parts[depth:]) in shorter:
                prefixes[".".join(parts[:depth])] += 1
    best = prefixes.most_common(2)
    return None if not best or (len(best) > 1 and best[0][1] == best[1][1]) else best[0][0]


WAYS: dict[str, Callable[[Mapping[str, Target], Mapping[str, Form]], dict[str, str]]] = {
    "structural names": _structural,
    "full names": _by_full_name,
    "full names with layers counted anew": _counted_anew,
    "structural names under a prefix": _below,
}


def _other_outputs(differing: Mapping[str, tuple[Form, Form]]) -> str | None:
    """The one layer whose parameters differ in their first axis alone, all from one length to one other."""
    layers, lengths = set(), set()
    for name, ((dtype, shape), (other_dtype, other)) in differing.items():
        layers.add(name.rpartition("." if "." in name else "_")[0])
        if dtype != other_dtype or len(shape) != len(other) or not shape or shape[1:] != other[1:]:
            return None
        lengths.add((shape[0], other[0]))
    return next(iter(layers)) if len(layers) == len(lengths) == 1 else None


def _words(form: Form) -> str:
    return f"{form[0]} {form[1]}"
