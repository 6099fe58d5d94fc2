import random
from fractions import Fraction

import pytest

from harness.units import Duration, round_position


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("5ep", Fraction(5), "ep"),
        ("2.5ep", Fraction(5, 2), "ep"),
        ("500it", Fraction(500), "it"),
        ("500.0it", Fraction(500), "it"),
        ("10%", Fraction(10), "%"),
        ("33.3%", Fraction(333, 10), "%"),
        (".5ep", Fraction(1, 2), "ep"),
        ("1.ep", Fraction(1), "ep"),
        (" 5 ep ", Fraction(5), "ep"),
        ("007it", Fraction(7), "it"),
        ("0ep", Fraction(0), "ep"),
        (0, Fraction(0), "it"),
        (0.0, Fraction(0), "it"),
        ("250%", Fraction(250), "%"),
        ("1e6sa", Fraction(10**6), "sa"),
        ("2.5E+3 sa", Fraction(2500), "sa"),
        ("50000sa", Fraction(50_000), "sa"),
        ("3e9tok", Fraction(3 * 10**9), "tok"),
    ],
)
def test_parse(text, value, unit):
    assert Duration.parse(text) == Duration(value, unit)


_WRITTEN = (
    "write a length as '5ep' (epochs), '500it' (iterations), '1e6sa' (samples), '3e9tok' (tokens) or '10%' (a part of "
    "the whole)"
)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (5, "; write '5it' or '5ep'"),
        ("5", "; write '5it' or '5ep'"),
        (2.5, "; write '2.5ep'"),
        ("5 epochs", "; write '5ep'"),
        ("5EP", "; write '5ep'"),
        ("500iters", "; write '500it'"),
        ("1.5e", "; write '1.5ep'"),
        ("-5ep", "; a length cannot be negative"),
        (-5, "; a length cannot be negative"),
        ("5 s", ""),
        ("abc", ""),
        ("", ""),
        ("ep", ""),
        ("1e2it", ""),
        ("1e-2sa", ""),
        ("1e999999999sa", ""),
        ("5 samples", "; write '5sa'"),
        ("5tokens", "; write '5tok'"),
        ("5ep 3it", ""),
        ("٣ep", ""),
        (None, ""),
        (True, ""),
        (False, ""),
        (float("nan"), ""),
        (float("inf"), ""),
        ([5], ""),
        ({"ep": 5}, ""),
    ],
)
def test_what_is_no_length_is_refused_with_a_hint(wrong, hint):
    with pytest.raises(ValueError, match="is not a length") as caught:
        Duration.parse(wrong)
    assert str(caught.value) == f"{wrong!r} is not a length: {_WRITTEN}{hint}"


@pytest.mark.parametrize(("wrong", "nearest"), [("2.5it", 3), ("2.4it", 2), ("0.01it", 1)])
def test_part_of_an_iteration_is_refused(wrong, nearest):
    with pytest.raises(ValueError, match="whole") as caught:
        Duration.parse(wrong)
    assert str(caught.value) == f"'{wrong}' is not a whole number of iterations; write '{nearest}it'"


@pytest.mark.parametrize("written", ["2.5ep", "500it", "10%", "0.1%", "0it"])
def test_what_hints_suggest_and_what_str_gives_can_be_read(written):
    assert str(Duration.parse(written)) == written


@pytest.mark.parametrize(
    ("written", "shortest"),
    [("2.50ep", "2.5ep"), ("1.ep", "1ep"), (".5ep", "0.5ep"), ("0.00001ep", "0.00001ep"), ("1000000000000000ep",) * 2],
)
def test_str_has_no_exponent_and_no_needless_zero(written, shortest):
    assert str(Duration.parse(written)) == shortest


def test_str_is_exact_for_every_decimal():
    dice = random.Random(5)
    for _ in range(500):
        digits = dice.randrange(0, 25)
        text = f"{dice.randrange(10**12)}.{dice.randrange(10**digits):0{digits}d}{dice.choice(['ep', '%'])}"
        duration = Duration.parse(text)
        assert Duration.parse(str(duration)) == duration, text


def test_a_value_without_decimal_form_shows_as_a_fraction():
    assert str(Duration(Fraction(1, 3), "ep")) == "1/3ep"


@pytest.mark.parametrize(
    ("text", "iterations"),
    [("3ep", 132), ("2.5ep", 110), ("7it", 7), ("10%", 66), ("33%", Fraction(1089, 5)), ("0%", 0), ("100%", 660)],
)
def test_iterations_are_exact(text, iterations):
    assert Duration.parse(text).iterations(iterations_per_epoch=44, span=660) == iterations


@pytest.mark.parametrize(
    ("position", "nearest"),
    [(Fraction(0), 0), (Fraction(1, 2), 1), (Fraction(3, 2), 2), (Fraction(5, 2), 3), (Fraction(49, 100), 0)],
)
def test_round_position_takes_halves_up(position, nearest):
    assert round_position(position) == nearest


@pytest.mark.parametrize("total", [1, 2, 3, 7, 10, 99, 101, 660, 1_000_003])
@pytest.mark.parametrize("percents", [("80%", "20%"), ("33.3%", "33.3%", "33.4%"), ("12.5%",) * 8])
def test_rounded_ends_of_phases_cover_a_run_exactly(total, percents):
    ends = [sum(Duration.parse(p).iterations(1, total) for p in percents[: i + 1]) for i in range(len(percents))]
    assert round_position(ends[-1]) == total


def test_samples_and_tokens_are_measured_by_what_an_iteration_has():
    samples, tokens = Fraction(500), Fraction(64_000)
    assert Duration.parse("1e6sa").iterations(100, 1000, samples, tokens) == 2000
    assert Duration.parse("1sa").iterations(100, 1000, samples, tokens) == Fraction(1, 500)
    assert Duration.parse("3.2e6tok").iterations(100, 1000, samples, tokens) == 50
    for text, what in (("1e6sa", "1000000sa' is a number of samples"), ("2tok", "2tok' is a number of tokens")):
        with pytest.raises(ValueError, match="is not known here") as caught:
            Duration.parse(text).iterations(100, 1000)
        assert str(caught.value) == (
            f"'{what}, but how many an iteration has is not known here; write a length as '500it' or '5ep'"
        )


@pytest.mark.parametrize(("wrong", "what"), [("1.5sa", "samples; write '2sa'"), ("1.25e1tok", "tokens; write '13tok'")])
def test_part_of_a_sample_is_refused(wrong, what):
    with pytest.raises(ValueError, match="whole") as caught:
        Duration.parse(wrong)
    assert str(caught.value) == f"'{wrong}' is not a whole number of {what}"


def test_what_is_longer_than_any_run_is_refused():
    with pytest.raises(ValueError, match="'1e19tok' is longer than any run"):
        Duration.parse("1e19tok")
