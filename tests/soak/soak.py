#!/usr/bin/env python
"""Half an hour of bad luck at np=4: random stops, kills, frozen ranks, killed launchers and supervisors, full disks.

By hand, seeded: `OMP_NUM_THREADS=1 python tests/soak/soak.py [--minutes 30] [--seed 0] [--np 4]`. Wrong is a job that
hangs, a set that is lost, a run that does not come to its end, and whatever is left running. Filling a disk needs root,
for a tmpfs of its own. Then one job is left alone for a sixth of the time, and its memory and open files must stay
level.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from harness.checkpoint import iteration_of, list_checkpoints, newest_valid
from tests.soak.disks import fill, small_disk
from tests.soak.verdicts import EXIT_CODES, Verdict

ROOT = Path(__file__).parents[2]
HANGS_AFTER_S = 150
SETTINGS = (
    "network={name: cnn, params: {channels: [8, 16], hidden: 32, dropout: 0.3, batch_norm: true}}",
    "batch={size: 8, shards: 4}",
    "evaluation={every: 100it, metrics: [accuracy]}",
    "checkpoint={every: 25it, keep: 3, on_failure: continue}",
    "log.every=1it",
    "lr.base=0.02",
    "threads_per_rank=1",
    "guard={stall_after_s: 15, stall_after_first_s: 60, stall_after_evaluation_s: 15, verify_every: 50it}",
)


class Job:
    """A run under its supervisor, which is started again when it ended although the run is not done."""

    def __init__(self, output: Path, name: str, num_iterations: int, np: int) -> None:
        self.folder = output / name
        self._marker = f"name={name}"
        words = [*SETTINGS, f"train={{iterations: {num_iterations}}}", f"output={output}", self._marker]
        launcher = [str(Path(sys.executable).with_name("horovodrun")), "-np", str(np), sys.executable]
        self._command = [
            *(sys.executable, "launch/supervise.py", "--at-most", "1000", "--pause", "0.2", "--grace", "30", "--"),
            *(*launcher, "launch/train.py", "--resume", "auto", *(word for s in words for word in ("--set", s))),
        ]
        self._log = (output / f"{name}.log").open("ab")
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, cwd=ROOT, stdout=self._log, stderr=self._log)

    def members(self, kind: str) -> list[int]:
        """The processes of one kind: `ranks`, `launcher` or `all`."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == self.process.pid:
                continue
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if self._marker.encode() in words and b"supervise.py" not in words:
                program = words.split(b"\0")[1:2]
                of = "ranks" if program == [b"launch/train.py"] else "launcher" if b"horovodrun" in words else "shell"
                if kind in ("all", of):
                    found.append(int(entry.name))
        return found

    def iteration(self) -> int:
        """The newest that was logged."""
        try:
            return len((self.folder / "metrics.jsonl").read_bytes().splitlines())
        except OSError:
            return 0

    def end(self) -> int:
        try:
            code = self.process.wait(timeout=HANGS_AFTER_S)
        except subprocess.TimeoutExpired:
            code = -1
        self._log.close()
        return code


class Soak:
    """Counts what was done, and what went wrong."""

    def __init__(self, output: Path, seed: int, can_fill: bool, np: int) -> None:
        self.output, self.can_fill, self.np = output, can_fill, np
        self.random = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.verdict = Verdict()

    def torment(self, job: Job, until: float) -> None:
        """Faults until the run is done."""
        newest, moved_s, seen = 0, time.monotonic(), -1
        while True:
            code = job.process.poll()
            if code == 0:
                self.done["runs done"] += 1
                return
            if code is not None:
                self.done[f"supervisor ended with {code}"] += 1
                job.start()
            now = time.monotonic()
            if job.iteration() != seen:
                seen, moved_s = job.iteration(), now
            if now - moved_s > HANGS_AFTER_S:
                self.verdict.wrong.append(f"no progress for {HANGS_AFTER_S} s in {job.folder.name}")
                return
            if now < until:
                self.fault(job)
            time.sleep(self.random.uniform(2, 8))
            newest = self.check_sets(job, newest)

    def fault(self, job: Job) -> None:
        kinds = ["stop", "kill rank", "kill launcher", "kill all", "freeze", "stop supervisor", "kill supervisor"]
        kind = self.random.choice([*kinds, "full disk"] if self.can_fill else kinds)
        ranks = job.members("ranks")
        try:
            if kind == "stop" and ranks:
                os.kill(self.random.choice(ranks), signal.SIGTERM)
            elif kind == "kill rank" and ranks:
                os.kill(self.random.choice(ranks), signal.SIGKILL)
            elif kind == "freeze" and ranks:
                os.kill(self.random.choice(ranks), signal.SIGSTOP)
            elif kind == "kill launcher":
                for pid in job.members("launcher"):
                    os.kill(pid, signal.SIGKILL)
            elif kind == "kill all":
                for pid in job.members("all"):
                    os.kill(pid, signal.SIGKILL)
            elif kind == "stop supervisor":
                job.process.send_signal(signal.SIGTERM)
            elif kind == "kill supervisor":
                job.process.kill()
                job.process.wait()
                for pid in job.members("all"):  # nobody is left who could
                    os.kill(pid, signal.SIGKILL)
            elif kind == "full disk":
                fill(self.output, self.random.uniform(1, 4))
            self.done[kind] += 1
        except ProcessLookupError:
            pass

    def check_sets(self, job: Job, newest: int) -> int:
        """The newest whole set is never older than one that was whole before."""
        sets = list_checkpoints(job.folder / "checkpoints")
        found = newest_valid(sets).newest
        now = (iteration_of(found) or 0) if found is not None else 0
        if now < newest:
            self.verdict.wrong.append(f"{job.folder.name}: the newest whole set was {newest} and is {now}")
        return max(now, newest)

    def watch(self, job: Job, until: float) -> None:
        """Memory and open files of an undisturbed job."""
        samples = []
        while time.monotonic() < until and job.process.poll() is None:
            time.sleep(2)
            ranks = job.members("ranks")
            try:
                memory = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 for pid in ranks)
                files = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in ranks)
            except OSError:
                continue
            if len(ranks) == self.np and job.iteration() > 50:
                samples.append({"memory in MiB": memory / 2**20, "open files": files})
        job.process.send_signal(signal.SIGTERM)
        code = job.end()
        self.verdict.judge_level("the undisturbed job", samples)
        print(f"undisturbed: ended with {code} when it was asked to", flush=True)
        if code not in (0, 75):
            self.verdict.wrong.append(f"the undisturbed job ended with {code}")


def main() -> int:
    """Torment runs, one after the other, then watch one."""
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\n{EXIT_CODES}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--np", type=int, default=4)
    options = parser.parse_args()
    begun = time.monotonic()
    end = begun + 60 * options.minutes
    with small_disk() as (folder, is_mounted):
        soak = Soak(folder, options.seed, is_mounted, options.np)
        number = 0
        while time.monotonic() < begun + 50 * options.minutes and not soak.verdict.wrong:
            number += 1
            job = Job(folder, f"run-{number}", 1200, options.np)
            soak.torment(job, begun + 50 * options.minutes)
            job.end()
            if left := job.members("all"):
                soak.verdict.wrong.append(f"left running: {left}")
            for path in sorted(job.folder.rglob("*"), reverse=True) if not soak.verdict.wrong else []:
                path.rmdir() if path.is_dir() else path.unlink()
        if not soak.verdict.wrong:
            soak.watch(Job(folder, "undisturbed", 10**6, options.np), end)
        elif number:
            print((folder / f"run-{number}.log").read_text()[-6000:])
    print(f"{(time.monotonic() - begun) / 60:.1f} minutes, seed {options.seed}, np={options.np}: {dict(soak.done)}")
    if not is_mounted:
        soak.verdict.unjudged.append("full disk: root alone can mount one")
    return soak.verdict.conclude("nothing hung, no set was lost, nothing was left running")


if __name__ == "__main__":
    sys.exit(main())
