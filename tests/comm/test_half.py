"""Numbers in 16 bits: what they are rounded to, on any device, and the codes in which they travel."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from harness.comm.half import LARGEST, HalfForm, HalfPrecision, HalfRounder

CODES = np.arange(1 << 16, dtype=np.uint16)
FINITE = CODES[np.isfinite(CODES.view(np.float16))]
EXPONENTS = (-14, -3, 0, 2, 10)


def rounded(values, exponent=0):
    values = values.copy()
    HalfRounder()(values, HalfPrecision(values.size, exponent))
    return values


def numbers(count, seed=0, lowest=-14, highest=6):
    random = np.random.default_rng(seed)
    return (random.normal(size=count) * 10.0 ** random.integers(lowest, highest, count)).astype(np.float32)


def values_of(codes, exponent):
    """What codes stand for, by NumPy."""
    return codes.view(np.float16).astype(np.float32) * np.float32(2.0**-exponent)


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_numbers_of_16_bits_stay_as_they_are(exponent):
    values = values_of(FINITE, exponent)
    assert np.array_equal(rounded(values, exponent), values)


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_others_go_to_the_nearest(exponent):
    """Beside numpy.float16, which rounds once: below 2^-14 two roundings may be off by a quarter of a step more."""
    values = numbers(300_000) * np.float32(2.0**-exponent)
    found = rounded(values, exponent).astype(np.float64) * 2.0**exponent
    scaled = values.astype(np.float64) * 2.0**exponent
    with np.errstate(over="ignore"):
        nearest = scaled.astype(np.float16).astype(np.float64)
    normal = np.abs(scaled) >= 2.0**-14
    ties = normal & (np.abs(found - scaled) == np.abs(nearest - scaled))  # either neighbour is as near
    assert np.array_equal(found[normal & ~ties], nearest[normal & ~ties])
    assert np.abs(found - scaled)[~normal].max() <= 0.75 * 2.0**-24
    assert np.array_equal(found[~normal] * 2.0**24, np.rint(found[~normal] * 2.0**24))


def test_what_is_too_large_becomes_infinite_and_what_is_not_finite_stays_so():
    values = np.array([LARGEST, 65519, 65520, 1e6, 3e38, -65520, np.inf, -np.inf, np.nan], np.float32)
    found = rounded(values)
    assert found[:2].tolist() == [LARGEST, LARGEST]
    assert found[2:6].tolist()[:2] == [np.inf, np.inf]
    assert not np.isfinite(found[2:]).any()
    form = HalfForm(0)
    received = np.empty_like(found)
    form.unpack(form.packed(found), received)
    assert received[:2].tolist() == [LARGEST, LARGEST]
    assert not np.isfinite(received[2:]).any()


def test_zeros_and_what_is_too_small():
    assert rounded(np.array([0.0, -0.0, 1e-45, -1e-30, 2.0**-26, -(2.0**-26)], np.float32)).tolist() == [0.0] * 6
    assert rounded(np.array([2.0**-24, 0.8 * 2.0**-24], np.float32)).tolist() == [2.0**-24] * 2


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_every_code_stands_for_its_number(exponent):
    form, values = HalfForm(exponent), np.empty(FINITE.size, np.float32)
    form.unpack(FINITE, values)
    expected = values_of(FINITE, exponent)
    assert np.array_equal(values.view(np.uint32), expected.view(np.uint32))  # signs of zeros as well
    assert np.array_equal(form.packed(values), FINITE)


def test_codes_carry_what_was_rounded_in_any_number():
    form = HalfForm(2)
    for count in (0, 1, 5, 1 << 15, 70_001, 3):
        values = rounded(numbers(count, highest=2), 2)
        received = np.empty_like(values)
        form.unpack(form.packed(values), received)
        assert np.array_equal(received, values)
        assert form.room(values).size == count


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_every_device_rounds_alike(exponent):
    values = numbers(50_000, seed=exponent + 20)
    expected = rounded(values, exponent).tobytes()
    half = HalfPrecision(values.size, exponent)
    for ctx in (mx.cpu(0), mx.cpu(1)):
        array = mx.nd.array(values, ctx=ctx)
        HalfRounder()(array, half)
        assert array.asnumpy().tobytes() == expected


def test_only_the_beginning_is_rounded():
    values = numbers(1000)
    found = values.copy()
    HalfRounder()(found, HalfPrecision(600, 0))
    assert np.array_equal(found[600:], values[600:])
    assert np.array_equal(found[:600], rounded(values[:600]))
    assert not np.array_equal(found[:600], values[:600])


@pytest.mark.parametrize("num_samples", [1, 2, 3, 64, 100, 8192, 1_000_000])
def test_the_scale_follows_the_global_batch(num_samples):
    half = HalfPrecision.of(10, num_samples)
    assert 512 < num_samples * 2.0**half.exponent <= 1024
    assert 63.9 < half.largest / num_samples < 128
