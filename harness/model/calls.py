"""How a network and its loss are called: on one array, on several, or by a function of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import mxnet as mx
import numpy as np

from harness.data import count_of, described_shapes, leaves_of
from harness.data.dtypes import as_float32, counted
from harness.data.leaves import Data
from harness.errors import ConfigError
from harness.model.carried import FirstState, new_state, output_and_state
from harness.model.soft_labels import loss_for_labels, picks_classes, unsmoothed

# forward(net, loss, data, label) -> (prediction, losses), or (net, loss, data, label, state) -> (..., state)
ForwardFunction = Callable[..., tuple[Any, ...]]


class Called(NamedTuple):
    """What a network and its loss have given.

    Attributes:
        prediction: what metrics look at.
        losses: one value a sample, or numerators and weights.
        state: what the next call is to be given, nested as what this one was given; `None` where none is carried.
    """

    prediction: Any
    losses: Any
    state: Any = None


@dataclass(frozen=True)
class Calls:
    """A network, its loss, and how they are called.

    Attributes:
        net: a `gluon.Block`.
        loss: maps (prediction, label) to the samples' losses.
        forward: a function of the user's own that calls both, as `network.forward` names it; by default the network
            gets the data, several arrays as so many arguments, and the loss gets what it returns, and the labels.
        first_state: of a shard, where the network carries state; it is then called with a state as well, and returns
            its output and the next state.
    """

    net: Any
    loss: Any = None
    forward: ForwardFunction | None = None
    first_state: FirstState | None = None

    def predict(self, data: Any) -> Any:
        """The prediction, where the network is called by itself; from the first state, if it carries one.

        Args:
            data: an array of MXNet, or a tuple of them.
        """
        if self.first_state is None:
            return self.net(*leaves_of(data))
        return self._from(data, self._state_for(data))[0]

    def arguments(self, data: Any) -> tuple[Any, ...]:
        """What `predict` calls the network with."""
        return leaves_of(data) if self.first_state is None else (*leaves_of(data), self._state_for(data))

    def _from(self, data: Any, state: Any) -> tuple[Any, Any]:
        """What the network gives for data and a state: its output, and the next state."""
        output, following = output_and_state(self.net(*leaves_of(data), state), type(self.net).__name__)
        return output, new_state(following, state)

    def _state_for(self, data: Any) -> Any:
        assert self.first_state is not None, "who calls this has asked"
        return self.first_state.on_device(count_of(data), leaves_of(data)[0].context)

    @property
    def is_told_totals(self) -> bool:
        """Whether the loss has `weights`, whose sums over the global batch it is told."""
        return callable(getattr(self.loss, "weights", None))

    def weights_of(self, label: Any) -> dict[str, Any]:
        """What `loss.weights` gives for labels on a device: arrays by name.

        Raises:
            ConfigError: for anything else.
        """
        weights = self.loss.weights(label)
        is_mapping = isinstance(weights, Mapping) and len(weights) > 0
        if not is_mapping or not all(isinstance(one, mx.nd.NDArray) for one in weights.values()):
            raise ConfigError(
                f"network.loss: weights(label) gave {described_shapes(weights)}; give a dict of arrays by name, such "
                "as {'words': label['mask']}"
            )
        return {str(name): one for name, one in weights.items()}

    def __call__(self, data: Any, label: Any, totals: Mapping[str, float] | None = None, state: Any = None) -> Called:
        """The prediction, the losses and the next state.

        Args:
            data: an array of MXNet `(n, ...)`, or a tuple or dict of them.
            label: likewise.
            totals: of what `loss.weights` gives, where the loss is told them; a total of 0 is told as 1, because
                nothing is divided by it but zeros.
            state: that is carried; by default the first.

        Raises:
            ConfigError: if the user's function returns something else.
        """
        loss = self.loss
        if totals is not None:
            told, untold = {name: total or 1.0 for name, total in totals.items()}, loss

            def loss(prediction: Any, label: Any) -> Any:
                return untold(prediction, label, told)

        if self.first_state is None:
            if self.forward is None:
                prediction = self.net(*leaves_of(data))
                return Called(prediction, _losses(loss, prediction, label))
            returned = self.forward(self.net, loss, data, label)
            if not isinstance(returned, tuple) or len(returned) != 2:
                raise ConfigError(
                    f"network.forward: returned {described_shapes(returned)}; return (prediction, losses): what "
                    "metrics look at, and what the loss gives"
                )
            return Called(*returned)
        state = self._state_for(data) if state is None else state
        if self.forward is None:
            prediction, following = self._from(data, state)
            return Called(prediction, _losses(loss, prediction, label), following)
        returned = self.forward(self.net, loss, data, label, state)
        if not isinstance(returned, tuple) or len(returned) != 3:
            raise ConfigError(
                f"network.forward: returned {described_shapes(returned)}; with network.state return (prediction, "
                "losses, state): what metrics look at, what the loss gives, and what the next call is given"
            )
        return Called(returned[0], returned[1], new_state(returned[2], state))

    def labels(self, label: Data, begin: str) -> Data:
        """Labels as the loss takes them; see `labels_for`. A function of the user's own gets them as they are."""
        return labels_for(None if self.forward is not None else self.loss, label, begin)

    def refuse_data(self, data: Any, label: Any) -> None:
        """Refuse data that nothing says how to call the network on.

        Raises:
            ConfigError: for a dict without `forward`, and for samples without labels with it.
        """
        if self.forward is None and isinstance(data, dict):
            raise ConfigError(
                f"network.forward: data is a dict ({', '.join(map(repr, data))}), which a network cannot be called "
                "with; name a function(net, loss, data, label) that returns (prediction, losses), or give a tuple"
            )
        if self.forward is not None and label is None:
            raise ConfigError(
                "sample: network.forward takes labels as well; give a batch with labels, such as sample=stream(1)"
            )


def _losses(loss: Any, prediction: Any, label: Any) -> Any:
    """What the loss gives; in an evaluation labels may be classes where those of training are shares of them."""
    chosen = loss if mx.autograd.is_training() else loss_for_labels(loss, prediction, label)
    return chosen(prediction, label)


def is_of_gluon(loss: Any) -> bool:
    """Whether a loss is one of Gluon's, smoothed or not."""
    return type(unsmoothed(loss)).__module__ == str(mx.gluon.loss.__name__)


def labels_for(loss: Any, label: Data, begin: str) -> Data:
    """Labels as a loss takes them: Gluon's losses that compute with integers want them as float32.

    Nested labels are a user's own loss's, which takes integers as they are.

    Args:
        loss: of the network; `None` where a function of the user's own calls it.
        label: `(n, ...)`.
        begin: what messages say before the number of a row.

    Raises:
        DataError: if float32 cannot hold one.
    """
    if not isinstance(label, np.ndarray):
        return label
    if label.dtype.kind not in "iu" or not is_of_gluon(loss) or picks_classes(loss):
        return label
    return as_float32(label, counted(begin))


def flat(outputs: Any) -> Iterator[Any]:
    """The arrays or symbols of what a network returns, in their order."""
    if isinstance(outputs, list | tuple):
        for output in outputs:
            yield from flat(output)
    elif isinstance(outputs, Mapping):
        yield from flat(list(outputs.values()))
    else:
        yield outputs


def structure_of(outputs: Any) -> str:
    """How lists are nested in what a network is called with or returns, in a form to compare."""
    if isinstance(outputs, list | tuple):
        return f"({','.join(map(structure_of, outputs))})"
    return "None" if outputs is None else "."


def on_host(outputs: Any) -> Any:
    """What a network returns, as arrays of NumPy: an array, or tuples and dicts of them; a list becomes a tuple."""
    if isinstance(outputs, mx.nd.NDArray):
        return outputs.asnumpy()
    if isinstance(outputs, list | tuple):
        return tuple(map(on_host, outputs))
    if isinstance(outputs, Mapping):
        return {key: on_host(output) for key, output in outputs.items()}
    return outputs


def refuse_prediction(prediction: Any, network: str) -> None:
    """Refuse what is no prediction.

    Args:
        prediction: what a network returned.
        network: what messages call it.

    Raises:
        ConfigError: unless it is an array, or a tuple, list or dict of arrays.
    """
    arrays = list(flat(prediction))
    wrong = next((one for one in arrays if not isinstance(one, mx.nd.NDArray)), None)
    if wrong is not None or not arrays:
        found = described_shapes(prediction) if wrong is None else type(wrong).__name__
        raise ConfigError(
            f"{network} must return an array, or a tuple, list or dict of arrays; found {found} among what it returns"
        )
