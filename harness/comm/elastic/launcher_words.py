"""With how many workers horovodrun goes on at least: it tells nobody, but its command line does."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from harness.processes import parent


def fewest_workers() -> int:
    """`--min-np`, where a process above this one is horovodrun; 1 on hosts on which it does not run."""
    pid = parent(os.getpid())
    while pid:
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
            least = fewest_in(words)
            if least is not None:
                return least
        pid = parent(pid)
    return 1


def fewest_in(words: Sequence[str]) -> int | None:
    """What a command line says; `None` of another program's.

    >>> fewest_in(["python", "bin/horovodrun", "-np", "4", "--min-np", "2", "python", "train.py"])
    2
    >>> fewest_in(["python", "bin/horovodrun", "-np=4", "--host-discovery-script", "hosts.sh", "python", "train.py"])
    4
    >>> fewest_in(["python", "train.py", "--min-np", "2"])
    """
    names = [Path(word).name for word in words]
    if "horovodrun" not in names:
        return None
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("-np", "--num-proc", type=int, default=1)
    parser.add_argument("--min-np", "--min-num-proc", type=int, dest="least")
    parser.add_argument("--config-file")
    try:
        found, _ = parser.parse_known_args(words[names.index("horovodrun") + 1 :])
    except (argparse.ArgumentError, SystemExit):
        return None
    if found.least is None:
        return 1 if found.config_file else int(found.num_proc)  # the default of Horovod 0.28.1
    return int(found.least)
