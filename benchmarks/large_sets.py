#!/usr/bin/env python
"""What the start of a run on a million pictures takes: seconds of CPU, and MB over what the imports take.

python benchmarks/large_sets.py [--pictures 1281167] [--files 200000] [--json FILE]

Makes a .rec file of that many records, almost all of which is a hole on the disk, its index, a list, and `--files`
empty files in folders of a thousand classes. Each of these is then opened by a process of its own, as a run opens it;
of the records, the first and the 64 that tell one set from another are there, and are looked at.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = 1000
PROGRAM = """
import json, re, sys, time
from pathlib import Path
import numpy as np
import cv2, simplejpeg
from harness.data import Order, load
from harness.data.folders import listed_file, listed_folder
from harness.data.pictures.decoding import Size, decoders
from harness.data.pictures.recipe import Recipe
from harness.data.pictures.request import PictureRequest, SplitFiles
decoders()
root, kind = Path(sys.argv[1]), sys.argv[2]

def peak():  # ru_maxrss would begin with that of the process that started this one
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

def records():
    request = PictureRequest(SplitFiles((Path("a.rec"),)), None, None, Recipe(Size(8, 8), 8), num_classes=1000)
    splits = load("records", root=str(root), pictures=request)
    splits.fingerprint()
    return splits.train

def order():
    made = Order(int(sys.argv[3]), 8, 128, 0)
    made.global_indices(1)
    return range(made.num_samples)

work = {
    "records": records,
    "order": order,
    "folder": lambda: listed_folder(root / "set"),
    "list": lambda: listed_file(root, root / "a.lst"),
}[kind]
before, began = peak(), time.process_time()
found = work()
print(json.dumps({"count": len(found), "s": time.process_time() - began, "mb": peak() - before}))
"""


def make_records(root: Path, count: int) -> None:
    """`a.rec`, `a.idx` and `a.lst`: sizes as ImageNet's, in the order of a shuffle, as im2rec writes them."""
    import simplejpeg

    random = np.random.default_rng(0)
    sizes = random.integers(15_000, 55_000, count) * 4
    ends = np.cumsum(sizes)
    keys = random.permutation(count)
    with (root / "a.idx").open("w") as file:
        file.writelines(f"{key}\t{start}\n" for key, start in zip(keys.tolist(), (ends - sizes).tolist(), strict=True))
    with (root / "a.lst").open("w") as file:
        file.writelines(
            f"{key}\t{key % CLASSES}.000000\tn{key % CLASSES:08}/n{key:016}.JPEG\n" for key in keys.tolist()
        )
    content = simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8))
    held = struct.pack("<IfQQ", 0, 1.0, 0, 0) + content
    record = struct.pack("<II", 0xCED7230A, len(held)) + held
    looked_at = {0, count - 1, *np.linspace(0, count - 1, 64).astype(np.int64).tolist()}
    with (root / "a.rec").open("wb") as file:
        file.truncate(int(ends[-1]))
        for place in np.flatnonzero(np.isin(keys, list(looked_at))).tolist():
            file.seek(int(ends[place] - sizes[place]))
            file.write(record)


def make_files(root: Path, count: int) -> None:
    """Empty files in a folder for each class."""
    for number in range(CLASSES):
        folder = root / "set" / f"n{number:08}"
        folder.mkdir(parents=True)
        for one in range(number, count, CLASSES):
            os.close(os.open(folder / f"n{number:08}_{one}.JPEG", os.O_CREAT))


def opened(root: Path, kind: str, count: int) -> dict[str, Any]:
    """What opening one of them takes, the median of three processes by time."""
    words = [sys.executable, "-c", PROGRAM, str(root), kind, str(count)]
    found = []
    for _ in range(3):
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout))
    return sorted(found, key=lambda one: one["s"])[1]


def main() -> None:
    """Make, open, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=1_281_167)
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_records(root, options.pictures)
        make_files(root, options.files)
        for kind in ("records", "list", "folder", "order"):
            found[kind] = opened(root, kind, options.pictures)
    names = {
        "records": "records, from the index alone",
        "list": "a folder by its list",
        "folder": "a folder without a list",
        "order": "the order of an epoch",
    }
    print("| | pictures | s | MB |\n|---|---|---|---|")
    for kind, one in found.items():
        print(f"| {names[kind]} | {one['count']:,} | {one['s']:.2f} | {one['mb']:.0f} |")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
