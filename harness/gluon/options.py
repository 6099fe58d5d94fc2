"""How a learner is set up: the devices it computes on, and what an update does besides the step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

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
class Averaging:
    """When and how weights are averaged.

    Attributes:
        decay: how much of the average stays with each of its updates, above 0 and below 1; `None` for the plain mean of
            all weights that it has taken (stochastic weight averaging).
        every: iterations from one of its updates to the next, at least 1.
        after: the last iteration that it takes no part in, at least 0.
        gamma: of the warm-up of the decay, above 0; `None` for none.
        power: of the warm-up of the decay, above 0.
        statistics: running statistics are `averaged` as weights are, are the `latest`, or are the latest until those of
            batch normalisations are `recomputed` (`Learner.recompute_statistics`).
    """

    decay: float | None
    every: int = 1
    after: int = 0
    gamma: float | None = None
    power: float = 2 / 3
    statistics: Literal["averaged", "latest", "recomputed"] = "averaged"

    @property
    def kind(self) -> str:
        """`ema` or `swa`, as a configuration calls it."""
        return "swa" if self.decay is None else "ema"

    def is_due(self, t: int) -> bool:
        """Whether the average takes part in iteration `t`, from 1."""
        return t > self.after and t % self.every == 0

    def share(self, k: int) -> float:
        """The part of the way to the weights that the average goes in its update `k`, from 0.

        The first takes the weights as they are. With a warm-up the decay is `1 - (1 + k / gamma) ** -power`, at most
        `decay`.

        >>> [Averaging(0.75, gamma=1.0, power=1.0).share(k) for k in (0, 1, 2, 40)]
        [1.0, 0.5, 0.33333333333333326, 0.25]
        >>> [Averaging(None).share(k) for k in (0, 1, 3)]
        [1.0, 0.5, 0.25]
        """
        if k == 0:
            return 1.0
        if self.decay is None:
            return 1 / (k + 1)
        if self.gamma is None:
            return 1 - self.decay
        return 1 - float(min(self.decay, 1 - (1 + k / self.gamma) ** -self.power))


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
        average: how weights are averaged; `None` for not at all.
    """

    seed: int = 0
    hybridize: bool = True
    momentum_correction: bool | None = None
    clip_norm: float | None = None
    skip_nonfinite: bool = False
    frozen: Sequence[str] = ()
    compression: str = "none"
    average: Averaging | None = None

    def __post_init__(self) -> None:
        """Refuse a compression that there is none of; it would be no compression."""
        if self.compression not in ("none", "fp16"):
            raise ConfigError(f"compression: {self.compression!r} is unknown; allowed: none, fp16")
