#!/usr/bin/env python
"""Half an hour in which workers of elastic jobs come and go: joins, kills, freezes, notices, removed hosts, full disks.

By hand, seeded, as root: `OMP_NUM_THREADS=1 python tests/soak/elastic.py [--minutes 30] [--seed 0]`. For two thirds of
the time run after run of 1 to 6 workers is tormented until it is done. Every second of them writes to a disk that is
full now and then. Then one worker of a run is spared while others join and are lost all the time: its memory, open
files and threads must stay level, and so must what the job keeps in /dev/shm.

Wrong is a job that does not progress, or does not let workers join, for 90 s; bits that are not those of the run of one
process; an update that is missing from the metrics or there twice (when a disk was full, lines may be missing, but none
may be wrong); processes that are left behind, and files in /dev/shm or in the folder for temporary files. Of what a
whole soak has and this one had not (a kind of fault, a number of workers, enough looks), it is said that it was not
judged. Without root there is no small disk, and no /dev/shm of its own.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.jobs.elastic import ROOT, Worker, metrics_of, without_clocks
from tests.soak.disks import fill, small_disk
from tests.soak.tormented import Tormented
from tests.soak.verdicts import EXIT_CODES, Verdict

MOST = 6
STALL_S = 8
WATCHED_PAUSE_S = 0.3  # in each update of the watched job, which limits how many there can be
SHORTEST_WATCH_S = 45.0
SETTINGS = (
    "network={name: cnn, params: {channels: [8, 16], hidden: 32, dropout: 0.3, batch_norm: true}}",
    "data.augment={pad_crop: 1, flip: true, mean: [0.3], std: [0.4]}",
    f"batch={{size: 8, shards: {MOST}}}",
    "evaluation={every: 100it, metrics: [accuracy]}",
    "checkpoint={every: 25it, keep: 3, on_failure: continue}",
    "log={every: 1it, tensorboard: false}",
    "lr.base=0.02",
    "threads_per_rank=1",
    f"guard={{stall_after_s: {STALL_S}, stall_after_evaluation_s: {STALL_S}, stall_after_first_s: 80}}",
    "guard.verify_every=50it",
    "elastic.wait_s=60",
)
LOSSES = ("kill", "kill", "freeze", "SIGTERM", "remove")
OF_A_WHOLE_SOAK = {*LOSSES, "kill and join", "join", "nap", "calm", "ends"}
WITH_A_DISK = {"full disk", "ends after a full disk"}

Expected = Future[tuple[str, list[dict]]]  # digest and metrics of the run of one process, which takes its time


class Soak:
    """Torments jobs, and judges them."""

    def __init__(self, folder: Path, disk: Path | None, seed: int, iterations: int) -> None:
        self.folder, self.disk, self.iterations = folder, disk, iterations
        self.random = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.sizes: Counter[int] = Counter()
        self.verdict = Verdict()
        self.longest_s = 0.0
        self._pool = ThreadPoolExecutor(1)

    def unbroken(self, num_iterations: int) -> Expected:
        return self._pool.submit(self._run_unbroken, num_iterations)

    def _run_unbroken(self, num_iterations: int) -> tuple[str, list[dict]]:
        output = self.folder / f"unbroken-{num_iterations}"
        settings = (*SETTINGS, f"train={{iterations: {num_iterations}}}", f"output={output}")
        words = [word for setting in settings for word in ("--set", setting)]
        done = subprocess.run(
            [sys.executable, "launch/train.py", *words], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return re.findall(r"digest ([0-9a-f]{64})", done.stdout)[-1], without_clocks(metrics_of(output / "digits"))

    @contextmanager
    def started(self, name: str, num_iterations: int, np: int, output: Path | None) -> Iterator[Tormented]:
        """A job; nothing of it runs afterwards."""
        settings = (*SETTINGS, f"train={{iterations: {num_iterations}}}")
        is_root = self.disk is not None
        one = Tormented(self.folder / name, settings, np, output, most=MOST, is_root=is_root)
        try:
            yield one
            shutil.rmtree(one.job.output, ignore_errors=True)
        finally:
            self.sizes.update(world["size"] for world in one.job.worlds())
            self.longest_s = max(self.longest_s, one.longest_s)
            one.end()

    # --- torment ---

    def torment(self, number: int, expected: Expected, until_s: float) -> None:
        """Faults until the time is over, and the end of the run.

        Raises:
            AssertionError: if something is wrong.
        """
        output = self.disk / f"run-{number}" if self.disk is not None and number % 2 == 0 else None
        with self.started(f"job-{number}", self.iterations, self.random.randint(1, MOST), output) as one:
            one.job.pause(self.random.choice((0, 0.01, 0.03)))
            was_full, next_s = False, time.monotonic() + 1
            while one.job.process.poll() is None:
                one.look()
                if one.job.size() is not None and next_s < time.monotonic() < until_s:
                    was_full = self.fault(one, fills=output is not None) == "full disk" or was_full
                    next_s = time.monotonic() + self.random.uniform(0.5, 6)
                time.sleep(0.1)
            self.judge_end(one, expected, may_miss=was_full)

    def fault(self, one: Tormented, *, fills: bool) -> str:
        """Let something happen; returns what."""
        unharmed, num_free = one.unharmed(), MOST - len(one.job.hosts)
        kinds = ["calm"]
        if fills:
            kinds += 2 * ["full disk"]
        if num_free > 0:
            kinds += (3 if len(unharmed) > 1 else 6) * ["join"]
        if len(unharmed) > 1:
            kinds += ["nap", "kill and join", *LOSSES]
        kind = self.random.choice(kinds)
        self.done[kind] += 1
        one.tell(kind)
        if kind == "full disk":
            fill(self.disk, self.random.uniform(0.5, 3))
        elif kind == "calm":
            one.wait_for("all that there are train together", one.trains_whole, may_end=True)
        elif kind == "nap":
            one.nap(self.random.choice(unharmed), self.random.uniform(0.2, 3))
        elif kind != "join":
            self.lose_some(one, unharmed, kind)
        if "join" in kind and num_free > 0:
            number = self.random.randint(1, num_free)
            one.join(number)
            self.done["workers added"] += number
        return kind

    def lose_some(self, one: Tormented, unharmed: list[Worker], kind: str) -> None:
        """Mostly one, sometimes several at once, but never all."""
        number = 1 if self.random.random() < 0.7 else self.random.randint(1, len(unharmed) - 1)
        for worker in self.random.sample(unharmed, number):
            one.lose(worker, kind, self.random.choice((0, 0.5, 3, 15)))
            self.done["workers lost"] += 1
            time.sleep(self.random.choice((0, 0, 0.1, 0.4)))

    # --- a spared worker ---

    def watch(self, until_s: float) -> None:
        """One change after another, through which the worker that was there from the start is level.

        Raises:
            AssertionError: if something is wrong.
        """
        num_iterations = int((until_s - time.monotonic()) / WATCHED_PAUSE_S)
        expected = self.unbroken(num_iterations)
        looks: dict[int, list[dict[str, float]]] = {}
        with self.started("watched", num_iterations, 3, None) as one:
            one.job.pause(WATCHED_PAUSE_S)
            one.job.wait_for("an update", lambda: one.job.iteration() > 5)
            spared = next(worker for worker in one.job.workers() if worker.rank == 0)
            while time.monotonic() < until_s:
                num_worlds = len(one.job.worlds())
                self.change_watched(one, spared)
                one.wait_for("another world", lambda n=num_worlds: len(one.job.worlds()) > n)
                time.sleep(1)
                looks.setdefault(one.job.size() or 0, []).append(one.measured(spared.pid))
            one.job.pause(0)
            while one.job.process.poll() is None:
                one.look()
                time.sleep(0.1)
            self.judge_end(one, expected, may_miss=False)
        self.judge_looks(looks)

    def change_watched(self, one: Tormented, spared: Worker) -> None:
        """One worker more or less, by turns."""
        others = [worker for worker in one.unharmed() if worker.pid != spared.pid]
        if len(one.hosts()) < 3 or not others:
            one.join(1)
            self.done.update(["join", "joins watched"])
        else:
            kind = self.random.choice(LOSSES)
            one.lose(self.random.choice(others), kind, 0.5)
            self.done.update([kind, "losses watched"])

    # --- judging ---

    def judge_end(self, one: Tormented, expected: Expected, *, may_miss: bool) -> None:
        """The end of a run, against that of one process.

        Raises:
            AssertionError: if something is wrong.
        """
        if left := one.left():
            one.fail(f"left behind: {left}")
        if may_miss and one.had_no_room_at_the_end():
            self.done["ends on a full disk"] += 1
            return
        digest, metrics = expected.result()
        found = without_clocks(one.job.metrics())
        rest = iter(metrics)
        if one.job.process.returncode != 0 and not one.was_hit_when_done():
            one.fail(f"ended with {one.job.process.returncode}")
        if one.job.digest != digest:
            one.fail(f"digest {one.job.digest} instead of {digest}")
        if not may_miss and found != metrics:
            one.fail("the metrics are not those of one process")
        if not all(line in rest for line in found):  # in this order, each once
            one.fail("there are metrics that one process does not have")
        self.done["ends after a full disk" if may_miss else "ends"] += 1

    def judge_looks(self, looks: dict[int, list[dict[str, float]]]) -> None:
        """Whether the spared worker was level, in worlds of each size that it was often in."""
        often = {size: several for size, several in looks.items() if 4 * len(several) > sum(map(len, looks.values()))}
        for size, several in sorted(often.items()) or [(3, [])]:
            self.verdict.judge_level(f"the spared worker among {size}", several)

    def judge_what_happened(self) -> None:
        """Whether there was everything that a whole soak has."""
        required = OF_A_WHOLE_SOAK | (set() if self.disk is None else WITH_A_DISK)
        missing = [kind for kind in sorted(required) if not self.done[kind]]
        missing += [f"a world of {size}" for size in range(1, MOST + 1) if not self.sizes[size]]
        self.verdict.unjudged += [f"{what}: too short, none occurred" for what in missing]
        if self.disk is None:
            self.verdict.unjudged.append("full disks, and what is left in /dev/shm: root alone can mount them")

    def describe(self) -> str:
        """What was done so far."""
        worlds = ", ".join(f"{number} of {size}" for size, number in sorted(self.sizes.items()))
        done = ", ".join(f"{number} {kind}" for kind, number in sorted(self.done.items()))
        return f"{done}; worlds: {worlds or 'none'}; longest time without an update: {self.longest_s:.1f} s"


def soak(minutes: float, one: Soak) -> None:
    """Torment runs, one after the other, then spare one worker."""
    begun_s = time.monotonic()
    torment_until_s, until_s = begun_s + 40 * minutes, begun_s + 60 * minutes

    def tell() -> None:
        print(f"{(time.monotonic() - begun_s) / 60:.1f} min: {one.describe()}", flush=True)

    try:
        expected, number = one.unbroken(one.iterations), 0
        while time.monotonic() < torment_until_s:
            number += 1
            one.torment(number, expected, torment_until_s)
            tell()
        if until_s - time.monotonic() > SHORTEST_WATCH_S:
            one.watch(until_s)
        else:
            one.judge_looks({})
    except AssertionError as wrong:
        one.verdict.wrong.append(str(wrong))
    one.judge_what_happened()
    tell()


def interrupted(number: int, _: object) -> None:
    """End once, and in good order, when asked to."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    """Torment runs, and say what went wrong."""
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\n{EXIT_CODES}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=600, help="of a run (default: %(default)s)")
    parser.add_argument("--keep", type=Path, help="a folder for the jobs' files, which are removed otherwise")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, interrupted)  # or its jobs would be left running
    with tempfile.TemporaryDirectory() as folder, small_disk() as (disk, is_mounted):
        if options.keep is not None:
            options.keep.mkdir(parents=True)
        one = Soak(options.keep or Path(folder), disk if is_mounted else None, options.seed, options.iterations)
        soak(options.minutes, one)
    return one.verdict.conclude("nothing hung, no update was lost, nothing was left behind")


if __name__ == "__main__":
    sys.exit(main())
