"""What the tests of jobs share."""

from __future__ import annotations

import pytest

from tests.job.small import finished, job_of


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The digest of a job that nothing has interrupted."""
    return finished(job_of(tmp_path_factory.mktemp("whole")))
