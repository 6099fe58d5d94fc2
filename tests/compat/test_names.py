"""The names that NumPy is given: which, when, and that they mean what they meant."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from harness_compat.names import NAMES, missing

ROOT = Path(__file__).parents[2]
VERSION = tuple(map(int, np.__version__.split(".")[:2]))


def numpy_of(version, **names):
    numpy = ModuleType("numpy")
    vars(numpy).update(__version__=version, **names)
    return numpy


@pytest.mark.parametrize(
    ("version", "found"),
    [
        ("1.23.5", 0),
        ("1.24.0rc1", 2),
        ("1.26.4", 2),
        ("2.0.0", 21),
        ("2.3.5", 21),
        ("2.4.0.dev0+git2026", 23),
        ("2.10.1", 23),
    ],
)
def test_how_many_names_a_version_lacks(version, found):
    assert len(missing(numpy_of(version))) == found


def test_a_name_that_is_there_is_left_alone():
    names = {one.name for one in missing(numpy_of("2.4.0", bool="its own", trapz=None))}
    assert not {"bool", "trapz"} & names
    assert "in1d" in names


def test_every_name_is_there_until_the_version_that_the_table_says():
    """Asked of the NumPy that is installed, in a process that has not imported MXNet."""
    code = "import json, numpy, sys; print(json.dumps([hasattr(numpy, name) for name in sys.argv[1:]]))"
    command = [sys.executable, "-W", "ignore", "-c", code, *(one.name for one in NAMES)]
    told = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout)
    back = {"bool"} if VERSION >= (2, 0) else set()  # as NumPy's scalar type, which will do
    expected = {one.name: one.gone_since > VERSION or one.name in back for one in NAMES}
    assert dict(zip(expected, told, strict=True)) == expected


def test_each_name_says_what_it_is_for():
    assert len({one.name for one in NAMES}) == len(NAMES)
    for one in NAMES:
        assert one.needed_by.startswith(("mxnet.", "mx.np.")), one.name
        assert "{}" not in one.needed_by


def made(name):
    """What MXNet finds by this name: NumPy's own, as far as there is one."""
    found = next(one for one in NAMES if one.name == name)
    if found.gone_since <= VERSION:
        return found.make(np)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(np, name)


@pytest.mark.parametrize(
    ("name", "value"),
    [("Inf", math.inf), ("PINF", math.inf), ("NINF", -math.inf), ("PZERO", 0.0), ("NZERO", 0.0)],
)
def test_numbers(name, value):
    found = made(name)
    assert (found, type(found)) == (value, float)
    assert math.copysign(1, found) == (-1 if name.startswith("N") else 1)


@pytest.mark.parametrize("name", ["NAN", "NaN"])
def test_not_a_number(name):
    assert math.isnan(made(name))


@pytest.mark.parametrize(("name", "value"), [("bool", bool), ("int", int)])
def test_types(name, value):
    assert made(name) is value


@pytest.mark.parametrize(
    ("name", "arguments", "value"),
    [
        ("alltrue", ([[1, 0], [1, 1]],), False),
        ("sometrue", ([[1, 0], [1, 1]], 0), [True, True]),
        ("product", ([[1, 2], [3, 4]], 1), [2, 12]),
        ("round_", ([1.256, 2.5], 1), [1.3, 2.5]),
        ("msort", ([[3, 1], [1, 2]],), [[1, 1], [3, 2]]),
        ("in1d", ([[1, 2], [3, 4]], [[2], [3]]), [False, True, True, False]),
        ("in1d", ([1, 2], [2], False, True), [True, False]),
        ("trapz", ([1, 2, 3], [4, 6, 8]), 8.0),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_functions(name, arguments, value):
    np.testing.assert_array_equal(made(name)(*arguments), value)


@pytest.mark.parametrize("name", ["mirr", "npv", "pmt", "ppmt", "pv", "rate"])
def test_what_numpy_had_removed_before_says_where_it_is(name):
    with pytest.raises(RuntimeError, match=rf"{name} was removed .*numpy_financial"):
        made(name)(0.1, [1, 2])


def test_basestring():
    assert isinstance("constant", made("compat").basestring)
