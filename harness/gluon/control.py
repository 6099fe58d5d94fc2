"""What all ranks decide alike from: the control values that ride in the sum of an update, and the check of that sum.

Control values are a few numbers that every rank adds. The check reads them with the loss, the norm of the gradient, and
whether all of it is finite.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import mxnet as mx
import numpy as np

from harness.data import GlobalBatch
from harness.errors import ConfigError, DisagreementError
from harness.gluon.gradient_buffer import GradientBuffer
from harness.gluon.weighing import NUM_VALUES, weight_of

_PIECE = 1 << 20  # numbers that one dot product adds up in float32 before float64 takes over


class Requests(NamedTuple):
    """What a rank asks of all ranks.

    Attributes:
        save: to write a checkpoint; rank 0's clock decides it.
        failure: to end, because rank 0 could not write a checkpoint.
        stop: to save and end; any rank may be told to.
        reshape: to end this world and begin another, where workers may come and go.
    """

    save: bool = False
    failure: bool = False
    stop: bool = False
    reshape: bool = False

    def __or__(self, other: object) -> Requests:
        """What either asks."""
        if not isinstance(other, Requests):
            return NotImplemented
        return Requests(*(one or another for one, another in zip(self, other, strict=True)))


class ControlValues(NamedTuple):
    """What ranks say of an update, summed over shards and ranks: the base of every shared decision.

    As float32, in which they travel, they count exactly to 16 million.

    Attributes:
        loss_sum: sum of the samples' losses.
        num_samples: samples in the global batch.
        num_shards: shards that were not empty.
        save: whether rank 0 asks for a checkpoint.
        failure: whether rank 0 could not write one.
        stop: how many ranks were asked to stop.
        reshape: how many ask for another world.
    """

    loss_sum: float
    num_samples: float
    num_shards: float
    save: float
    failure: float
    stop: float
    reshape: float

    @classmethod
    def of(cls, batch: GlobalBatch, ask: Requests) -> ControlValues:
        """What one rank says before it has processed its shards, whose losses are not known yet."""
        counts = [shard.count for shard in batch.batches]
        return cls(0.0, sum(counts), sum(map(bool, counts)), *ask)

    @property
    def requests(self) -> Requests:
        """What any rank asks."""
        return Requests(self.save > 0, self.failure > 0, self.stop > 0, self.reshape > 0)


class Loss:
    """The mean loss of a global batch, perhaps not computed yet: `float()` of it waits.

    Attributes:
        weight: by what the sum over the batch is divided: its samples, or the sum of the loss's weights.
    """

    def __init__(self, measured: Any, weight: float) -> None:
        """Bind what `NormCheck.measure` returned, whose first number is the sum over the batch, and its weight."""
        self._measured = measured
        self.weight = weight

    def __float__(self) -> float:
        """The mean; NaN where nothing has a weight."""
        return float(self._measured.asnumpy()[0]) / self.weight if self.weight else math.nan


class PendingUpdate(NamedTuple):
    """An update whose sums are complete, and which is to be checked.

    Attributes:
        t: its iteration.
        num_samples: samples in its global batch, by the order of the data.
        own: this rank's control values; the loss is not among them yet.
        measured: what `NormCheck.measure` returned.
        weight: by what its sums are divided; `None` if that is among what was measured.
        square_of_rows: of the gradients that are rows, and are measured where they were summed.
    """

    t: int
    num_samples: int
    own: ControlValues
    measured: Any
    weight: float | None
    square_of_rows: float = 0.0


class UpdateStats(NamedTuple):
    """What the check of an update found; the same on every rank.

    Attributes:
        t: its iteration.
        control: the control values of all ranks.
        weight: of its global batch: the number of samples, or the sum of weights.
        loss: the mean over its global batch; 0 where nothing has a weight.
        gradient_norm: Euclidean norm of the mean gradient.
        statistics_finite: whether all running statistics are finite.
        is_compressed: whether gradients were rounded to 16 bits, in which large ones become infinite.
    """

    t: int
    control: ControlValues
    weight: float
    loss: float
    gradient_norm: float
    statistics_finite: bool
    is_compressed: bool = False

    @property
    def is_finite(self) -> bool:
        """Whether it may be applied."""
        return bool(np.isfinite(self.loss) and np.isfinite(self.gradient_norm) and self.statistics_finite)

    def __str__(self) -> str:
        """Why it may not."""
        if self.is_compressed and np.isfinite(self.loss) and self.statistics_finite:
            return (
                f"iteration {self.t}: the loss is {self.loss:g} and the gradient's norm {self.gradient_norm:g}; "
                "perhaps an element of the mean gradient is beyond 64, which compression: fp16 cannot send. Lower the "
                "learning rate, warm up longer, scale labels or loss down, or start over with compression: none"
            )
        statistics = "" if self.statistics_finite else ", and running statistics are not finite or beyond 1e19"
        return (
            f"iteration {self.t}: the loss is {self.loss:g} and the gradient's norm {self.gradient_norm:g}{statistics}"
            "; the weights are of no use any more. Lower the learning rate, warm up longer, clip the gradient "
            "(optimizer.clip_norm), or look for NaN in the data"
        )


class NormCheck:
    """Measures a gradient buffer on its device, so that reading the result is the only thing that waits.

    A NaN does not always reach the loss (oneDNN's ReLU turns it into 0), while it stays in weights and running
    statistics for good; so the gradient and the statistics are looked at too. Their dot products with themselves are
    the cheapest pass over them: a hundredth of the time of MXNet's own `multi_all_finite`.

    Attributes:
        control_is_summed: whether ranks add up their control values in the buffer; otherwise it holds the loss alone.
    """

    def __init__(self, buffer: GradientBuffer, *, control_is_summed: bool, is_compressed: bool = False) -> None:
        """Bind a buffer.

        Args:
            buffer: holds the sums.
            control_is_summed: whether ranks add up their control values in it; otherwise it holds the loss alone.
            is_compressed: whether its gradients are rounded to 16 bits.
        """
        self._is_compressed = is_compressed
        self.control_is_summed = control_is_summed
        pieces = [buffer.gradients[i : i + _PIECE] for i in range(0, buffer.gradients.size, _PIECE)]
        self._ends = [buffer.control.size, buffer.control.size + len(pieces)]
        if buffer.statistics is not None:
            pieces.append(buffer.statistics)
        self._memory = [buffer.control, *pieces]
        control, *symbols = [mx.sym.var(f"part{i}") for i in range(len(self._memory))]
        measured = mx.sym.concat(control, *[mx.sym.dot(symbol, symbol) for symbol in symbols], dim=0)
        self._measure = mx.nd.CachedOp(measured)  # one call

    def measure(self) -> Any:
        """Measure what the buffer holds now; returns at once, with a device array for a `PendingUpdate`."""
        return self._measure(*self._memory)

    def read(self, update: PendingUpdate) -> UpdateStats:
        """What was measured; waits until it is there.

        Raises:
            DisagreementError: on every rank, if the samples do not add up to the global batch.
            ConfigError: on every rank, if a weight is below 0, or not finite though the losses are.
        """
        numbers = update.measured.asnumpy().astype(np.float64)
        control, squares, statistics = np.split(numbers, self._ends)
        values, weight = control.tolist(), update.weight
        if weight is None:
            weight = _checked_weight(update.t, values[-NUM_VALUES:], values[0])
            values = values[:-NUM_VALUES]
        everyone = ControlValues(*values)
        if not self.control_is_summed:
            everyone = update.own._replace(loss_sum=everyone.loss_sum)
        if everyone.num_samples != update.num_samples:
            raise DisagreementError(
                f"iteration {update.t}: the ranks processed {everyone.num_samples:g} samples, but the global "
                f"batch has {update.num_samples}; some rank processes other shards than the order says"
            ).on_all_ranks()
        return UpdateStats(
            update.t,
            everyone,
            weight,
            everyone.loss_sum / (weight or 1.0),
            float(np.sqrt(squares.sum() + update.square_of_rows)) / (weight or 1.0),
            bool(np.isfinite(statistics).all()),
            self._is_compressed,
        )


def _checked_weight(t: int, values: list[float], loss_sum: float) -> float:
    *digits, num_below = values
    weight = weight_of(digits)
    wrong = "below 0" if num_below else "not finite"
    if num_below or (math.isfinite(loss_sum) and not math.isfinite(weight)):
        raise ConfigError(
            f"iteration {t}: network.loss: a weight is {wrong}; weights are finite and at least 0, 0 for what does not "
            "count"
        ).on_all_ranks()
    return weight
