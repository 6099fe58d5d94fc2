"""An elastic job that a soak torments: what was done to it, whether it stands still, and what it has left behind."""

from __future__ import annotations

import math
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from tests.jobs.elastic import ElasticJob, Worker

HANGS_AFTER_S = 90.0
_SIGNALS = {"freeze": signal.SIGSTOP, "SIGTERM": signal.SIGTERM, "remove": None}  # others are killed
_PRIVATE_SHM = ["unshare", "-m", "sh", "-c", 'mount --bind "$0" /dev/shm && exec "$@"']


_ENDS_WITHIN_S = 10.0  # a job that is done


class Tormented:
    """A job, and what was done to it."""

    def __init__(
        self, folder: Path, settings: Sequence[str], np: int, output: Path | None, *, most: int, is_root: bool
    ) -> None:
        """Start it; root gives it a /dev/shm of its own."""
        self.shm, self.temporary = folder.with_name(f"{folder.name}-shm"), folder.with_name(f"{folder.name}-tmp")
        self.shm.mkdir()
        self.temporary.mkdir()
        prefix = [*_PRIVATE_SHM, str(self.shm)] if is_root else []
        environ = {"TMPDIR": str(self.temporary)}
        self.job = ElasticJob(folder, settings, np, prefix=prefix, environ=environ, output=output, max_np=most)
        self.hit: set[int] = set()  # processes that will be there no longer
        self.napped: set[int] = set()  # may have lost their state meanwhile
        self._doomed: list[tuple[float, str]] = []
        self._seen, self._moved_s, self._hit_s = 0, time.monotonic(), -math.inf
        self.longest_s = 0.0

    def tell(self, what: str) -> None:
        """Write down what is done to it, beside its log."""
        with (self.job.folder / "events").open("a") as file:
            file.write(f"{datetime.now(UTC):%F %T.%f} {what}\n")

    def unharmed(self) -> list[Worker]:
        """Workers that have a state for certain."""
        out = self.hit | self.napped
        return [one for one in self.job.workers() if one.rank is not None and one.pid not in out]

    def hosts(self) -> list[str]:
        """Those whose worker lives, or will."""
        doomed = {host for _, host in self._doomed}
        return [host for host in self.job.hosts if host not in doomed]

    def lose(self, worker: Worker, kind: str, within_s: float) -> None:
        """Lose a worker; a cluster manager takes its host away later (at once if that is all that happens)."""
        self.hit.add(worker.pid)
        self.tell(f"{kind} {worker}, host gone in {within_s:g} s")
        number = _SIGNALS.get(kind, signal.SIGKILL)
        if number is None:
            self.job.remove_hosts([worker.host])
        else:
            self.job.send(worker, number)
            self._hit_s = time.monotonic()
            self._doomed.append((time.monotonic() + within_s, worker.host))

    def join(self, number: int) -> None:
        """Let workers join."""
        self.tell(f"{number} join")
        self.job.add_hosts(number)

    def fail(self, what: str) -> NoReturn:
        """Say what is wrong.

        Raises:
            AssertionError: with that, and all that is known of the job.
        """
        for worker in self.job.workers():
            self.job.send(worker, signal.SIGUSR2)
        time.sleep(1)
        stacks = "".join(f"{path}:\n{path.read_text()}\n" for path in self.job.folder.glob("workers/*.stacks"))
        self.tell(what)
        raise AssertionError(f"{self.job.folder.name}: {what}\n{self.job.describe()}\n{stacks}")

    def nap(self, worker: Worker, seconds: float) -> None:
        """Freeze a worker for less time than it takes to be lost by that."""
        self.tell(f"nap of {seconds:.1f} s: {worker}")
        self.napped.add(worker.pid)
        self.job.send(worker, signal.SIGSTOP)
        time.sleep(seconds)
        self.job.send(worker, signal.SIGCONT)

    def trains_whole(self) -> bool:
        """Whether all workers that there are train together; of those that have napped it is not known."""
        most, size = len(self.hosts()), self.job.size() or 0
        return most - len(self.napped) <= size <= most

    def look(self) -> None:
        """Look after the job, often.

        Raises:
            AssertionError: if it stands still.
        """
        now_s = time.monotonic()
        due = [host for due_s, host in self._doomed if due_s <= now_s]
        if due:
            self._doomed = [one for one in self._doomed if one[1] not in due]
            self.job.remove_hosts(due)
        iteration = self.job.iteration()
        if iteration != self._seen:
            if self._seen:
                self.longest_s = max(self.longest_s, now_s - self._moved_s)
            self._seen, self._moved_s = iteration, now_s
        if now_s - self._moved_s > HANGS_AFTER_S:
            self.fail(f"no progress for {HANGS_AFTER_S:g} s")

    def left(self) -> list[str]:
        """What the job has left behind."""
        processes = self.job.left_behind()
        return processes + [str(path) for folder in (self.shm, self.temporary) for path in folder.iterdir()]

    def had_no_room_at_the_end(self) -> bool:
        """Whether the disk was full when the weights were to be written at last: the job says so, and fails."""
        wrote_nothing = "final.params: could not be written" in self.job.text()
        return self.job.process.returncode == 1 and wrote_nothing

    def was_hit_when_done(self) -> bool:
        """Whether a worker was killed between the end of the run and that of its process.

        horovodrun counts that as a failure, and ends with 1.
        """
        after = self.job.text().partition("done after")[2]
        was_just_hit = time.monotonic() - self._hit_s < _ENDS_WITHIN_S
        return self.job.process.returncode == 1 and was_just_hit and "Killed" in after

    def measured(self, pid: int) -> dict[str, float]:
        """Of one of its processes, and of its shared memory."""
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        shared = 0
        for path in self.shm.iterdir():
            with suppress(FileNotFoundError):
                shared += 512 * path.stat().st_blocks
        return {
            "memory in MiB": pages * os.sysconf("SC_PAGESIZE") / 2**20,
            "open files": len(os.listdir(f"/proc/{pid}/fd")),
            "threads": len(os.listdir(f"/proc/{pid}/task")),
            "bytes in /dev/shm": shared,
        }

    def wait_for(self, what: str, is_so: Callable[[], bool], *, may_end: bool = False) -> None:
        """Wait until something is so.

        Raises:
            AssertionError: if it takes too long, or if the job ends before and may not.
        """
        begun_s = time.monotonic()
        while not is_so():
            if self.job.process.poll() is not None:
                return None if may_end else self.fail(f"{what}: ended with {self.job.process.returncode} before")
            if time.monotonic() - begun_s > HANGS_AFTER_S:
                self.fail(f"{what}: not in {HANGS_AFTER_S:g} s")
            self.look()
            time.sleep(0.1)
        return None

    def end(self) -> None:
        """Leave nothing of it but the run."""
        self.job.kill_all()
        for path in (self.shm, self.temporary):
            shutil.rmtree(path)
