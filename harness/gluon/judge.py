"""What an update is judged by: what ranks say of it, its loss, and whether its sums are finite."""

from __future__ import annotations

from typing import Any, NamedTuple

import mxnet as mx
import numpy as np

from harness.gluon.sums import Sums

_PIECE = 1 << 20  # numbers that one dot product adds up in float32 before float64 takes over


class Control(NamedTuple):
    """What every rank says of an update, summed over shards (float64): the base of every shared decision.

    Attributes:
        loss_sum: sum of the samples' losses; in a world of one `(1,)` on the device, where nobody need wait for it.
        num_samples: samples in the global batch.
        num_shards: shards that were not empty.
        save: whether rank 0 asks for a set to be written.
        failure: whether rank 0 could not write one.
        stop: how many ranks were asked to stop.
    """

    loss_sum: Any
    num_samples: float
    num_shards: float
    save: float
    failure: float
    stop: float


class Requests(NamedTuple):
    """What a rank asks of all ranks through the control vector.

    Attributes:
        save: to write a set; rank 0's clock decides it.
        failure: to end, because rank 0 could not write a set.
        stop: to save and end; any rank may be told to.
    """

    save: bool = False
    failure: bool = False
    stop: bool = False


class Loss:
    """The mean loss of a global batch, perhaps not computed yet: `float()` of it waits."""

    def __init__(self, loss_sum: Any, num_samples: int) -> None:
        """Take the sum over the batch's samples, a number or `(1,)` on a device."""
        self._loss_sum = loss_sum
        self._num_samples = num_samples

    def __float__(self) -> float:
        """The mean, in float64."""
        total = self._loss_sum if isinstance(self._loss_sum, float) else self._loss_sum.asscalar()
        return float(total) / self._num_samples


class Gauge:
    """Measures sums on the device, so that reading the result is the only thing that waits.

    A NaN does not always reach the loss (oneDNN's ReLU turns it into 0), while it stays in weights and running
    statistics for good; so the gradient and the statistics are looked at too. Their dot products with themselves are
    the cheapest pass over them: a hundredth of the time of MXNet's own `multi_all_finite`.
    """

    def __init__(self, sums: Sums) -> None:
        """Bind the memory that holds the sums."""
        pieces = [sums.gradients[i : i + _PIECE] for i in range(0, sums.gradients.size, _PIECE)]
        self._num_gradients = len(pieces)
        self._pieces = pieces if sums.statistics is None else [*pieces, sums.statistics]

    def take(self) -> Any:
        """Measure what the memory holds now; returns at once, with a device array for `read`."""
        return mx.nd.concat(*[mx.nd.dot(piece, piece) for piece in self._pieces], dim=0)

    def read(self, taken: Any) -> tuple[float, bool]:
        """The gradient's Euclidean norm, and whether all running statistics are finite; waits until they are there."""
        squares = taken.asnumpy().astype(np.float64)
        gradients, statistics = squares[: self._num_gradients], squares[self._num_gradients :]
        return float(np.sqrt(gradients.sum())), bool(np.isfinite(statistics).all())


class Update(NamedTuple):
    """An update whose sums are there, and which is to be judged.

    Attributes:
        t: its iteration.
        num_samples: of its global batch, by the order of the data.
        loss: of it.
        control: what the ranks said.
        taken: what the gauge took.
    """

    t: int
    num_samples: int
    loss: Loss
    control: Control
    taken: Any


class Verdict(NamedTuple):
    """What an update turned out to be.

    Attributes:
        t: its iteration.
        loss: the mean over its global batch.
        gradient_norm: Euclidean norm of the mean gradient.
        statistics_finite: whether all running statistics are finite.
    """

    t: int
    loss: float
    gradient_norm: float
    statistics_finite: bool

    @property
    def is_finite(self) -> bool:
        """Whether it may be applied."""
        return bool(np.isfinite(self.loss) and np.isfinite(self.gradient_norm) and self.statistics_finite)

    def __str__(self) -> str:
        """Why it may not."""
        statistics = "" if self.statistics_finite else ", and running statistics are not finite or beyond 1e19"
        return (
            f"iteration {self.t}: the loss is {self.loss:g} and the gradient's norm {self.gradient_norm:g}{statistics}"
            "; the weights are of no use any more. Lower the learning rate, warm up longer, clip the gradient "
            "(optimizer.clip_norm), or look for NaN in the data"
        )
