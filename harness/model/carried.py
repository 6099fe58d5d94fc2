"""State that a shard carries from one update to the next (truncated back-propagation), and how it is nested.

It is what a network with `network.state` is called with besides its data, and returns besides its output: an array, or
a tuple, list or dict of such states. Knows neither shards nor when a state begins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import mxnet as mx
import numpy as np

from harness.data import described_shapes
from harness.data.dtypes import as_they_are, counted, refuse_dtype, refuse_non_finite
from harness.errors import ConfigError, DataError, HarnessError
from harness.named import kind_of, where_raised

StateFunction = Callable[[int], Any]
"""rows -> the first state of a shard with so many rows: arrays of NumPy or MXNet, nested."""

_KEY = "network.state"
_ALLOWED = "give an array of NumPy or MXNet, or a tuple, list or dict of them"
_MOST_KNOWN = 16  # numbers of rows


class FirstState:
    """The first state of a shard, which depends on the number of its rows alone."""

    def __init__(self, function: StateFunction) -> None:
        """Bind a user's function; nothing is called yet."""
        self._function = function
        self._known: dict[int, Any] = {}

    @classmethod
    def of(cls, function: StateFunction | FirstState | None) -> FirstState | None:
        """That of a function; `None` for none."""
        return function if isinstance(function, FirstState | None) else cls(function)

    @property
    def name(self) -> str:
        """Of the function."""
        return getattr(self._function, "__name__", type(self._function).__name__)

    def __call__(self, rows: int) -> Any:
        """Arrays of NumPy in the types that MXNet has, nested as the function gives them.

        Args:
            rows: of the shard, at least 1.

        Raises:
            ConfigError: if the function raises, gives something else than arrays, other arrays when called again, or
                arrays whose shapes have nothing to do with the rows.
        """
        if rows not in self._known:
            state, again = self._called(rows), self._called(rows)
            if digest_of_state(state) != digest_of_state(again):
                raise ConfigError(
                    f"{_KEY}: gave other numbers when it was called again for {rows} rows; make the first state a "
                    "function of the number of rows alone"
                )
            if not self._known:
                self._refuse_fixed(rows, state)
            self._known = {**dict(list(self._known.items())[-_MOST_KNOWN:]), rows: state}
        return self._known[rows]

    def on_device(self, rows: int, ctx: Any) -> Any:
        """The same as arrays of MXNet on a device, new ones in every call."""
        return each_array(lambda array: mx.nd.array(array, ctx=ctx, dtype=array.dtype), self(rows))

    def describe(self, rows: int) -> str:
        """Structure, types and shapes of the first state, and a digest of its numbers, for ranks to compare."""
        state = self(rows)
        return f"{described_shapes(state)} {digest_of_state(state)[:12]}"

    def _refuse_fixed(self, rows: int, state: Any) -> None:
        if form_of_state(state) == form_of_state(self._called(rows + 1)):
            raise ConfigError(
                f"{_KEY}: gave {described_shapes(state)} for {rows} rows and for {rows + 1}; make the number of rows "
                "one of the dimensions"
            )

    def _called(self, rows: int) -> Any:
        try:
            state = self._function(rows)
        except HarnessError:
            raise
        except (Exception, SystemExit) as error:  # a user's code
            raise ConfigError(
                f"{_KEY}: raised {type(error).__name__}: {error} for {rows} rows (at {where_raised(error)})"
            ) from error
        if not any(True for _ in arrays_in(state)):
            raise ConfigError(f"{_KEY}: gave {described_shapes(state)} for {rows} rows, without an array; {_ALLOWED}")
        for name, array in arrays_in(state):
            if not isinstance(array, np.ndarray | mx.nd.NDArray):
                raise ConfigError(f"{_KEY}: gave {kind_of(array)} as state {name!r} for {rows} rows; {_ALLOWED}")
        return each_array(_checked, state)


def arrays_in(state: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """The arrays of a state with their names: the numbers or keys that lead to them.

    >>> dict(arrays_in(("a", {"h": "b"}))), dict(arrays_in("a"))
    ({'0': 'a', '1.h': 'b'}, {'0': 'a'})
    """
    if isinstance(state, list | tuple):
        inner = [(str(number), one) for number, one in enumerate(state)]
    elif isinstance(state, Mapping):
        inner = [(str(key), one) for key, one in state.items()]
    else:
        yield place or "0", state
        return
    for name, one in inner:
        yield from arrays_in(one, f"{place}.{name}" if place else name)


def each_array(function: Callable[[Any], Any], state: Any) -> Any:
    """The result of a function for every array, in the structure of the state."""
    if isinstance(state, list | tuple):
        inner = [each_array(function, one) for one in state]
        return tuple(inner) if isinstance(state, tuple) else inner
    if isinstance(state, Mapping):
        return {key: each_array(function, one) for key, one in state.items()}
    return function(state)


def rebuilt(state: Any, arrays: Iterable[Any]) -> Any:
    """Other arrays in the structure of a state, in their order."""
    rest = iter(arrays)
    return each_array(lambda _: next(rest), state)


def form_of_state(state: Any) -> list[tuple[str, str, tuple[int, ...]]]:
    """Name, type and shape of every array, in their order; lists and tuples are the same."""
    return [(name, np.dtype(one.dtype).name, tuple(one.shape)) for name, one in arrays_in(state)]


def digest_of_state(state: Any) -> str:
    """sha256 of names, types, shapes and numbers of a state on the host."""
    total = hashlib.sha256(repr(form_of_state(state)).encode())
    for _, array in arrays_in(state):
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def new_state(returned: Any, given: Any) -> Any:
    """The state that a network has returned, nested as the one that it was given.

    Raises:
        ConfigError: if it is of another structure, type or shape, which the next call would not be prepared for.
    """
    arrays = list(arrays_in(returned))
    are_arrays = all(isinstance(one, mx.nd.NDArray) for _, one in arrays)
    if not are_arrays or form_of_state(returned) != form_of_state(given):
        raise ConfigError(
            f"{_KEY}: the network was given the state {described_shapes(given)} and returned "
            f"{described_shapes(returned)}; return a state of the same structure, types and shapes"
        )
    return rebuilt(given, [one for _, one in arrays])


def output_and_state(returned: Any, network: str) -> tuple[Any, Any]:
    """What a network with carried state returns.

    Args:
        returned: by the network.
        network: what messages call it.

    Raises:
        ConfigError: unless it is a pair.
    """
    if not isinstance(returned, list | tuple) or len(returned) != 2:
        raise ConfigError(
            f"{_KEY}: {network} returned {described_shapes(returned)}; a network that carries state is called with "
            "(data, state), several data as so many arguments, and returns (output, state)"
        )
    return returned[0], returned[1]


def _checked(array: Any) -> Any:
    values = array.asnumpy() if isinstance(array, mx.nd.NDArray) else array
    try:
        refuse_dtype(f"{_KEY}: gave", values.dtype, "allowed are numbers")
        refuse_non_finite(values, counted(f"{_KEY}: row"))
        return as_they_are(values, counted(f"{_KEY}: row"))
    except DataError as error:
        raise ConfigError(str(error)) from None
