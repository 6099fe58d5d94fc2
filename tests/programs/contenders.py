"""Processes that all want one run's folder at the same moment, round after round: who got it.

`contenders.py FOLDER ROUNDS HOW...`: one process for each HOW, which is `overwrite`, `new`, `resume` or `finder`.
Prints JSON: `owners`, of every round the numbers of the contenders that owned the folder at once, and the texts of
`refusals`.
"""

from __future__ import annotations

import json
import multiprocessing
import re
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from harness.errors import ConfigError
from harness.folder import RunFolder
from harness.train.resume import StartOptions, find_resume_point, open_folder


def take(folder: RunFolder, how: str) -> str:
    """Why the folder is not this process's now; empty if it is."""
    start = StartOptions(resume="auto" if how == "resume" else "never", overwrite=how == "overwrite")
    try:
        if how == "finder":
            folder.open()
        else:
            open_folder(folder, start, find_resume_point(folder, start))
    except ConfigError as error:
        return re.sub(r"\d+", "N", str(error))
    return ""


def contend(path: Path, how: str, rounds: int, barrier, queue, number: int) -> None:
    """One process: try, wait until everybody has tried, let go, wait until everybody has let go."""
    for k in range(rounds):
        barrier.wait()
        folder = RunFolder(path)
        refusal = take(folder, how)
        if not refusal and how != "finder":
            with suppress(FileNotFoundError):  # another one owns it as well, and has moved it
                (path / "config.yaml").write_text("{}\n", encoding="utf-8")
        queue.put((k, number, refusal))
        barrier.wait()
        folder.close()
        barrier.wait()
        if how == "new" and number == 0:
            shutil.rmtree(path, ignore_errors=True)


def main() -> None:
    """Start them, and count."""
    path, rounds, ways = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(len(ways)), context.SimpleQueue()
    processes = [
        context.Process(target=contend, args=(path, how, rounds, barrier, queue, number), daemon=True)
        for number, how in enumerate(ways)
    ]
    for process in processes:
        process.start()
    owners: list[list[int]] = [[] for _ in range(rounds)]
    refusals: set[str] = set()
    for _ in range(rounds * len(ways)):
        k, number, refusal = queue.get()
        if refusal:
            refusals.add(refusal)
        else:
            owners[k].append(number)
    for process in processes:
        process.join()
    print(json.dumps({"owners": owners, "refusals": sorted(refusals)}))


if __name__ == "__main__":
    main()
