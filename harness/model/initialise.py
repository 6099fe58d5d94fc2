"""First weights: drawn from the run's seed, wherever a network draws them, and an initializer that does not suit named.

It knows no data: shapes that depend on them are settled by whoever runs the network.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import mxnet as mx

from harness.errors import ConfigError
from harness.model.parameters import parameters_of, seed_python

T = TypeVar("T")


def seeded(seed: int, build: Callable[[], T]) -> T:
    """What `build` returns, with every generator seeded before: a network may initialise itself when it is built."""
    mx.random.seed(seed)
    seed_python(seed)
    with warnings.catch_warnings():  # MXNet's own call for an import says that types are not told, which is meant there
        warnings.filterwarnings("ignore", message="Cannot decide type for the following", category=UserWarning)
        return build()


def initialise(net: Any, initializer: Any, contexts: Sequence[Any], seed: int) -> None:
    """Give weights to every parameter that has none, or will have them once its shape is known, on all devices.

    Parameters that the network has initialised itself keep their weights, and move to the devices.

    Args:
        net: a `gluon.Block`.
        initializer: an `mx.init.Initializer` for parameters without one of their own.
        contexts: the devices.
        seed: of what is drawn here and when shapes are settled.

    Raises:
        ConfigError: naming the parameter that the initializer does not suit.
    """
    mx.random.seed(seed)
    with naming_unsuited(net, initializer), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Parameter .* is already initialized", category=UserWarning)
        net.initialize(initializer, ctx=list(contexts))
    for parameter in parameters_of(net).values():
        if parameter.list_ctx() != list(contexts):
            parameter.reset_ctx(list(contexts))


@contextmanager
def naming_unsuited(net: Any, initializer: Any) -> Iterator[None]:
    """Say which parameter an initializer failed on, within; it also fails later, where a shape has to be settled first.

    Raises:
        ConfigError: with the parameter, its shape, and what to do.
    """
    try:
        yield
    except Exception as error:
        # Gluon empties what it has put off just before it fills the array, so the first one with neither is the one
        failed = [one for one in net.collect_params().values() if one._data is None and not one._deferred_init]
        if not failed:
            raise
        raise ConfigError(_unsuited(failed[0], parameters_of(net), initializer, error)) from error


def _unsuited(parameter: Any, parameters: Mapping[str, Any], initializer: Any, error: Exception) -> str:
    name = next((ours for ours, one in parameters.items() if one is parameter), parameter.name)
    if not all(isinstance(size, int) for size in parameter.shape or ()):
        return (
            f"network.params: they give the parameter {name} the shape {parameter.shape}, which is not made of whole "
            "numbers; change them"
        )
    own = parameter.init
    kind = own if isinstance(own, str) else type(own or initializer).__name__.lower()
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if own is not None:
        return (
            f"network: {kind}, which the network gives to its parameter {name} of shape {parameter.shape}, does not "
            f"suit it ({reason}); choose another where the parameter is made (init=...)"
        )
    return (
        f"network.initializer: {kind} does not suit the parameter {name} of shape {parameter.shape} ({reason}); choose "
        "one that takes any shape (normal, uniform, zero, one), or give this parameter one of its own where the "
        "network makes it (init='ones')"
    )
