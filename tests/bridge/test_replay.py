"""The verdict on two series of losses, and the page that shows them."""

from __future__ import annotations

import re

import pytest

from harness.bridge.replay import Replayed, write_replay
from harness.bridge.replaying import Losses

UNIT = 2.0**-24


def replayed(torch, *reordered):
    """Losses in units, of a run whose own are all 0.5."""
    rows = [
        Losses(7 + number, 0.1, 0.5, 0.5 + UNIT * one, [0.5 + UNIT * other for other in others])
        for number, (one, *others) in enumerate(zip(torch, *reordered, strict=True))
    ]
    return Replayed(rows, 1e-6, 2e-6)


@pytest.mark.parametrize(
    ("torch", "reordered", "difference", "allowed"),
    [
        ((0, 0), ((0, 0), (0, 0)), 0, 0),
        ((0, -1), ((0, 0), (0, 0)), 1, 0),
        ((0, -8), ((0, 4), (0, 0)), 8, 4),
        ((4, 3), ((0, 3), (0, -1)), 4, 4),  # two that are on either side of the run's
        ((5, 4), ((3, 3), (-1, -1)), 5, 4),
        ((1, 4), ((4, -1), (0, 0)), 4, 4),  # in whichever iteration
    ],
)
def test_pytorch_is_to_be_as_near_as_two_orders_of_addition(torch, reordered, difference, allowed, tmp_path):
    found = replayed(torch, *reordered)
    assert (found.differences.max(), found.rounding.max()) == (UNIT * difference, UNIT * allowed)
    agrees = difference <= allowed
    assert found.agrees == agrees
    told = "the same run" if agrees else "NOT SHOWN to be" if difference < 2 * allowed else "NOT the same run"
    assert f": {told}" in found.verdict()
    write_replay(tmp_path / "replay.html", "digits", "nets:mlp", found)
    page = (tmp_path / "replay.html").read_text()
    assert found.verdict() in page
    assert "digits in MXNet and in PyTorch" in page
    assert len(re.findall("<figure>", page)) == 3
