"""The values of evaluations that decide something: which metric reports each, and which of its values is the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.config import RunConfig
from harness.errors import ConfigError
from harness.model.metrics import Metric

_MODES = {"max": "highest", "min": "lowest"}


def metric_of(monitor: str, metrics: Mapping[str, Metric]) -> str:
    """The metric that reports a value: of its name, or of its name, a dot and a key.

    >>> metric_of("own:boxes.mAP", {"own:boxes": None, "f1": None})
    'own:boxes'
    """
    return max((name for name in metrics if monitor == name or monitor.startswith(f"{name}.")), key=len)


def directions_of(config: RunConfig, metrics: Mapping[str, Metric], held_out: Sequence[str]) -> dict[str, str]:
    """For each of `config.monitors`, whether its `highest` or its `lowest` value is the best.

    Args:
        config: of the run.
        metrics: by name.
        held_out: the splits that are evaluated.

    Raises:
        ConfigError: where nobody knows, where the configuration says what is wrong, and where nothing is held out.
    """
    found = {}
    for key, monitor in config.monitors.items():
        found[key] = _direction(config, key, monitor, metrics)
        if not held_out:
            raise ConfigError(f"{key}: the data have neither a validation nor a test split; hold some out")
    return found


def _direction(config: RunConfig, key: str, monitor: str, metrics: Mapping[str, Metric]) -> str:
    """What is known of the metric, or what the configuration says."""
    section = key.rpartition(".")[0]
    plateau, early_stop = config.lr.plateau, config.train.early_stop
    option, highest, lowest = "mode", "max", "min"
    told: str | None = None
    if section == "checkpoint":
        option, highest, lowest, told = "best_is", "highest", "lowest", config.checkpoint.best_is
    elif section == "lr.plateau" and plateau is not None:
        told = plateau.mode
    elif early_stop is not None:
        told = early_stop.mode
    said = None if told is None else _MODES.get(told, told)
    metric = "loss" if monitor == "loss" else metric_of(monitor, metrics)
    known = "lowest" if monitor == "loss" else metrics[metric].best
    if monitor != metric and said is not None:  # a number of several, each of which may be best in another direction
        known = said
    direction = known or said
    if direction is None:
        raise ConfigError(f"{key}: {monitor!r} is your own; say with {option} whether {highest} or {lowest} is best")
    if said not in (None, known) and known is not None:
        raise ConfigError(
            f"{section}.{option}: {told} is wrong for {monitor!r}, of which the {known} is best; remove it"
        )
    return direction
