"""What a run that goes on with other workers finds in its folder."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from harness.errors import ConfigError
from harness.folder import RunFolder
from harness.train.beginning import open_run_folder


def test_a_host_without_the_folder_is_told_what_all_hosts_need(tmp_path):
    run = SimpleNamespace(
        folder=RunFolder(tmp_path / "run"), config=SimpleNamespace(elastic=SimpleNamespace(wait_s=0.0))
    )
    with pytest.raises(ConfigError, match="where this folder is missing; where workers come and go"):
        open_run_folder(SimpleNamespace(is_open=True, run=run))
    run.folder.path.mkdir()
    assert open_run_folder(SimpleNamespace(is_open=True, run=run)) == []
    run.folder.close()
