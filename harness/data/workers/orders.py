"""What worker processes are told to read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.errors import ConfigError


@dataclass(frozen=True)
class WorkerOrders:
    """What worker processes read, and how: plain data, since a process of its own makes the data set again.

    Attributes:
        load: arguments of `harness.data.load` but functions and pictures.
        transform: `data.transform`.
        collate: `data.collate`.
        seed: of random items.
        more: `module:function` that seeds another generator, MXNet's.
        calls_more: for each split that is read, whether its items draw from that one.
        timeout_s: that a worker may take for an item.
    """

    load: Mapping[str, Any]
    transform: str | None = None
    collate: str | Mapping[str, Any] | None = None
    seed: int = 0
    more: str = ""
    calls_more: Mapping[str, bool] = field(default_factory=dict)
    timeout_s: float = 120.0

    def __post_init__(self) -> None:
        """Refuse what is not plain data."""
        params = self.load.get("params") or {}
        try:
            is_plain = json.loads(json.dumps(params)) == params
        except (TypeError, ValueError):
            is_plain = False
        if not is_plain:
            raise ConfigError(
                "data.params: worker processes are told them as JSON, which has no such values; give texts, numbers, "
                "lists, and mappings whose keys are texts, or set data.worker_kind: thread"
            )

    def to_json(self) -> dict[str, Any]:
        """As a worker is told them."""
        return {
            "load": dict(self.load),
            "transform": self.transform,
            "collate": self.collate,
            "seed": self.seed,
            "more": self.more,
            "splits": dict(self.calls_more),
        }
