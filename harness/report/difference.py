"""Where two runs begin to differ, and by what, as far as their folders tell. Reads records; writes nothing.

What a run is stands in its settings, the data, the code, the versions below and its amendments; what became of it in
learning rates, losses, evaluations and, after each epoch, the digest of all weights and optimizer state. Two runs with
the same digest are the same run up to there, whatever else differs: the number of ranks, for example.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from harness.folder import AttemptStart
from harness.named import brief
from harness.report.charts import Numbers
from harness.report.record import RunRecord, differing_settings

_WITHOUT_EFFECT = (
    *(
        "output",
        "name",
        "log",
        "checkpoint",
        "guard",
        "elastic",
        "evaluation",
        "hooks",
        "hooks_fail",
        "data.root",
        "data.prefetch",
    ),
    *("data.timeout_s", "data.workers", "data.worker_kind", "data.pictures.workers", "data.pictures.prefetch"),
)
"""Settings, by their beginning, that change no weight: what is written, when, and where data lie."""


class Difference(NamedTuple):
    """Something in which two runs differ.

    Attributes:
        what: such as `settings` or `learning rate`.
        said: of both, in words.
        iteration: the first of those that both have recorded in which they do; 0 for what holds from the beginning.
        equal_until: the last before that in which they do not; 0 if there is none.
    """

    what: str
    said: str
    iteration: int = 0
    equal_until: int = 0

    def when(self) -> str:
        """The iteration, or those between which it is."""
        if self.iteration - self.equal_until <= 1:
            return f"in iteration {self.iteration}"
        return f"between iterations {self.equal_until} and {self.iteration}"


@dataclass(frozen=True)
class Comparison:
    """Two runs beside each other.

    Attributes:
        causes: what was different from the beginning, the most likely to matter first.
        effects: in what the runs differ since when, the earliest first.
        equal: what is the same in both, in words.
        without_effect: settings that differ, but change no weight.
    """

    causes: list[Difference]
    effects: list[Difference]
    equal: list[str]
    without_effect: list[Difference]

    @property
    def is_equal(self) -> bool:
        """Whether nothing that both have recorded of their training differs."""
        return not self.effects

    def conclusion(self) -> str:
        """Where the runs part, and by what, in a sentence."""
        if self.is_equal:
            if not self.equal:
                return "the runs have recorded nothing that could be compared"
            also = f", though they differ in {_listed(self.causes)}" if self.causes else ""
            return f"the runs are the same in all that both have recorded{also}"
        first = self.effects[0]
        rates_differ = any(one.what == "learning rate" and one.iteration == first.iteration for one in self.effects)
        what = "learning rate" if rates_differ else first.what
        if self.causes:
            return f"they part {first.when()} ({what}), by {_listed(self.causes)}"
        return (
            f"they part {first.when()} ({what}), and nothing that they have recorded says why: code that a module of "
            "your own imports, a weight set by hand, another processor, another build of a library, or a hardware fault"
        )


def compare_runs(one: RunRecord, other: RunRecord) -> Comparison:
    """Compare what two folders say of their runs.

    Args:
        one: a run.
        other: the run that it is compared with.
    """
    equal: list[str] = []
    causes, without_effect = _settings(one, other)
    causes += _of_starts(one, other, equal)
    effects = [*_rates(one, other, equal), *_digests(one, other, equal), *_losses(one, other, equal)]
    effects += [*_evaluations(one, other, equal), *_events(one, other)]
    effects.sort(key=lambda difference: difference.iteration)
    return Comparison(causes, effects, equal, without_effect)


def _listed(differences: Iterable[Difference]) -> str:
    return ", ".join(dict.fromkeys(one.what for one in differences))


def _settings(one: RunRecord, other: RunRecord) -> tuple[list[Difference], list[Difference]]:
    """Settings that differ: those that may change weights, and the others."""
    causes: list[Difference] = []
    others: list[Difference] = []
    for key, (own, its) in differing_settings([one, other]).items():
        is_other = any(key == name or key.startswith(f"{name}.") for name in _WITHOUT_EFFECT)
        (others if is_other else causes).append(Difference(key, f"{brief(own)} and {brief(its)}"))
    return causes, others


def _of_starts(one: RunRecord, other: RunRecord, equal: list[str]) -> list[Difference]:
    """Data, code, versions and ranks, as the starts of both runs have recorded them."""
    found = []
    facts: dict[str, Callable[[AttemptStart], str]] = {
        "data": lambda start: start.data,
        "code": lambda start: _in_words(start.code),
        "versions": lambda start: _in_words(start.environment),
    }
    for what, of in facts.items():
        own, its = ({of(start) for start in _starts(record)} - {""} for record in (one, other))
        if own and its and own == its:
            equal.append(f"{what}: {_shortened(own, its)[0]}")
        elif own and its:
            found.append(Difference(what, " and ".join(_shortened(own, its))))
    own_ranks, its_ranks = ({start.ranks for start in _starts(record) if start.ranks} for record in (one, other))
    if own_ranks and its_ranks and own_ranks != its_ranks:
        equal.append(f"ranks ({_numbers(own_ranks)} and {_numbers(its_ranks)}) do not change a run")
    return found


def _starts(record: RunRecord) -> list[AttemptStart]:
    return [attempt.start for attempt in record.attempts]


def _numbers(values: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(values)))


def _in_words(facts: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def _shortened(own: set[str], its: set[str]) -> list[str]:
    """Facts of both in words; of lists of facts, those that differ."""
    texts = ["; ".join(sorted(one)) for one in (own, its)]
    parts = [text.split(", ") for text in texts]
    if texts[0] == texts[1] or len(parts[0]) == 1:
        return [text[:80] for text in texts]
    return [", ".join(part for part in mine if part not in theirs) or "nothing of it"
            for mine, theirs in ((parts[0], parts[1]), (parts[1], parts[0]))]  # fmt: skip


def _rates(one: RunRecord, other: RunRecord, equal: list[str]) -> list[Difference]:
    """The first iteration in which planned or applied learning rates or momenta differ."""
    planned = _first_difference(one.curve, other.curve)
    columns = [record.metrics.training for record in (one, other)]
    found = [planned]
    for name in ("lr", "momentum"):
        found.append(_first_difference(*((column["iteration"], column[name]) for column in columns)))
    first = min((one for one in found if one.at is not None), key=lambda one: one.at or 0, default=None)
    if first is None or first.at is None:
        if planned.num_common:
            equal.append(f"learning rates: equal in {planned.num_common} iterations of their plans")
        return []
    return [Difference("learning rate", first.said, first.at, first.before)]


def _losses(one: RunRecord, other: RunRecord, equal: list[str]) -> list[Difference]:
    columns = [record.metrics.training for record in (one, other)]
    found = _first_difference(*((column["iteration"], column["loss"]) for column in columns))
    if found.at is not None:
        return [Difference("training loss", found.said, found.at, found.before)]
    if found.num_common:
        equal.append(f"training losses: equal in {found.num_common} iterations, the last is {found.last}")
    return []


def _evaluations(one: RunRecord, other: RunRecord, equal: list[str]) -> list[Difference]:
    found, num_equal = [], 0
    for split, curves in one.metrics.evaluations.items():
        for name, curve in curves.items():
            its = other.metrics.evaluations.get(split, {}).get(name)
            first = None if its is None else _first_difference(curve, its)
            if first is not None and first.at is not None:
                found.append(Difference(f"{name} on {split}", first.said, first.at, first.before))
            elif first is not None:
                num_equal += first.num_common
    if num_equal and not found:
        equal.append(f"evaluations: {num_equal} equal values")
    return found


def _events(one: RunRecord, other: RunRecord) -> list[Difference]:
    """The first update that one run left out, replaced samples in, or rewound at, and the other did not."""
    until = min(one.metrics.last_iteration, other.metrics.last_iteration)
    own, its = (
        {(line.iteration, line.split) for line in record.metrics.events if line.split != "input"}
        for record in (one, other)
    )
    alone = sorted(event for event in own ^ its if event[0] <= until)
    if not alone:
        return []
    iteration, split = alone[0]
    whose = one if (iteration, split) in own else other
    return [Difference(split, f"in {whose.folder} alone", iteration, iteration - 1)]


def _digests(one: RunRecord, other: RunRecord, equal: list[str]) -> list[Difference]:
    """Digests after the same iterations: the last that are equal, and the first that are not."""
    own, its = one.metrics.digests, other.metrics.digests
    common = sorted(own.keys() & its.keys())
    wrong = [t for t in common if own[t] != its[t]]
    before = [t for t in common if not wrong or t < wrong[0]]
    if before:
        equal.append(f"weights and optimizer state: equal after iteration {before[-1]}, digest {own[before[-1]][:16]}")
    if not wrong:
        return []
    t = wrong[0]
    return [
        Difference(
            "weights and optimizer state", f"digest {own[t][:16]} and {its[t][:16]}", t, before[-1] if before else 0
        )
    ]


class _Found(NamedTuple):
    """The first difference of two curves.

    Attributes:
        at: the iteration; `None` if they have none in common.
        said: both values.
        before: the last iteration before it that both have; 0 if there is none.
        num_common: iterations that both have.
        last: of those.
    """

    at: int | None
    said: str
    before: int
    num_common: int
    last: int


def _first_difference(own: Sequence[Numbers], its: Sequence[Numbers]) -> _Found:
    """Compare two curves, iterations and values, in the iterations that both have, to the last bit."""
    common, in_own, in_its = np.intersect1d(own[0], its[0], return_indices=True)
    ours, theirs = own[1][in_own], its[1][in_its]
    wrong = np.flatnonzero((ours != theirs) & ~(np.isnan(ours) & np.isnan(theirs)))
    num_common, last = len(common), int(common[-1]) if common.size else 0
    if not wrong.size:
        return _Found(None, "", 0, num_common, last)
    at = wrong[0]
    said = f"{float(ours[at])!r} and {float(theirs[at])!r}"
    return _Found(int(common[at]), said, int(common[at - 1]) if at else 0, num_common, last)
