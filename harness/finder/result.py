"""A finding as a file, and what becomes of it in a plan. Pure; JSON in, JSON out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.config import RunConfig
from harness.errors import ConfigError, NoUsableLRError
from harness.finder.runner import FinderSettings, Finding
from harness.finder.sweep import StopRule, Sweep

FORMAT = 1
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
        raise ConfigError(f"{config.source}: finder.{error}") from None
    defaults = FinderSettings()
    probes = section.probes if section.probes is not None else 8 if middle else 0
    return FinderSettings(sweep, rule, probes, section.repeats, section.rule or defaults.rule)


def result_of(finding: Finding, settings: FinderSettings, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that is known, as data that JSON can hold."""
    suggestion = finding.suggestion
    return {
        "format": FORMAT,
        "kind": _KIND,
        "suggestion": {
            **suggestion._asdict(),
            "refusal": None if suggestion.refusal is None else suggestion.refusal._asdict(),
        },
        "sweeps": [
            {
                "stop": str(played.stop),
                "limit": _number(played.limit),
                "probes": played.probes,
                "points": [[point.lr, _number(point.loss)] for point in played.points],
            }
            for played in finding.sweeps
        ],
        "proof": {"digest": finding.digest, "num_ranks": finding.num_ranks},
        "settings": asdict(settings),
        "provenance": dict(provenance),
    }


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


def read_result(path: Path) -> dict[str, Any]:
    """A result's content.

    Raises:
        ConfigError: if it cannot be read or is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the result.json of a finder") from None
    except ValueError:
        raise ConfigError(f"{path}: is no JSON; give the result.json of a finder") from None
    if not isinstance(content, dict) or content.get("kind") != _KIND:
        raise ConfigError(f"{path}: is not the result of a finder; give the result.json of one")
    if content.get("format") != FORMAT:
        raise ConfigError(
            f"{path}: is of format {content.get('format')}, this version reads format {FORMAT}; find again"
        )
    return content


def take_result(config: RunConfig, result: Mapping[str, Any], origin: str) -> tuple[RunConfig, list[str]]:
    """The configuration with the number that was found, scaled from the global batch that it was found at.

    Returns:
        The configuration, and what the user should know: where the number comes from, and what it was found for if
        that is something else.

    Raises:
        NoUsableLRError: if the finder refused.
        ConfigError: if the result lacks what is needed.
    """
    try:
        suggestion, found_for = result["suggestion"], result["provenance"]
        lr, batch = suggestion["lr"], found_for["global_batch"]
        if lr is None:
            refusal = suggestion["refusal"]
            raise NoUsableLRError(
                f"{config.source}: lr.base: the finder found no learning rate that it can defend: {refusal['reason']}. "
                f"To go on: {refusal['advice']}; or give a number as lr.base ({origin} shows the curve)"
            )
        known = math.isfinite(lr) and lr > 0 and int(batch) > 0 and not isinstance(lr, bool)
    except (KeyError, TypeError, ValueError, OverflowError):
        known = False
    if not known:
        raise ConfigError(f"{config.source}: lr.base: {origin} lacks a learning rate or its global batch; find again")
    said = [f"lr.base {lr:.4g}, found at a global batch of {batch} by the rule {suggestion['rule']!r} ({origin})"]
    own = provenance_of(config, 0)
    for part in ("network", "optimizer", "data", "momentum_correction"):
        if found_for.get(part) != own[part]:
            said.append(f"warning: it was found for {part} {found_for.get(part)}, this run has {own[part]}; find again")
    return with_base(config, float(lr), int(batch)), said


def with_base(config: RunConfig, base: float, batch: int | None) -> RunConfig:
    """The configuration with a number as base, meant for a global batch of `batch` samples where anything is scaled.

    Raises:
        ConfigError: if either number is not one that a configuration could hold.
    """
    scaled = config.lr.scales and config.lr.scaling != "none"
    return config.changed({"lr.base": base, "lr.reference_batch": batch if scaled else None})


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
