"""What soaks share: a disk that they can fill, and whether a job stays level."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
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


def is_level(what: str, samples: Sequence[tuple[float, int]]) -> bool:
    """Whether memory (MiB) and open files are no more in the last third of the samples than in the one before."""
    third = len(samples) // 3
    early, late = samples[third : 2 * third], samples[2 * third :]
    memories = [statistics.median(memory for memory, _ in part) for part in (early, late)]
    files = [statistics.median(number for _, number in part) for part in (early, late)]
    print(f"{what}: memory {memories[0]:.1f} -> {memories[1]:.1f} MiB, open files {files[0]} -> {files[1]}", flush=True)
    return memories[1] <= 1.02 * memories[0] and files[1] <= files[0]
