"""The average of the weights, moving or of all that it has taken, on the host beside the step.

After update t it is `average <- average + share (weights - average)`, of every weight and running statistic. All ranks
hold the same weights, so each computes the same average by itself. The share is a function of how many updates the
average has had: that and its arrays are its state.

Sources: B. T. Polyak and A. B. Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992; P. Izmailov et
al., Averaging Weights Leads to Wider Optima and Better Generalization, 2018, arXiv 1803.05407. The warm-up is that of
timm's `ModelEmaV3`, the rest as in `torch.optim.swa_utils.AveragedModel`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mxnet as mx
import numpy as np
import numpy.typing as npt

from harness.gluon.options import Averaging
from harness.gluon.state import mismatches
from harness.gluon.step.memory import memory_of
from harness.model.parameters import held

Arrays = dict[str, npt.NDArray[Any]]
Floats = npt.NDArray[np.float32]
_PIECE = 1 << 15


class WeightAverage:
    """The average of one rank's weights; the same on every rank.

    Attributes:
        arrays: by structural name, on the host; empty before it begins.
        num_updates: how many times it has taken the weights.
        statistics: how its running statistics came about, as `Averaging.statistics` says.
    """

    def __init__(
        self, averaging: Averaging, parameters: Mapping[str, Any], trainable: Mapping[str, Any], contexts: Sequence[Any]
    ) -> None:
        """Bind what is averaged.

        Args:
            averaging: when and how.
            parameters: all parameters by structural name, running statistics among them.
            trainable: those with a gradient.
            contexts: the devices, which hold the same; the first is read.
        """
        self._averaging, self._parameters, self._context = averaging, parameters, contexts[0]
        self._is_on_host = all(ctx == mx.cpu() for ctx in contexts)
        running = [name for name, parameter in parameters.items() if parameter.grad_req == "null"]
        averages = averaging.statistics == "averaged"
        self._latest = frozenset(() if averages else set(running) - set(trainable))
        self._taken = "averaged" if averages else "latest"
        self._room = np.empty(_PIECE, np.float32)
        self.arrays: Arrays = {}
        self.num_updates, self.statistics = 0, self._taken

    def update(self, t: int) -> None:
        """Take the weights after update `t` in, where that is due."""
        if not self._averaging.is_due(t):
            return
        mx.nd.waitall()
        share = np.float32(self._averaging.share(self.num_updates))
        self.num_updates, self.statistics = self.num_updates + 1, self._taken
        if share == 1:
            self.arrays = {name: self._on_host(parameter).copy() for name, parameter in self._parameters.items()}
            return
        with np.errstate(all="ignore"):  # what is not finite is the learner's to find
            for name, parameter in self._parameters.items():
                average, weights = self.arrays[name], self._on_host(parameter)
                if name in self._latest or average.dtype != np.float32:
                    np.copyto(average, weights)
                    continue
                self._take(average.reshape(-1), weights.reshape(-1), share)

    def _take(self, average: Floats, weights: Floats, share: np.float32) -> None:
        """`average += share (weights - average)`, in pieces that stay in the cache from one pass to the next."""
        for begin in range(0, average.size, _PIECE):
            piece = average[begin : begin + _PIECE]
            room = self._room[: piece.size]
            np.subtract(weights[begin : begin + _PIECE], piece, out=room)
            np.multiply(room, share, out=room)
            np.add(piece, room, out=piece)

    @property
    def wants_statistics(self) -> bool:
        """Whether running statistics are to be recomputed for the weights that it has now."""
        return bool(self.arrays) and self._averaging.statistics == "recomputed" != self.statistics

    def take_statistics(self, statistics: Arrays) -> None:
        """Take the running statistics that were recomputed for it, by structural name; none without batch norm."""
        self.arrays.update(statistics)
        self.statistics = "recomputed"

    @property
    def numbers(self) -> dict[str, Any] | None:
        """What of its state is no array, for JSON; `None` before it begins."""
        if not self.arrays:
            return None
        return {"kind": self._averaging.kind, "num_updates": self.num_updates, "statistics": self.statistics}

    def mismatches(self, arrays: Arrays, numbers: Mapping[str, Any] | None) -> list[str]:
        """Everything by which a saved average does not fit, a sentence each; one that has not begun fits."""
        if bool(arrays) != (numbers is not None):
            return ["average: its arrays and state.average do not belong together, one of them is missing"]
        if not arrays:
            return []
        expected = {name: held(parameter, self._context) for name, parameter in self._parameters.items()}
        return [f"average: {problem}" for problem in mismatches(expected, arrays)]

    def restore(self, arrays: Arrays, numbers: Mapping[str, Any] | None) -> None:
        """Take a saved average over, or begin anew, as after one of the other kind."""
        self.arrays, self.num_updates, self.statistics = {}, 0, self._taken
        if arrays and numbers is not None and numbers["kind"] == self._averaging.kind:
            self.arrays = {name: np.array(arrays[name]) for name in self._parameters}
            self.num_updates, self.statistics = numbers["num_updates"], numbers["statistics"]

    def _on_host(self, parameter: Any) -> npt.NDArray[Any]:
        """A parameter's numbers: its memory, where that is the host's, or a copy."""
        array = held(parameter, self._context)
        if self._is_on_host and array.dtype == np.float32:
            return memory_of(array).reshape(array.shape)
        numbers: npt.NDArray[Any] = array.asnumpy()
        return numbers
