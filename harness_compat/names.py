"""The names of NumPy that MXNet 1.9.1 uses and newer NumPy versions no longer have."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import NamedTuple


class Name(NamedTuple):
    """A name of NumPy.

    Attributes:
        name: in the module `numpy`.
        gone_since: the first version of NumPy without it, `(major, minor)`.
        make: from the module `numpy` to what the name stood for.
        needed_by: what in MXNet uses it, and for what.
    """

    name: str
    gone_since: tuple[int, int]
    make: Callable[[ModuleType], object]
    needed_by: str


def _financial(name: str) -> Callable[[ModuleType], object]:
    """A function that fails like that of NumPy 1.20 to 1.26, which had moved these to another package (NEP 32)."""

    def removed(*_: object, **__: object) -> None:
        raise RuntimeError(f"numpy.{name} was removed in NumPy 1.20 (NEP 32); use numpy_financial.{name}")

    removed.__name__ = name
    return lambda _: removed


def _in1d(numpy: ModuleType) -> Callable[..., object]:
    def in1d(ar1: object, ar2: object, *arguments: object, **options: object) -> object:
        """Whether each element of the first array, flattened, is in the second."""
        return numpy.isin(numpy.ravel(ar1), ar2, *arguments, **options)

    return in1d


def _msort(numpy: ModuleType) -> Callable[..., object]:
    def msort(a: object) -> object:
        """A copy of an array, sorted along its first axis."""
        return numpy.sort(a, axis=0)

    return msort


_NEEDED_BY_ITS_OWN_NUMPY = "mxnet.numpy.utils exports it again at import, as mx.np.{}"
_FALLBACK = "mxnet.numpy.fallback exports it again at import, as mx.np.{}"
_DISPATCHED = "mxnet.numpy_dispatch_protocol registers mx.np.{} at import as the implementation of NumPy's function"

NAMES = (
    Name("bool", (1, 24), lambda _: bool, "mxnet.numpy, mxnet.symbol.numpy and test_utils: the dtype of masks"),
    Name("int", (1, 24), lambda _: int, "mxnet.test_utils.chi_square_check: the dtype of counts"),
    Name(
        "Inf",
        (2, 0),
        lambda numpy: numpy.inf,
        "mxnet.gluon.contrib.estimator.event_handler: priorities and the first best value",
    ),
    Name(
        "compat",
        (2, 0),
        lambda _: SimpleNamespace(basestring=str),
        "mx.np.pad and its symbol: whether the mode is text (compat.basestring)",
    ),
    *(
        Name(name, (2, 0), make, _NEEDED_BY_ITS_OWN_NUMPY.format(name))
        for name, make in {
            "NAN": lambda numpy: numpy.nan,
            "NaN": lambda numpy: numpy.nan,
            "NINF": lambda numpy: -numpy.inf,
            "PINF": lambda numpy: numpy.inf,
            "NZERO": lambda _: -0.0,
            "PZERO": lambda _: 0.0,
        }.items()
    ),
    *(
        Name(name, (2, 0), make, _DISPATCHED.format(name))
        for name, make in {
            "product": lambda numpy: numpy.prod,
            "round_": lambda numpy: numpy.round,
            "sometrue": lambda numpy: numpy.any,
        }.items()
    ),
    Name("alltrue", (2, 0), lambda numpy: numpy.all, _FALLBACK.format("alltrue")),
    Name("msort", (2, 0), _msort, _FALLBACK.format("msort")),
    *(
        Name(name, (2, 0), _financial(name), _FALLBACK.format(name))
        for name in ("mirr", "npv", "pmt", "ppmt", "pv", "rate")
    ),
    Name("in1d", (2, 4), _in1d, _FALLBACK.format("in1d")),
    Name("trapz", (2, 4), lambda numpy: numpy.trapezoid, _FALLBACK.format("trapz")),
)


def missing(numpy: ModuleType) -> tuple[Name, ...]:
    """The names that a NumPy does not have.

    NumPy is not asked for them: it would answer some with a warning, and others with what deprecates them.
    """
    numbers = tuple(int(number) for number in numpy.__version__.split(".")[:2])
    return tuple(one for one in NAMES if one.gone_since <= numbers and one.name not in vars(numpy))
