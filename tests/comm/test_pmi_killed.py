"""Jobs of horovodrun whose ranks are MPI's, killed at random moments: nothing is left running, or in shared memory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALONE = ["unshare", "--mount", "--map-root-user"]


@pytest.mark.thorough
def test_nothing_is_left_of_killed_jobs():
    if shutil.which("unshare") is None or subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces here (unshare --mount --map-root-user)")
    program = [sys.executable, "tests/programs/kill_jobs.py", "50", "7"]
    mount = 'mount -t tmpfs none /dev/shm && exec "$@"'
    done = subprocess.run(
        [*ALONE, "sh", "-c", mount, "sh", *program], cwd=ROOT, stdout=subprocess.PIPE, timeout=3000, check=True
    )
    found = json.loads(done.stdout)
    assert found["left"] == []
    assert sum(found["killed"].values()) == 50
    assert found["with_server"] > 10, "most jobs were killed too early to say anything"
