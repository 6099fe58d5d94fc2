"""What a command line and a launcher have to agree on."""

from __future__ import annotations

from argparse import Namespace
from types import SimpleNamespace

import pytest

from harness.comm import Launch
from harness.command.joining import read_settings
from harness.errors import ConfigError


@pytest.mark.parametrize(
    ("launch", "started"),
    [
        (Launch("mpirun (MPICH)", 1, 2, 1, 2), "mpirun (MPICH) started 2;"),
        (Launch("horovodrun", 0, 1, 0, 1, is_elastic=True), "horovodrun started an elastic job;"),
    ],
)
def test_what_one_process_does_for_all_ranks_goes_with_no_launcher(launch, started):
    startup = SimpleNamespace(enter=lambda phase: None, limit=lambda section: None)
    options = Namespace(config="configs/digits.yaml", set=[], emulate_np=2)
    with pytest.raises(ConfigError, match="runs all shards in one process") as told:
        read_settings(options, lambda config: None, launch, startup)
    assert started in str(told.value)
    assert "drop one" in str(told.value)
