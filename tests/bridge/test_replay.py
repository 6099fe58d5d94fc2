"""The verdict on two series of losses, and the page that shows them."""

from __future__ import annotations

import re

import numpy as np
import pytest

from harness.bridge.of_gluon import update
from harness.bridge.replay import learner_in_order, write_replay
from harness.bridge.replaying import in_order
from harness.bridge.verdict import Losses, Replayed
from harness.comm import SingleWorld
from harness.config import load_config
from harness.train.prepare import prepare_run

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


def test_networks_of_which_shapes_are_inferred_are_built_in_every_order(tmp_path):
    """Compiled, without dropout; with the run's weights."""
    words = ["network={name: cnn, params: {channels: [4], dropout: 0.5}}", "batch.shards=1", f"output={tmp_path}"]
    run = prepare_run(load_config("configs/digits.yaml", words), SingleWorld(), threads=1)
    try:
        with run.stream() as stream:
            batch = stream(1)
        losses = []
        for number in (0, 1):
            learner = learner_in_order(run, number)
            with in_order(number):
                losses += [update(learner, batch, 0.1, None) for _ in range(3)]
    finally:
        run.close()
    assert losses[:3] == pytest.approx(losses[3:], rel=1e-6)
    assert losses[0] > losses[2]
    assert (np.array(losses[:3]) != losses[3:]).any()
