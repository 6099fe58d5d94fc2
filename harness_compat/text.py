"""Attributes of MXNet's operators as text, with NumPy's scalars as plain numbers.

MXNet passes shapes and other attributes to C++ as `str(value)`. From NumPy 2 on, `str((np.int64(3),))` is
"(np.int64(3),)" (NEP 51), which C++ refuses.
"""

from __future__ import annotations

from typing import Any

import numpy


class _Calls(type):
    def __call__(cls, value: object = "", *more: Any, **options: Any) -> str:
        """The text of a value, as with NumPy 1; a scalar of NumPy on its own needs no help."""
        text = str(value, *more, **options)
        if "np." in text and type(value) in (tuple, list, dict):
            return _plain(value)
        return text

    def __instancecheck__(cls, instance: object) -> bool:
        """Every string is an instance, as it is of `str`."""
        return isinstance(instance, str)


class PlainText(metaclass=_Calls):
    """Stands for `str` in modules of MXNet.

    >>> PlainText((numpy.int64(3), [numpy.float32(0.1), None]))
    '(3, [0.1, None])'
    """


def _plain(value: object) -> str:
    """`repr`, in which scalars of NumPy are written as NumPy 1 wrote them."""
    if isinstance(value, numpy.str_ | numpy.bytes_):
        return repr(value.item())
    if isinstance(value, numpy.generic):
        return str(value)
    if type(value) is list:
        return f"[{', '.join(map(_plain, value))}]"
    if type(value) is tuple:
        return f"({', '.join(map(_plain, value))}{',' if len(value) == 1 else ''})"
    if type(value) is dict:
        return f"{{{', '.join(f'{_plain(key)}: {_plain(one)}' for key, one in value.items())}}}"
    return repr(value)
