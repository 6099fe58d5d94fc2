"""Many paths in one block: what comes out is what went in, in any order."""

from __future__ import annotations

import os
import random
import tracemalloc

import numpy as np
import pytest

from harness.data.paths import Paths


@pytest.mark.parametrize("count", [0, 1, 511, 512, 513, 10_000])
def test_what_comes_out_is_what_went_in(count):
    generator = random.Random(count)
    letters = "abc/ÄÖ漢 .-\t"
    paths = ["".join(generator.choices(letters, k=generator.randrange(0, 40))) for _ in range(count)]
    found = Paths.of(iter(paths))
    assert (len(found), list(found)) == (count, paths)
    assert b"".join(found.blocks()) == b"".join(os.fsencode(path) + b"\0" for path in paths)
    order = np.array(generator.sample(range(count), count), np.int64)
    other = found.ordered(order)
    assert b"".join(other.blocks()) == b"".join(os.fsencode(paths[row]) + b"\0" for row in order)
    assert list(other) == [paths[row] for row in order]
    assert list(other.ordered(order)) == [paths[order[row]] for row in order]


def test_names_that_are_no_text_stay_what_they_are():
    name = os.fsdecode(b"caf\xe9.jpg")
    assert list(Paths.of([name, "x"])) == [name, "x"]


def test_places_are_those_of_a_list():
    found = Paths.of("abc")
    assert (found[-1], found[np.int64(1)]) == ("c", "b")
    for number in (3, -4):
        with pytest.raises(IndexError):
            found[number]


def test_a_hundred_thousand_take_less_than_five_megabytes():
    tracemalloc.start()
    found = Paths.of(f"n{number % 1000:08}/n{number % 1000:08}_{number}.JPEG" for number in range(100_000))
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found[77_777] == "n00000777/n00000777_77777.JPEG"
    assert held < 4.5e6
    assert peak < 9e6
