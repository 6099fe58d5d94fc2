import functools

import pytest

from harness.report.plots import as_png
from tests.report import folders


@pytest.fixture
def make_run(tmp_path):
    """Make the folder of a run below `tmp_path`."""
    return functools.partial(folders.make_run, tmp_path)


@pytest.fixture
def drawn(monkeypatch):
    """Draw the pictures of finders, which the other tests do without."""
    for page in ("finder", "across"):
        monkeypatch.setattr(f"harness.report.{page}.as_png", as_png)
