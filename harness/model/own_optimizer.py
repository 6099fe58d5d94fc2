"""An optimizer of the user's own, tried on small weights before it counts: what equal bits and resumed runs need.

Every worker steps by itself, from the same sums. So an update has to be a function of weights, gradients, state, rate
and seed. A checkpoint holds the arrays that `create_state` made, counts of updates, and plain numbers of the object;
whatever else an update reads and changes would be lost in it.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import mxnet as mx
import numpy as np

from harness.data.leaves import Array
from harness.errors import ConfigError
from harness.model.parameters import has_rows
from harness.named import kind_of, with_article
from harness.parsing import plain_numbers

_SHAPES = {0: (1,), 1: (5,), 2: (4, 3), 3: (4, 3, 2), 4: (4, 3, 2, 2), 5: (3, 2, 2, 2, 2)}  # of a weight, by dimensions
_RATE = 2.0**-7
_NOT_STATE = ("lr", "rescale_grad", "param_dict", "num_update", "_all_index_update_counts", "_index_update_count")
_UPDATES = 3  # that a trial makes
_SOME_ROWS = slice(1, 3)


class Traits(NamedTuple):
    """What is known of an optimizer's updates.

    Attributes:
        is_noisy: whether its updates draw random numbers.
        rests_at_0: whether an update at a rate of 0 would spoil its state.
        scalars: its attributes that are numbers, and change with updates.
        follows_rate: whether its steps depend on the learning rate.
    """

    is_noisy: bool
    rests_at_0: bool
    scalars: tuple[str, ...]
    follows_rate: bool


def try_optimizer(optimizer: Any, parameters: Sequence[Any], who: str) -> Traits:
    """Try copies of an optimizer on small weights; a few milliseconds.

    Args:
        optimizer: before its first update.
        parameters: Gluon parameters that it is to step: their numbers of dimensions and their factors.
        who: what it is called in messages.

    Raises:
        ConfigError: for updates that no run could repeat, resume or leave to several workers, or that do not do what
            the configuration says: the gradient's scale, factors of parameters, clipping.
    """
    with _generators_put_back():
        return _Probe(optimizer, parameters, who).look()


class _Probe:
    def __init__(self, optimizer: Any, parameters: Sequence[Any], who: str) -> None:
        self._optimizer, self._parameters, self._who = optimizer, parameters, who
        self._shapes = [_SHAPES[n] for n in sorted({min(len(one.shape or ()), max(_SHAPES)) for one in parameters})]

    def look(self) -> Traits:
        begin = self._trial()
        found = self._trial(_UPDATES)
        if found.weights_bits() == begin.weights_bits():
            self._refuse("changes no weight; update(index, weight, grad, state) writes to the weight that it is given")
        if not found.is_finite():
            self._refuse("makes weights or a state that are not finite, from gradients between -1 and 1")
        if self._trial(_UPDATES).bits() != found.bits():
            self._refuse(
                "gives other bits from the same weights and gradients: it reads a clock, draws from NumPy's or "
                "Python's generator or one of its own, or draws in create_state; draw with mx.nd.random in update, for "
                "which every worker is seeded alike"
            )
        scalars = self._scalars_of_resumed(found)
        if self._trial(_UPDATES, scale=4.0).bits() != found.bits():
            self._refuse(
                "does not multiply gradients by self.rescale_grad; they come as sums over all samples, and "
                "rescale_grad is what makes means of them"
            )
        halved = self._trial(_UPDATES, lr=_RATE / 2).weights_bits()
        follows_rate = halved != found.weights_bits()
        self._refuse_idle_factors(found, halved, follows_rate)
        if self._optimizer.clip_gradient is not None:
            clipped = [self._trial(_UPDATES, clip_gradient=value).bits() for value in (2.0**-9, None)]
            if clipped[0] == clipped[1]:
                self._refuse(
                    "does not clip by self.clip_gradient, so optimizer.clip_value has no effect; use "
                    "optimizer.clip_norm, or clip in update"
                )
        is_noisy = self._trial(_UPDATES, seed=2).bits() != found.bits()
        if any(map(has_rows, self._parameters)) and not is_noisy:
            part = self._trial(_UPDATES, rows=_SOME_ROWS)
            if [one[_SOME_ROWS].tobytes() for one in found.weights()] != part.weights_bits():
                self._refuse(
                    "mixes the rows of a weight, as by a norm of all of it, so it cannot step a few rows of an "
                    "embedding alone; use sparse_grad=False"
                )
        return Traits(
            is_noisy=is_noisy,
            rests_at_0=not self._at_rate_0().is_finite(),
            scalars=scalars,
            follows_rate=follows_rate,
        )

    def _scalars_of_resumed(self, found: _Trial) -> tuple[str, ...]:
        """The numbers that a checkpoint has to hold beside arrays and counts, so that a resumed run is the same."""
        before, saved = self._trial(), self._trial(_UPDATES - 1)
        changed = {
            name: value
            for name, value in vars(saved.optimizer).items()
            if name not in _NOT_STATE and not _is_same(value, vars(before.optimizer).get(name))
        }
        numbers = {
            name: value
            for name, value in changed.items()
            if name in vars(before.optimizer) and isinstance(plain_numbers(value), bool | int | float)
        }
        resumed = self._trial()
        with self._explained():
            resumed.take(saved, numbers)
            resumed.update(_UPDATES)
        if resumed.bits() != found.bits():
            others = sorted(changed.keys() - numbers.keys())
            named = f" ({', '.join(others[:5])})" if others else ""
            self._refuse(
                f"keeps something that no checkpoint holds{named}, so a resumed run would end with other bits; let "
                "create_state return all arrays that last from one update to the next, and let other things be plain "
                "numbers that __init__ sets"
            )
        return tuple(sorted(numbers))

    def _refuse_idle_factors(self, found: _Trial, halved: list[bytes], follows_rate: bool) -> None:
        """Refuse factors of parameters that its steps do not follow."""
        has_rates = follows_rate and any(one.lr_mult != 1 for one in self._parameters)
        if has_rates and self._trial(_UPDATES, lr_mult=0.5).weights_bits() != halved:
            self._refuse(
                "does not follow the factors of lr_mult and layer_decay; take the rate of a weight from "
                "self._get_lr(index) instead of self.lr"
            )
        if not self._optimizer.wd or all(one.wd_mult == 1 for one in self._parameters):
            return
        undecayed, unmarked = (self._trial(_UPDATES, **how).weights_bits() for how in ({"wd": 0.0}, {"wd_mult": 0.0}))
        if undecayed != found.weights_bits() == unmarked:
            self._refuse(
                "does not follow the factors of weight decay, which is 0 for biases and norms by default; take the "
                "decay of a weight from self._get_wd(index), or set optimizer.decay_bias_and_norm: true"
            )

    def _at_rate_0(self) -> _Trial:
        trial = self._trial(1)
        with self._explained():
            trial.update(2, lr=0.0)
        return trial

    def _trial(self, num_updates: int = 0, **how: Any) -> _Trial:
        """A copy that has made some updates."""
        update = {key: how.pop(key) for key in ("lr", "scale", "seed") if key in how}
        with self._explained():
            trial = _Trial(self._optimizer, self._shapes, **how)
            for t in range(1, num_updates + 1):
                trial.update(t, **update)
        return trial

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn whatever a user's code raises into one sentence."""
        try:
            yield
        except ConfigError as error:
            raise ConfigError(f"{self._who}: {error}") from error
        except (Exception, SystemExit) as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            shapes = ", ".join(map(str, self._shapes))
            self._refuse(
                f"raised {type(error).__name__} for weights of the shapes {shapes} ({lines[-1] if lines else ''})",
                error,
            )

    def _refuse(self, why: str, cause: BaseException | None = None) -> None:
        raise ConfigError(f"{self._who}: {why}") from cause


class _Trial:
    """A copy of an optimizer with weights of its own, stepped as a run does it."""

    def __init__(
        self,
        optimizer: Any,
        shapes: Sequence[tuple[int, ...]],
        lr_mult: float = 1,
        wd_mult: float = 1,
        rows: slice = slice(None),
        **attributes: Any,
    ) -> None:
        self._shapes, self._rows = shapes, rows
        self.optimizer = copy.deepcopy(optimizer)
        for name, value in attributes.items():
            setattr(self.optimizer, name, value)
        parameters = [mx.gluon.Parameter(f"weight{i}", shape=shape) for i, shape in enumerate(shapes)]
        for parameter in parameters:
            parameter.lr_mult, parameter.wd_mult = lr_mult, wd_mult
        self.optimizer.param_dict = dict(enumerate(parameters))
        self.updater = mx.optimizer.get_updater(self.optimizer)
        self._weights = [mx.nd.array(_numbers(shape, i)[rows]) for i, shape in enumerate(shapes)]
        for i, weight in enumerate(self._weights):
            state = self.optimizer.create_state_multi_precision(i, weight)
            refuse_state(state)
            self.updater.states[i], self.updater.states_synced[i] = state, True

    def update(self, t: int, lr: float = _RATE, scale: float = 1.0, seed: int = 1) -> None:
        mx.random.seed(seed)  # NumPy's and Python's generators go on, so that whoever draws from them is found out
        self.optimizer.set_learning_rate(lr)
        self.optimizer.rescale_grad = 1.0 / scale
        gradients = [
            mx.nd.array(scale * _numbers(shape, 7 * t + i)[self._rows]) for i, shape in enumerate(self._shapes)
        ]
        self.updater(list(range(len(gradients))), gradients, self._weights)
        mx.nd.waitall()

    def take(self, other: _Trial, numbers: dict[str, Any]) -> None:
        """Take over what a checkpoint holds."""
        for own, its in zip(self._arrays(), other._arrays(), strict=True):
            its.copyto(own)
        for name, value in numbers.items():
            setattr(self.optimizer, name, plain_numbers(value))
        self.optimizer.num_update = other.optimizer.num_update
        for device, counts in other.optimizer._all_index_update_counts.items():
            self.optimizer._set_current_context(device)
            self.optimizer._all_index_update_counts[device].update(counts)

    def bits(self) -> list[bytes]:
        """Of weights and state."""
        return [array.asnumpy().tobytes() for array in self._arrays()]

    def weights(self) -> list[Array]:
        return [weight.asnumpy() for weight in self._weights]

    def weights_bits(self) -> list[bytes]:
        return [weight.tobytes() for weight in self.weights()]

    def is_finite(self) -> bool:
        return all(np.isfinite(array.asnumpy().astype(np.float64)).all() for array in self._arrays())

    def _arrays(self) -> list[Any]:
        states = (self.updater.states[i] for i in range(len(self._weights)))
        return [*self._weights, *(array for state in states for array in arrays_in(state))]


def arrays_in(state: Any) -> Iterator[Any]:
    """The arrays of one weight's state: none, one, or those of tuples."""
    if isinstance(state, tuple | list):
        for inner in state:
            yield from arrays_in(inner)
    elif state is not None:
        yield state


def refuse_state(state: Any) -> None:
    """Refuse a state that a checkpoint could not hold.

    Raises:
        ConfigError: unless it is nothing, a dense array, or tuples and lists of these.
    """
    for array in arrays_in(state):
        if not isinstance(array, mx.nd.NDArray) or array.stype != "default":
            found = kind_of(array) if not isinstance(array, mx.nd.NDArray) else with_article(f"{array.stype} array")
            raise ConfigError(
                f"create_state gave {found}; give None, an array of mx.nd, or a tuple of such arrays, which is what a "
                "checkpoint holds"
            )


def _numbers(shape: tuple[int, ...], number: int) -> Array:
    """Numbers between -1 and 1 that are short in binary, so that a power of two scales them exactly; none is 0."""
    count = int(np.prod(shape))
    spread = (np.arange(1, count + 1) * (2 * number + 3)) % 127 - 63.5
    return (spread.reshape(shape) / 64).astype(np.float32)


def _is_same(one: Any, other: Any) -> bool:
    """Whether an attribute still has its value; arrays by their bits, other objects as far as they can be compared."""
    if type(one) is not type(other):
        return False
    if isinstance(one, mx.nd.NDArray):
        one, other = one.asnumpy(), other.asnumpy()
    if isinstance(one, np.ndarray):
        return bool(one.shape == other.shape and one.tobytes() == other.tobytes())
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_is_same(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    try:
        return bool(one == other) or repr(one) == repr(other)
    except Exception:  # whatever a user's object does when it is compared
        return False


@contextmanager
def _generators_put_back() -> Iterator[None]:
    """Leave NumPy's and Python's generators as they were; MXNet's cannot be read, and is seeded before it counts."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
