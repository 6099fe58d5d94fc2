"""Modules that programs import by the names they had before they were moved."""

from __future__ import annotations

import importlib

import pytest


@pytest.mark.parametrize(
    ("earlier", "now"),
    [("harness.gluon.nets", "harness.model.networks"), ("harness.guard.lifeline", "harness.guard.heartbeat")],
)
def test_an_earlier_name_is_the_same_module(earlier, now):
    assert importlib.import_module(earlier) is importlib.import_module(now)
