"""A finding as a file, typed on both ends, and what becomes of it in a plan."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.config import LRConfig, RunConfig
from harness.errors import ConfigError, NoUsableLRError
from harness.finder.records import LARGEST_LR, SMALLEST_LR, RateGroup, SweepRecord, rate_groups
from harness.finder.roles import PEAK, ROLES, role_of
from harness.finder.runner import FinderSettings, Finding
from harness.finder.suggestion import Refusal, Suggestion
from harness.finder.sweep import StopRule, Sweep
from harness.folder import MB, FactorGroup, Fields, RecordError, described, plain, read_object, seen

FORMAT = 1
_MOST_BYTES = 8 * MB  # more than 100,000 iterations
_MOST_RULES = 50
_HELD_OUT_BATCHES = 8
_MOST_GROUPS = 10_000
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
    held_out = (section.held_out_batches or _HELD_OUT_BATCHES) if section.on == "validation" else None
    return FinderSettings(sweep, rule, probes, section.repeats or 1, section.rule or defaults.rule, held_out)


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
        role: which number of the schedule the suggestion is, a name in `ROLES`.
        scaling: how the configuration scales its base; `None` for its default.
        groups: trainable parameters by the factors of their rates, where they differ; the curve's are of a factor of 1.
    """

    suggestion: Suggestion
    sweeps: Sequence[SweepRecord]
    digest: str | None
    num_ranks: int
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]
    global_batch: int
    role: str = PEAK
    scaling: str | None = None
    groups: Sequence[RateGroup] = ()

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
            "use": {"role": self.role, "scaling": self.scaling},
            "groups": [group.to_json() for group in self.groups],
        }

    @classmethod
    def read(cls, fields: Fields) -> FinderResult:
        """From the file; `sweeps`, `proof`, `settings`, and what earlier versions did not write, may be missing.

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
        use = fields.maybe(fields.inner, "use")
        role = PEAK if use is None else use.text("role", 100)
        if role not in ROLES:
            raise RecordError(f"use.role is {described(role)}; known: {', '.join(ROLES)}")
        groups = fields.inners("groups") if fields.has("groups") else []
        if len(groups) > _MOST_GROUPS:
            raise RecordError(f"groups has {len(groups):,} entries; at most {_MOST_GROUPS:,} are read")
        return cls(
            suggestion=_read_suggestion(fields.inner("suggestion")),
            sweeps=[SweepRecord.read(one) for one in fields.inners("sweeps")] if fields.has("sweeps") else [],
            digest=digest,
            num_ranks=1 if proof is None else proof.whole("num_ranks", 1),
            settings=fields.plain("settings") if fields.has("settings") else {},
            provenance=provenance,
            global_batch=batch,
            role=role,
            scaling=None if use is None else use.maybe(use.text, "scaling", 20),
            groups=[RateGroup.read(one) for one in groups],
        )


def result_of(
    finding: Finding,
    settings: FinderSettings,
    provenance: Mapping[str, Any],
    lr: LRConfig,
    groups: Sequence[FactorGroup] = (),
) -> FinderResult:
    """Everything that is known.

    Args:
        finding: of the finder.
        settings: of the finder.
        provenance: what the learning rate was found for.
        lr: the section by which its role in the schedule is known.
        groups: trainable parameters by their factors.
    """
    return FinderResult(
        suggestion=finding.suggestion,
        sweeps=[SweepRecord.of(sweep) for sweep in finding.sweeps],
        digest=finding.digest,
        num_ranks=finding.num_ranks,
        settings=asdict(settings),
        provenance=dict(provenance),
        global_batch=int(provenance["global_batch"]),
        role=role_of(lr),
        scaling=lr.scaling,
        groups=rate_groups(groups),
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
        "seed": config.seed,
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


def _read_suggestion(fields: Fields) -> Suggestion:
    limits = (SMALLEST_LR, LARGEST_LR)
    found = fields.maybe(fields.inner, "rules")
    names = [] if found is None else found.keys()
    if len(names) > _MOST_RULES:
        raise RecordError(f"suggestion.rules has {len(names):,} rules; at most {_MOST_RULES} are read")
    rules = {seen(name, 100): None if found is None else found.maybe(found.number, name, *limits) for name in names}
    lr, low, high, begins = (fields.maybe(fields.number, key, *limits) for key in ("lr", "low", "high", "begins"))
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
    return Suggestion(lr, rule, low, high, rules, refusal, begins)
