"""The finder's results at several global batches, and the plan that they mean, as data, text and YAML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from harness.finder.across import RULES, MeasuredScaling, SweepsAt, measure_scaling
from harness.finder.result import FinderResult
from harness.finder.suggestion import Refusal, refuse_curve
from harness.finder.sweep import Stop

FORMAT = 1
KIND = "learning-rate finder across batches"


class ResultsAt(NamedTuple):
    """The finder's results at one global batch.

    Attributes:
        slow: of the sweeps at the lower speed.
        fast: of those at the higher.
    """

    slow: FinderResult
    fast: FinderResult

    @property
    def global_batch(self) -> int:
        """Samples of an update."""
        return self.slow.global_batch


@dataclass(frozen=True)
class AcrossResult:
    """`scaling.json`.

    Attributes:
        results: at global batches in ascending order.
        measured: how the learning rate grows; `None` if refused.
        refusal: why that is not known.
    """

    results: Sequence[ResultsAt]
    measured: MeasuredScaling | None
    refusal: Refusal | None

    @classmethod
    def of(cls, results: Sequence[ResultsAt]) -> AcrossResult:
        """What several results say together."""
        for at in results:
            for sweep in (*at.slow.sweeps, *at.fast.sweeps):
                refusal = refuse_curve(sweep.points, Stop(sweep.stop))
                if refusal is not None:
                    reason = f"at a global batch of {at.global_batch}: {refusal.reason}"
                    return cls(results, None, refusal._replace(reason=reason))
        measured = measure_scaling(
            [
                SweepsAt(at.global_batch, *([sweep.points for sweep in one.sweeps] for one in (at.slow, at.fast)))
                for at in results
            ]
        )
        if isinstance(measured, Refusal):
            return cls(results, None, measured)
        return cls(results, measured, None)

    def to_json(self) -> dict[str, Any]:
        """As the file holds it."""
        return {
            "format": FORMAT,
            "kind": KIND,
            "scaling": None if self.measured is None else self.measured.to_json(),
            "refusal": None if self.refusal is None else self.refusal._asdict(),
            "results": [{"slow": at.slow.to_json(), "fast": at.fast.to_json()} for at in self.results],
            "told": self.told(),
        }

    def told(self) -> list[str]:
        """The result in lines of text."""
        if self.measured is None:
            return []
        lines = []
        for batch in self.measured.batches:
            rate, count = batch.rate, len(batch.slow) + len(batch.fast)
            interval = f"{rate.low:.3g} to {rate.high:.3g}; {count} sweeps"
            lines.append(f"global batch {batch.global_batch:5}: {rate.value:.3g} ({interval})")
        return [*lines, *sentences(self.measured), "to paste:", plan_of(self.measured)]


def sentences(measured: MeasuredScaling) -> list[str]:
    """What the exponent and the noise scale say."""
    exponent, batches, fitting = measured.exponent, measured.batches, measured.fitting
    low, high = batches[0].global_batch, batches[-1].global_batch
    lines = [
        f"from {low} to {high} the learning rate grows with the global batch to the power of {exponent.value:.2f} "
        f"({exponent.low:.2f} to {exponent.high:.2f}); linear is 1, sqrt 0.5, none 0"
    ]
    if len(fitting) == 1:
        lines.append(f"that is lr.scaling: {fitting[0]}")
    elif fitting:
        lines.append(
            f"{' and '.join(fitting)} are both possible, and {measured.nearest} is nearer; more sweeps "
            "(finder.repeats) or batches (--across) would tell"
        )
    else:
        factor = (high / low) ** abs(RULES[measured.nearest] - exponent.value)
        lines.append(
            f"no lr.scaling grows like that: from {low} to {high} the nearest, {measured.nearest}, would be off by a "
            f"factor of {factor:.2g}; give a base for the batch that you train with"
        )
    noise = measured.noise_scale
    if noise.low == 0 and math.isinf(noise.high):
        return lines
    if math.isinf(noise.high):
        about = f"above {noise.low:.3g} samples"
    elif noise.low == 0:
        about = f"below {noise.high:.3g} samples"
    else:
        about = f"about {noise.value:.3g} samples ({noise.low:.3g} to {noise.high:.3g})"
    meaning = "batches far below it want rates in proportion, and those far above it no higher ones"
    return [*lines, f"the noise scale of the gradient there is {about}: {meaning}"]


def plan_of(measured: MeasuredScaling) -> str:
    """The section `lr` that the result means, as YAML: the measured base, and how it is scaled.

    Where no rule fits, the base is that of the largest batch, and the nearest rule scales it from there.
    """
    fits = bool(measured.fitting)
    batch = measured.batches[0 if fits else -1].global_batch
    rate = measured.rate(batch) if fits else measured.batches[-1].rate.value
    rule = min(measured.fitting or RULES, key=lambda name: abs(RULES[name] - measured.exponent.value))
    lines = ["lr:", f"  base: {rate:.3g}"]
    if rule != "none":
        lines.append(f"  reference_batch: {batch}")
    return "\n".join([*lines, f"  scaling: {rule}"])
