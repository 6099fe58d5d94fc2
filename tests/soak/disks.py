"""A disk that a soak can fill."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small_disk(megabytes: int = 24) -> Iterator[tuple[Path, bool]]:
    """A folder, and whether it is on a disk of its own, which takes root."""
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder]
        is_mounted = subprocess.run(mount, check=False).returncode == 0
        try:
            yield Path(folder), is_mounted
        finally:
            if is_mounted:
                subprocess.run(["umount", "-l", folder], check=False)


def fill(folder: Path, for_s: float) -> None:
    """Leave no space on a disk for a while."""
    path = folder / "full"
    try:
        with path.open("wb", buffering=0) as file:
            while file.write(bytes(65536)):
                pass
    except OSError:
        pass
    time.sleep(for_s)
    path.unlink(missing_ok=True)
