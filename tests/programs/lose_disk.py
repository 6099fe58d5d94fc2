"""`launch/train.py` on a disk that goes away: the folder of sets is deleted after the second set was written."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

import harness.checkpoint.writer as writer

plain_keep = writer.keep_newest
written = []


def keep_and_lose(folder: Path, keep: int, protected=()):
    plain_keep(folder, keep, protected)
    written.append(folder)
    if len(written) == 2:
        shutil.rmtree(folder)


writer.keep_newest = keep_and_lose
runpy.run_path("launch/train.py", run_name="__main__")
