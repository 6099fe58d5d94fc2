#!/usr/bin/env python
"""Half an hour in which workers of elastic jobs come and go, np 1 to 6: joins, removals, kills, freezes, full disks.

By hand, seeded: `OMP_NUM_THREADS=1 python tests/soak/elastic.py [--minutes 30] [--seed 0]`. Run after run is tormented
until it is done. It ends with 1 if one hung, did not end with the bits of the run of one process, lost or repeated an
update in its metrics, or left something running. In the last third of the time the first worker of one job is spared
while others join and are lost all the time: its memory and open files must stay level. Filling a disk needs root, for a
tmpfs of its own.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.jobs.elastic import ROOT, ElasticJob, Worker, metrics_of, without_clocks
from tests.soak.disks import fill, is_level, small_disk

MOST = 6
STALL_S = 8
HANGS_AFTER_S = 90.0
SETTINGS = (
    "network={name: cnn, params: {channels: [8, 16], hidden: 32, dropout: 0.3, batch_norm: true}}",
    "data.augment={pad_crop: 1, flip: true, mean: [0.3], std: [0.4]}",
    f"batch={{size: 8, shards: {MOST}}}",
    "evaluation={every: 100it, metrics: [accuracy]}",
    "checkpoint={every: 25it, keep: 3, on_failure: continue}",
    "log={every: 1it, tensorboard: false}",
    "lr.base=0.02",
    "threads_per_rank=1",
    f"guard={{stall_after_s: {STALL_S}, stall_after_evaluation_s: {STALL_S}, stall_after_first_s: 30}}",
    "guard.verify_every=50it",
    "elastic.wait_s=60",
)


class Soak:
    """Counts what was done, and what went wrong."""

    def __init__(self, folder: Path, disk: Path | None, seed: int) -> None:
        self.folder, self.disk = folder, disk
        self.random = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []

    def unbroken(self, num_iterations: int) -> tuple[str, list[dict]]:
        """Digest and metrics of the run of one process."""
        output = self.folder / "unbroken"
        settings = (*SETTINGS, f"train={{iterations: {num_iterations}}}", f"output={output}")
        words = [word for setting in settings for word in ("--set", setting)]
        done = subprocess.run(
            [sys.executable, "launch/train.py", *words], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return re.findall(r"digest ([0-9a-f]{64})", done.stdout)[-1], without_clocks(metrics_of(output / "digits"))

    def start(self, number: int, num_iterations: int) -> ElasticJob:
        output = None if self.disk is None else self.disk / f"run-{number}"
        settings = (*SETTINGS, f"train={{iterations: {num_iterations}}}")
        np = self.random.randint(1, MOST)
        return ElasticJob(self.folder / f"job-{number}", settings, np, output=output, max_np=MOST)

    def torment(self, job: ElasticJob, until_s: float) -> bool:
        """Faults until the run is done; whether its disk was never full."""
        seen, moved_s, was_full = 0, time.monotonic(), False
        next_s = time.monotonic() + 1
        while job.process.poll() is None:
            now_s = time.monotonic()
            if job.iteration() != seen:
                seen, moved_s = job.iteration(), now_s
            if now_s - moved_s > HANGS_AFTER_S:
                self.wrong.append(f"no progress for {HANGS_AFTER_S:g} s in {job.folder.name}\n{job.describe()}")
                return False
            if job.size() is not None and next_s < now_s < until_s:
                was_full = self.fault(job) == "full disk" or was_full
                next_s = time.monotonic() + self.random.uniform(0.5, 6)
            time.sleep(0.2)
        return not was_full

    def fault(self, job: ElasticJob) -> str:
        """Let something happen; returns what."""
        trained = [worker for worker in job.workers() if worker.rank is not None and worker.host in job.hosts]
        kinds = ["full disk"] if self.disk is not None else []
        if len(job.hosts) < MOST:
            kinds += ["join", "join"] if len(trained) > 1 else ["join"]
        if len(trained) > 1:
            kinds += ["kill", "kill", "freeze", "SIGTERM", "remove", "kill and join"]
        if not kinds:
            return "nothing"
        kind = self.random.choice(kinds)
        self.done[kind] += 1
        if kind == "full disk":
            fill(self.disk, self.random.uniform(0.5, 3))
            return kind
        if kind not in ("join",):
            self.lose(job, self.random.choice(trained), kind)
        if "join" in kind:
            job.add_hosts(self.random.randint(1, MOST - len(job.hosts)))
        return kind

    def lose(self, job: ElasticJob, worker: Worker, kind: str) -> None:
        signals = {"freeze": signal.SIGSTOP, "SIGTERM": signal.SIGTERM, "remove": None}
        number = signals.get(kind, signal.SIGKILL)
        if number is not None:
            job.send(worker, number)
            time.sleep(self.random.uniform(0, 0.5))
        job.remove_hosts([worker.host])  # a cluster manager has seen it, or takes it away

    def check(self, job: ElasticJob, expected: tuple[str, list[dict]], *, was_spared: bool) -> None:
        """The end of a run, against that of one process."""
        digest, metrics = expected
        found = without_clocks(job.metrics())
        updates = [line["iteration"] for line in found if line["split"] == "train"]
        if job.process.returncode != 0:
            self.wrong.append(f"{job.folder.name} ended with {job.process.returncode}\n{job.describe()}")
        elif job.digest != digest:
            self.wrong.append(f"{job.folder.name}: digest {job.digest} instead of {digest}\n{job.describe()}")
        elif was_spared and found != metrics:
            self.wrong.append(f"{job.folder.name}: the metrics are not those of one process")
        elif updates != sorted(set(updates)):
            self.wrong.append(f"{job.folder.name}: an update was logged twice")
        if left := job.left_behind():
            self.wrong.append(f"{job.folder.name}: left running: {left}")
        self.done["runs done"] += not self.wrong
        self.done["worlds"] += len(job.worlds())

    def watch(self, job: ElasticJob, until_s: float) -> None:
        """Memory and open files of the worker that was there from the start, through one change after another."""
        job.wait_for("an update", lambda: job.iteration() > 20)
        spared = next(worker for worker in job.workers() if worker.rank == 0)
        samples, number = [], len(job.worlds())
        seen, moved_s = 0, time.monotonic()
        while time.monotonic() < until_s and job.process.poll() is None:
            others = [one for one in job.workers() if one.pid != spared.pid and one.rank is not None]
            if len(job.hosts) < 3:
                job.add_hosts(3 - len(job.hosts))
            elif others:
                self.lose(job, self.random.choice(others), self.random.choice(("kill", "remove")))
            number = len(job.worlds())
            while len(job.worlds()) == number and time.monotonic() < until_s:
                if job.iteration() != seen:
                    seen, moved_s = job.iteration(), time.monotonic()
                if time.monotonic() - moved_s > HANGS_AFTER_S or job.process.poll() is not None:
                    self.wrong.append(f"the spared worker's job stands still\n{job.describe()}")
                    return
                time.sleep(0.1)
            time.sleep(1)
            samples.append(measured(spared.pid))
        if len(samples) < 9:
            self.wrong.append(f"only {len(samples)} looks at the spared worker")
        elif not is_level(f"the spared worker, {len(job.worlds())} worlds", samples):
            self.wrong.append("memory or open files of the spared worker grew")
        self.done["worlds"] += len(job.worlds())
        for worker in job.workers():
            job.send(worker, signal.SIGTERM)
        code = job.end()
        print(f"the spared worker's job ended with {code} when it was asked to", flush=True)
        if left := job.left_behind():
            self.wrong.append(f"left running after SIGTERM: {left}")


def measured(pid: int) -> tuple[float, int]:
    """Memory in MiB and open files of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20, len(os.listdir(f"/proc/{pid}/fd"))


def soak(options: argparse.Namespace, folder: Path, disk: Path | None) -> Sequence[str]:
    """Torment runs, one after the other, then spare one worker; returns what went wrong."""
    begun_s, torment_s = time.monotonic(), 40 * options.minutes
    one = Soak(folder, disk, options.seed)
    expected, number = one.unbroken(options.iterations), 0
    while time.monotonic() < begun_s + torment_s and not one.wrong:
        number += 1
        job = one.start(number, options.iterations)
        try:
            was_spared = one.torment(job, begun_s + torment_s)
            if not one.wrong:
                one.check(job, expected, was_spared=was_spared)
        finally:
            job.kill_all()
        print(f"{(time.monotonic() - begun_s) / 60:.1f} min: {dict(one.done)}", flush=True)
        shutil.rmtree(job.output, ignore_errors=True)
    if not one.wrong:
        job = one.start(0, 10**6)
        try:
            one.watch(job, begun_s + 60 * options.minutes)
        finally:
            job.kill_all()
    print(f"{(time.monotonic() - begun_s) / 60:.1f} minutes, seed {options.seed}: {dict(one.done)}")
    return one.wrong


def main() -> int:
    """Torment runs on a small disk, and say what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=1200, help="of a run (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, small_disk() as (disk, is_mounted):
        wrong = soak(options, Path(folder), disk if is_mounted else None)
    print("\n".join(f"WRONG: {what}" for what in wrong) or "nothing hung, no update was lost, nothing was left running")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
