"""How a learner is set up: the devices it computes on, and what an update does besides the step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import ConfigError


@dataclass(frozen=True)
class Placement:
    """The devices of a rank, and how they sum gradients.

    Attributes:
        contexts: MXNet contexts; none for the CPU. Several are for a world of one rank.
        kvstore: where several devices are summed: on the CPU (`"local"`) or on the first device (`"device"`).
        update_on_kvstore: whether the optimizer runs on a kvstore.
    """

    contexts: Sequence[Any] = ()
    kvstore: str = "local"
    update_on_kvstore: bool = False


@dataclass(frozen=True)
class UpdateOptions:
    """What an update does besides forward, backward, sum and step.

    Attributes:
        seed: seed for everything random in an update.
        hybridize: whether a `HybridBlock` is compiled.
        momentum_correction: whether momentum buffers follow the learning rate; `None`: where the optimizer keeps the
            rate in its momentum (SGD, NAG, LARS).
        clip_norm: the largest Euclidean norm of the mean gradient.
        skip_nonfinite: skip an update that is not finite instead of raising.
        frozen: structural names of running statistics that stay as they are.
        compression: `"fp16"` rounds gradients to 16 bits, in which ranks then send them; `"none"` does not.
    """

    seed: int = 0
    hybridize: bool = True
    momentum_correction: bool | None = None
    clip_norm: float | None = None
    skip_nonfinite: bool = False
    frozen: Sequence[str] = ()
    compression: str = "none"

    def __post_init__(self) -> None:
        """Refuse a compression that there is none of; it would be no compression."""
        if self.compression not in ("none", "fp16"):
            raise ConfigError(f"compression: {self.compression!r} is unknown; allowed: none, fp16")
