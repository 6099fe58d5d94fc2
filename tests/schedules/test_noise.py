"""Noise that seed and iteration determine; its numbers against timm's are in test_peers.py."""

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from harness.schedules import BoundError, ConstantSchedule, NoisySchedule, PolySchedule, SpecError, parse_spec
from harness.schedules.ends import end_of
from harness.schedules.spec import Frame

ONE = ConstantSchedule(1)


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
@pytest.mark.parametrize("noise", [0.01, 0.3, 0.99])
def test_it_stays_inside_and_uses_the_room(distribution, noise):
    values = NoisySchedule(ONE, noise, distribution).values(np.arange(1000)) - 1
    assert np.abs(values).max() < noise
    assert values.max() > 0.95 * noise
    assert values.min() < -0.95 * noise
    assert abs(values.mean()) < 0.1 * noise


def test_it_begins_and_ends():
    schedule = NoisySchedule(ONE, 0.5, start_idx=10, length=5)
    assert [t for t in range(30) if schedule(t) != 1] == [10, 11, 12, 13, 14]
    assert schedule.breakpoints(30) == (10, 15)
    assert schedule.total_length == 15
    assert NoisySchedule(ONE).total_length is None
    assert end_of(NoisySchedule(PolySchedule(1, 90))) == 90


def test_the_number_of_an_iteration_depends_on_nothing_else():
    """Not on the schedule, not on where the noise begins, not on another generator; on the seed it does."""
    alone = NoisySchedule(ONE, 0.5)(77)
    assert NoisySchedule(ConstantSchedule(3), 0.5, start_idx=70)(77) == pytest.approx(3 * alone, rel=1e-15)
    np.random.seed(3)
    assert NoisySchedule(ONE, 0.5)(77) == alone
    assert NoisySchedule(ONE, 0.5, seed=43)(77) != alone
    assert NoisySchedule(ONE, 0.5, seed=43)(76) == alone  # timm adds them


def test_it_leaves_the_generators_of_others_alone():
    np.random.seed(3)
    expected = np.random.random(2).tolist()
    np.random.seed(3)
    first = np.random.random()
    NoisySchedule(ONE)(5)
    assert [first, np.random.random()] == expected


def test_threads_and_copies_draw_the_same():
    schedule = NoisySchedule(ONE, 0.5)
    expected = [schedule(t) for t in range(300)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(schedule, range(300))) == expected
    assert [pickle.loads(pickle.dumps(schedule))(t) for t in range(300)] == expected


def test_another_process_draws_the_same():
    code = "from harness.schedules import *; print(repr(NoisySchedule(ConstantSchedule(1), 0.5)(77)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert float(run.stdout) == NoisySchedule(ONE, 0.5)(77)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"noise": 1}, "noise must be a finite number >= 0.01 and < 1, found 1"),
        ({"noise": 0}, "noise must be a finite number >= 0.01 and < 1, found 0"),
        ({"distribution": "gamma"}, "distribution must be one of normal, uniform, found 'gamma'"),
        ({"seed": -1}, "seed must be an int >= 0, found -1"),
        ({"seed": 2**31}, "seed must be an int >= 0 and < 2^31, found 2147483648"),
        ({"start_idx": 1.5}, "start_idx must be an int >= 0, found 1.5"),
        ({"length": 0}, "length must be an int >= 1, found 0"),
    ],
)
def test_bounds(arguments, message):
    with pytest.raises(BoundError) as caught:
        NoisySchedule(ONE, **arguments)
    assert str(caught.value) == f"NoisySchedule: {message}"


def test_in_yaml():
    raw = {"noisy": {"schedule": "1x", "noise": 0.3, "seed": 7, "start_idx": "20%", "length": "1ep"}}
    built = parse_spec(raw).build(Frame(100, 1000, 0.5))
    assert built == NoisySchedule(ConstantSchedule(0.5), 0.3, "normal", 7, 200, 100)
    assert parse_spec(parse_spec(raw).raw) == parse_spec(raw)
    assert parse_spec({"noisy": {"schedule": 1}}).build(Frame(100, 1000, 0.5)) == NoisySchedule(ONE)
    with pytest.raises(SpecError) as caught:
        parse_spec({"noisy": {"schedule": 1, "seed": 1.5, "noise": 2, "distribution": "norml"}})
    assert str(caught.value).splitlines() == [
        "noisy.noise: must be a finite number >= 0.01 and < 1, found 2",
        "noisy.distribution: 'norml' is not allowed; did you mean 'normal'? known: normal, uniform",
        "noisy.seed: must be a whole number from 0 to 2^31 - 1, found 1.5",
    ]
