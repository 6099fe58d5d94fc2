"""How attributes are written for C++: as NumPy 1 wrote them, whatever NumPy there is."""

from __future__ import annotations

import numpy as np
import pytest

from harness_compat.text import PlainText


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((np.int64(3),), "(3,)"),
        ((np.int64(3), np.int32(-1), 2), "(3, -1, 2)"),
        ([np.float32(0.1), np.float64(1e-05), np.float16(2)], "[0.1, 1e-05, 2.0]"),
        ([np.float64("nan"), np.float64("-inf")], "[nan, -inf]"),
        ([(np.int64(1), [np.uint8(2)]), ()], "[(1, [2]), ()]"),
        ((np.bool_(True), None, "np.x"), "(True, None, 'np.x')"),
        ((np.str_("a'b"), np.bytes_(b"c")), "(\"a'b\", b'c')"),
        ({"a": np.int64(1), np.int64(2): (np.float32(0.5),)}, "{'a': 1, 2: (0.5,)}"),
        ([np.complex64(1 + 2j)], "[(1+2j)]"),
    ],
)
def test_scalars_in_containers(value, text):
    assert PlainText(value) == text
    assert type(PlainText(value)) is str
    if np.__version__.startswith("1."):
        assert str(value) == text


@pytest.mark.parametrize(
    "value",
    [
        (),
        (3,),
        [1, (2, None)],
        {"a": 1},
        "np.int64(3)",
        "",
        None,
        True,
        0.1,
        np.float32(0.1),
        np.int64(3),
        np.str_("a"),
    ],
)
def test_what_needs_no_help_is_written_by_str(value):
    assert PlainText(value) == str(value)


def test_it_can_be_used_as_str_is():
    assert PlainText() == ""
    assert PlainText(b"ab", "ascii") == PlainText(b"ab", encoding="ascii") == "ab"
    assert isinstance("a", PlainText)
    assert isinstance(np.str_("a"), PlainText)
    assert not isinstance(b"a", PlainText)
