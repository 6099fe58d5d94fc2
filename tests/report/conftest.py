import functools

import pytest

from tests.report import folders


@pytest.fixture
def make_run(tmp_path):
    """Make the folder of a run below `tmp_path`."""
    return functools.partial(folders.make_run, tmp_path)
