"""A finding as a file, typed on both ends, and what becomes of it in a plan."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.config import RunConfig
from harness.errors import ConfigError, NoUsableLRError
from harness.finder.runner import FinderSettings, Finding
from harness.finder.suggestion import Point, Refusal, Suggestion
from harness.finder.sweep import StopRule, Sweep
from harness.folder import MB, Fields, RecordError, described, number, plain, read_object, seen

FORMAT = 1
_MOST_BYTES = 8 * MB  # more than 100,000 iterations
_MOST_RULES = 50
_SMALLEST_LR, _LARGEST_LR = 1e-45, 3.5e38  # of a float32
_KIND = "learning-rate finder"


def settings_of(config: RunConfig, *, middle: bool) -> FinderSettings:
    """The finder's settings, with defaults written out.

    Args:
        config: whose section `finder` is read.
        middle: whether the learner has been trained already, where the first loss says little: the limit is then taken
            from probes.

    Raises:
        ConfigError: naming the setting that makes no sense.
    """
    section = config.finder
    multiplier = section.lr_multiplier
    if multiplier is None and section.num_iterations is None:
        multiplier = 1.1
    try:
        sweep = Sweep(
            lr_start=section.lr_start,
            lr_end=section.lr_end,
            lr_multiplier=multiplier,
            num_iterations=section.num_iterations,
            spacing=section.spacing,
            max_iterations=section.max_iterations,
        )
        rule = StopRule(smoothing=section.smoothing, min_iter=section.min_iter, growth=section.growth)
    except ValueError as error:
        raise ConfigError(f"finder.{error}").found_in(config.source) from None
    defaults = FinderSettings()
    probes = section.probes if section.probes is not None else 8 if middle else 0
    return FinderSettings(sweep, rule, probes, section.repeats, section.rule or defaults.rule)


@dataclass(frozen=True)
class SweepRecord:
    """One sweep.

    Attributes:
        stop: why it ended, in words.
        limit: what the running mean of the loss might not exceed; `None` where it was not finite.
        probes: the losses before it.
        points: learning rate and loss of each iteration; NaN for a loss that was not finite.
    """

    stop: str
    limit: float | None
    probes: Sequence[float]
    points: Sequence[Point]

    def to_json(self) -> dict[str, Any]:
        """As the file holds it."""
        points = [[point.lr, _number(point.loss)] for point in self.points]
        return {"stop": self.stop, "limit": self.limit, "probes": list(self.probes), "points": points}

    @classmethod
    def read(cls, fields: Fields) -> SweepRecord:
        """From the file.

        Raises:
            RecordError: naming the field that is missing, of another kind or impossible.
        """
        points: list[Point] = []
        place = fields.place("points")
        for k, pair in enumerate(fields.items("points")):
            if not isinstance(pair, list) or len(pair) != 2:
                raise RecordError(f"{place}[{k}] is not a learning rate and a loss")
            lr = number(pair[0], f"{place}[{k}][0]", points[-1].lr if points else _SMALLEST_LR, _LARGEST_LR)
            points.append(Point(lr, math.nan if pair[1] is None else number(pair[1], f"{place}[{k}][1]")))
        if not points:
            raise RecordError(f"{place} is empty")
        return cls(
            stop=fields.text("stop", 500),
            limit=fields.maybe(fields.number, "limit"),
            probes=[number(loss, fields.place("probes")) for loss in fields.items("probes")],
            points=points,
        )


@dataclass(frozen=True)
class FinderResult:
    """`result.json`.

    Attributes:
        suggestion: the learning rate, or why there is none.
        sweeps: one or more; none where the file has none.
        digest: of the whole state, the same before and after; `None` where the file has none.
        num_ranks: how many ranks proved it.
        settings: of the finder, as plain data.
        provenance: what the learning rate was found for, as plain data.
        global_batch: the samples of an update, out of `provenance`.
    """

    suggestion: Suggestion
    sweeps: Sequence[SweepRecord]
    digest: str | None
    num_ranks: int
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]
    global_batch: int

    def to_json(self) -> dict[str, Any]:
        """As the file holds it."""
        refusal = self.suggestion.refusal
        return {
            "format": FORMAT,
            "kind": _KIND,
            "suggestion": {
                **self.suggestion._asdict(),
                "refusal": None if refusal is None else refusal._asdict(),
            },
            "sweeps": [sweep.to_json() for sweep in self.sweeps],
            "proof": {"digest": self.digest, "num_ranks": self.num_ranks},
            "settings": dict(self.settings),
            "provenance": dict(self.provenance),
        }

    @classmethod
    def read(cls, fields: Fields) -> FinderResult:
        """From the file; `sweeps`, `proof` and `settings` may be missing.

        Raises:
            RecordError: naming the field that is missing, of another kind, or contradicts the others.
        """
        proof = fields.maybe(fields.inner, "proof")
        digest = None if proof is None else proof.text("digest", 200)
        if digest is not None and not re.fullmatch("[0-9a-f]{16,128}", digest):
            raise RecordError(f"proof.digest is {described(digest)}, not hexadecimal digits")
        batch = fields.inner("provenance").whole("global_batch", 1)
        provenance = fields.plain("provenance")
        shards, size = provenance.get("shards"), provenance.get("batch_size")
        if isinstance(shards, int) and isinstance(size, int) and shards * size != batch:
            raise RecordError(f"provenance.global_batch is {batch}, but {shards} shards x {size} are {shards * size}")
        return cls(
            suggestion=_read_suggestion(fields.inner("suggestion")),
            sweeps=[SweepRecord.read(one) for one in fields.inners("sweeps")] if fields.has("sweeps") else [],
            digest=digest,
            num_ranks=1 if proof is None else proof.whole("num_ranks", 1),
            settings=fields.plain("settings") if fields.has("settings") else {},
            provenance=provenance,
            global_batch=batch,
        )


def result_of(finding: Finding, settings: FinderSettings, provenance: Mapping[str, Any]) -> FinderResult:
    """Everything that is known."""
    return FinderResult(
        suggestion=finding.suggestion,
        sweeps=[
            SweepRecord(str(sweep.stop), _number(sweep.limit), sweep.probes, sweep.points) for sweep in finding.sweeps
        ],
        digest=finding.digest,
        num_ranks=finding.num_ranks,
        settings=asdict(settings),
        provenance=dict(provenance),
        global_batch=int(provenance["global_batch"]),
    )


def provenance_of(config: RunConfig, global_batch: int, **more: Any) -> dict[str, Any]:
    """What a learning rate was found for: it means little for anything else."""
    return {
        "global_batch": global_batch,
        "shards": config.batch.shards,
        "batch_size": config.batch.size,
        "network": {"name": config.network.name, "params": config.network.params},
        "optimizer": {"name": config.optimizer.name, "params": config.optimizer.params},
        "momentum_correction": config.momentum_correction,
        "data": config.data.name,
        "config": config.fingerprint(),
        **more,
    }


def read_result(path: Path) -> FinderResult:
    """A result's content.

    Raises:
        ConfigError: if it cannot be read or is something else.
    """
    try:
        fields = read_object(path, _MOST_BYTES, follow=True)
        if fields.maybe(fields.text, "kind", 100) != _KIND:
            raise ConfigError(f"{path}: is not the result of a finder; give a finder's result.json")
        version = fields.whole("format")
        if version != FORMAT:
            raise ConfigError(
                f"{path}: has format {version}, but this version reads format {FORMAT}; run the finder again"
            )
        return FinderResult.read(fields)
    except RecordError as error:
        raise ConfigError(f"{path}: {error}; give a finder's result.json") from None


def take_result(config: RunConfig, result: FinderResult, origin: str) -> tuple[RunConfig, list[str]]:
    """The configuration with the number that the finder found, scaled from the finder's global batch.

    Returns:
        The configuration, and remarks for the user: where the number comes from, and what it was found for if
        that is something else.

    Raises:
        NoUsableLRError: if the finder refused.
    """
    suggestion, found_for, batch = result.suggestion, result.provenance, result.global_batch
    if suggestion.lr is None:
        reason, advice = suggestion.refusal or ("it gave no reason", "run the finder again")
        raise NoUsableLRError(
            f"lr.base: the finder found no reliable learning rate: {reason}. "
            f"What to do: {advice}; or give a number as lr.base ({origin} shows the curve)"
        ).found_in(config.source)
    said = [
        f"lr.base {suggestion.lr:.4g}, found at a global batch of {batch} by the rule {suggestion.rule!r} ({origin})"
    ]
    own = plain(provenance_of(config, 0), "own")
    for part in ("network", "optimizer", "data", "momentum_correction"):
        if found_for.get(part) != own[part]:
            found = seen(str(found_for.get(part)), 300)
            said.append(f"warning: it was found for {part} {found}, but this run has {own[part]}; run the finder again")
    return with_base(config, suggestion.lr, batch), said


def with_base(config: RunConfig, base: float, batch: int | None) -> RunConfig:
    """The configuration with a number as base, meant for a global batch of `batch` samples where anything is scaled.

    Raises:
        ConfigError: if either number is not one that a configuration could hold.
    """
    scaled = config.lr.scales and config.lr.scaling != "none"
    return config.changed({"lr.base": base, "lr.reference_batch": batch if scaled else None})


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _read_suggestion(fields: Fields) -> Suggestion:
    limits = (_SMALLEST_LR, _LARGEST_LR)
    found = fields.maybe(fields.inner, "rules")
    names = [] if found is None else found.keys()
    if len(names) > _MOST_RULES:
        raise RecordError(f"suggestion.rules has {len(names):,} rules; at most {_MOST_RULES} are read")
    rules = {seen(name, 100): None if found is None else found.maybe(found.number, name, *limits) for name in names}
    lr, low, high = (fields.maybe(fields.number, key, *limits) for key in ("lr", "low", "high"))
    rule = fields.maybe(fields.text, "rule", 100) or ""
    refused = fields.maybe(fields.inner, "refusal")
    refusal = None if refused is None else Refusal(refused.text("reason", 2000), refused.text("advice", 2000))
    if (lr is None) == (refusal is None):
        raise RecordError("suggestion has " + ("both a lr and a refusal" if refusal else "neither a lr nor a refusal"))
    if lr is not None:
        own = rules.get(rule)
        if rules and (own is None or float(f"{own:.3g}") != lr):
            raise RecordError(f"suggestion.lr is {lr!r}, but its rule {rule!r} says {own!r}")
        if not (low or lr) <= lr <= (high or lr):
            raise RecordError(f"suggestion.lr is {lr!r}, outside of its interval of {low!r} to {high!r}")
    return Suggestion(lr, rule, low, high, rules, refusal)
