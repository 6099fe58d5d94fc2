"""One reader of each kind of number, for text and values of unknown origin."""

from __future__ import annotations

import math

import pytest

from harness.parsing import MAX_DIGITS, as_number, is_count, version_numbers, whole_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("007", 7),
        ("9" * MAX_DIGITS, 10**MAX_DIGITS - 1),
        ("9" * (MAX_DIGITS + 1), None),
        ("0" * (MAX_DIGITS + 1), None),
        ("", None),
        (" 1", None),
        ("1\n", None),
        ("+1", None),
        ("-1", None),
        ("1_000", None),
        ("1.0", None),
        ("²", None),
        ("٣", None),
        ("0x1", None),
    ],
)
def test_a_whole_number_is_ascii_digits_and_nothing_else(text, number):
    assert whole_number(text) == number


@pytest.mark.parametrize(("number", "is_within"), [(0, False), (1, True), (65535, True), (65536, False)])
def test_bounds_are_inclusive(number, is_within):
    assert (whole_number(str(number), low=1, high=65535) is not None) == is_within


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("1.23.5", (1, 23)), ("8.9", (8, 9)), ("1.24rc1", (1, 24)), ("[N/A]", None), ("2", None), ("", None)],
)
def test_a_version_begins_with_two_numbers(text, numbers):
    assert version_numbers(text) == numbers


def test_a_bool_is_neither_a_number_nor_a_count():
    assert as_number(True) is None
    assert not is_count(True)
    assert (as_number(3), as_number("3"), as_number(10**400)) == (3.0, None, None)
    assert math.isinf(as_number(math.inf))
    assert (is_count(1), is_count(0), is_count(0, 0), is_count(5.0)) == (True, False, True, False)
