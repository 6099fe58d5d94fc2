"""The verdict on two series of losses, and the page that shows them."""

from __future__ import annotations

import re

import pytest

from harness.bridge.replay import Replayed, write_replay
from harness.bridge.replaying import Losses


def series(torch, reordered, exact):
    rows = [Losses(7, 0.1, 1.0, 1.0, (1.0,), 1.0), Losses(8, 0.1, 0.5, torch, (reordered, 0.5), exact)]
    return Replayed(rows, 1e-6, 2e-6)


@pytest.mark.parametrize(
    ("torch", "reordered", "exact", "agrees"),
    [
        (0.5, 0.5, 0.5, True),
        (0.5 + 1e-7, 0.5, 0.5 + 1e-7, False),
        (0.5 + 6e-7, 0.5 - 7e-7, 0.5 + 6e-7, True),
        (0.5 + 8e-7, 0.5 - 7e-7, 0.5 + 8e-7, False),
        (0.5 + 8e-7, 0.5 - 7e-7, 0.5 + 6e-7, True),  # of which PyTorch itself rounds 2e-7
    ],
)
def test_pytorch_is_to_be_as_near_as_another_order_of_addition(torch, reordered, exact, agrees, tmp_path):
    found = series(torch, reordered, exact)
    assert found.agrees == agrees
    assert found.verdict().endswith(": the same run" if agrees else ": NOT the same run")
    write_replay(tmp_path / "replay.html", "digits", "nets:mlp", found)
    page = (tmp_path / "replay.html").read_text()
    assert found.verdict() in page
    assert "digits in MXNet and in PyTorch" in page
    assert len(re.findall("<figure>", page)) == 3
