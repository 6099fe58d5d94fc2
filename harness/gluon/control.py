"""What an update is judged by: what ranks say of it, its loss, and whether its sums are finite."""

from __future__ import annotations

from typing import Any, NamedTuple

import mxnet as mx
import numpy as np

from harness.gluon.gradient_buffer import GradientBuffer

_PIECE = 1 << 20  # numbers that one dot product adds up in float32 before float64 takes over


class Control(NamedTuple):
    """What every rank says of an update, summed over shards: the base of every shared decision.

    Attributes:
        loss_sum: sum of the samples' losses.
        num_samples: samples in the global batch.
        num_shards: shards that were not empty.
        save: whether rank 0 asks for a set to be written.
        failure: whether rank 0 could not write one.
        stop: how many ranks were asked to stop.
    """

    loss_sum: float
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

    def __init__(self, taken: Any, num_samples: int) -> None:
        """Bind what the gauge took, whose first number is the sum over the batch's samples."""
        self._taken = taken
        self._num_samples = num_samples

    def __float__(self) -> float:
        """The mean."""
        return float(self._taken.asnumpy()[0]) / self._num_samples


class Measured(NamedTuple):
    """What sums hold.

    Attributes:
        words: what the ranks said.
        gradient_norm: Euclidean norm of the gradient's sum over samples.
        statistics_finite: whether all running statistics are finite.
    """

    words: list[float]
    gradient_norm: float
    statistics_finite: bool


class NormCheck:
    """Measures sums on the device, so that reading the result is the only thing that waits.

    A NaN does not always reach the loss (oneDNN's ReLU turns it into 0), while it stays in weights and running
    statistics for good; so the gradient and the statistics are looked at too. Their dot products with themselves are
    the cheapest pass over them: a hundredth of the time of MXNet's own `multi_all_finite`.
    """

    def __init__(self, sums: GradientBuffer) -> None:
        """Bind the memory that holds the sums."""
        pieces = [sums.gradients[i : i + _PIECE] for i in range(0, sums.gradients.size, _PIECE)]
        self._ends = [sums.words.size, sums.words.size + len(pieces)]
        if sums.statistics is not None:
            pieces.append(sums.statistics)
        self._memory = [sums.words, *pieces]
        words, *symbols = [mx.sym.var(f"part{i}") for i in range(len(self._memory))]
        measured = mx.sym.concat(words, *[mx.sym.dot(symbol, symbol) for symbol in symbols], dim=0)
        self._measure = mx.nd.CachedOp(measured)  # one call

    def take(self) -> Any:
        """Measure what the memory holds now; returns at once, with a device array for `read`."""
        return self._measure(*self._memory)

    def read(self, taken: Any) -> Measured:
        """The numbers; waits until they are there."""
        words, gradients, statistics = np.split(taken.asnumpy().astype(np.float64), self._ends)
        return Measured(words.tolist(), float(np.sqrt(gradients.sum())), bool(np.isfinite(statistics).all()))


class Update(NamedTuple):
    """An update whose sums are there, and which is to be judged.

    Attributes:
        t: its iteration.
        num_samples: of its global batch, by the order of the data.
        said: what this rank said of it: all of `Control` but the loss.
        taken: what the gauge took.
    """

    t: int
    num_samples: int
    said: tuple[float, ...]
    taken: Any


class UpdateStats(NamedTuple):
    """What an update turned out to be.

    Attributes:
        t: its iteration.
        control: what the ranks said.
        loss: the mean over its global batch.
        gradient_norm: Euclidean norm of the mean gradient.
        statistics_finite: whether all running statistics are finite.
    """

    t: int
    control: Control
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
