"""What the learning rate `1x` of a run is: the base of its configuration, scaled to its global batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.config import LRConfig
from harness.plan.sizes import Sizes


@dataclass(frozen=True)
class Scaling:
    """How the base becomes the learning rate that a configuration calls `1x`: `peak = base factor`.

    Attributes:
        config: the section `lr`.
        sizes: of the run.
    """

    config: LRConfig
    sizes: Sizes

    @property
    def in_units_of_base(self) -> bool:
        """Whether the base is still to be found, so that all learning rates are multiples of it."""
        return self.config.is_found

    @property
    def base(self) -> float:
        """The base; 1 where there is none, or none yet."""
        return self.config.base if isinstance(self.config.base, float) else 1.0

    @property
    def rule(self) -> str:
        """How learning rates grow with the global batch: `linear`, `sqrt` or `none`."""
        return (self.config.scaling or "linear") if self.config.scales else "none"

    @property
    def reference_batch(self) -> int:
        """The global batch that the base is meant for; a base that will be found is found at the run's own."""
        if self.in_units_of_base:
            return self.sizes.global_batch
        return self.config.reference_batch or self.sizes.batch_size

    @property
    def factor(self) -> float:
        """By what the base is multiplied: the ratio of the batches, its square root, or 1."""
        ratio = self.sizes.global_batch / self.reference_batch
        return {"linear": ratio, "sqrt": math.sqrt(ratio), "none": 1.0}[self.rule]

    @property
    def peak(self) -> float:
        """What `1x` is."""
        return self.base * self.factor

    def describe(self) -> str:
        """In words, such as `0.1 at batch 64 x 8 shards (linear) = 0.8`."""
        config, sizes = self.config, self.sizes
        if not config.uses_x:
            return "as written (nothing is scaled)"
        if self.in_units_of_base:
            return f"in units of the base that the finder will find at the global batch of {sizes.global_batch}"
        batch = f"batch {sizes.batch_size} x {sizes.shards} shard{'s' if sizes.shards > 1 else ''}"
        if not config.scales:
            return f"as written (nothing is scaled), warmed up from the base {self.base:g}"
        if self.rule == "none":
            return f"{self.base:g} at {batch} (not scaled)"
        reference = "" if config.reference_batch is None else f" for a batch of {self.reference_batch},"
        return f"{self.base:g}{reference} at {batch} ({self.rule}) = {self.peak:g}"
