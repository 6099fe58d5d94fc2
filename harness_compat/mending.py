"""What is done to modules of MXNet, and to NumPy, while MXNet is imported."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

from harness_compat.names import missing

ADDED: list[str] = []


def mended_spec(asked: object, name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
    """The spec that the other finders give, with a loader that mends the module.

    Args:
        asked: the finder that asks, which is not asked itself.
        name: of the module, `mxnet` or below.
        path: where to look for it.
        target: the module that is to be reloaded.

    Returns:
        The spec; `None` if nothing is to be done, or if the module is not found.
    """
    before, after = _BEFORE.get(name), _AFTER.get(name)
    if before is None and after is None:
        return None
    finders = (finder for finder in sys.meta_path if finder is not asked)
    spec = next(filter(None, (finder.find_spec(name, path, target) for finder in finders)), None)
    if spec is None or spec.loader is None:
        return spec
    load = spec.loader.exec_module

    def exec_module(module: ModuleType) -> None:
        if before is not None:
            before(module)
        load(module)
        if after is not None:
            after(module)

    vars(spec.loader)["exec_module"] = exec_module
    return spec


def _add_names(_: ModuleType) -> None:
    """Give NumPy the names that MXNet asks it for; where there is no NumPy, MXNet says so itself."""
    try:
        numpy = importlib.import_module("numpy")
    except ImportError:
        return
    for one in missing(numpy):
        setattr(numpy, one.name, one.make(numpy))
        ADDED.append(one.name)


def _write_plain_text(module: ModuleType) -> None:
    """Have a module pass attributes to C++ as NumPy 1 wrote them."""
    numpy = importlib.import_module("numpy")
    if int(numpy.__version__.partition(".")[0]) >= 2:
        from harness_compat.text import PlainText

        vars(module)["str"] = PlainText


def _use_tobytes(module: ModuleType) -> None:
    """Have `pack` and `pack_img` call `tobytes` where NumPy 2.3 has removed its other name, `tostring`."""
    if hasattr(importlib.import_module("numpy").ndarray, "tostring"):
        return
    for function in (module.pack, module.pack_img):
        names = ("tobytes" if name == "tostring" else name for name in function.__code__.co_names)
        function.__code__ = function.__code__.replace(co_names=tuple(names))


def _accept_named_tuples(module: ModuleType) -> None:
    """Have NumPy's results converted that are named tuples since NumPy 1.25, such as that of `linalg.qr`."""
    convert = module._as_mx_np_array

    def as_mx_np_array(found: object, ctx: object = None) -> object:
        return convert(tuple(found) if isinstance(found, tuple) else found, ctx)

    vars(module)["_as_mx_np_array"] = as_mx_np_array


_Mend = Callable[[ModuleType], None]
_BEFORE: dict[str, _Mend] = {
    "mxnet": _add_names,
    "mxnet._ctypes.ndarray": _write_plain_text,
    "mxnet._ctypes.symbol": _write_plain_text,
    "mxnet.io.io": _write_plain_text,
    "mxnet.symbol.symbol": _write_plain_text,
}
_AFTER: dict[str, _Mend] = {"mxnet.numpy.multiarray": _accept_named_tuples, "mxnet.recordio": _use_tobytes}
