"""An elastic job on one machine, whose workers are killed, frozen, added and removed while it trains.

Every host of the job is another spelling of 127.0.0.1, which Horovod takes for another host on this machine: nothing is
needed but `horovodrun`. One slot a host, because Horovod gives up a host on which a worker has failed.
"""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness import processes

ROOT = Path(__file__).parents[2]
PROGRAM = "tests/programs/elastic_train.py"
MARK = "HARNESS_ELASTIC_JOB"
_CLOCKS = ("time", "images_per_s")
_GONE_S = 15.0  # horovodrun gives what it stops 5 s, twice
_TAIL = 1 << 14  # bytes of a file of metrics


def host(number: int) -> str:
    """The name of a host; there is no end of them, and no part of one is too long for a name."""
    parts = "0".zfill(1 + number // 1024), "0".zfill(1 + number // 32 % 32), "1".zfill(1 + number % 32)
    return ".".join(("127", *parts))


@dataclass(frozen=True)
class Fault:
    """What befalls one worker, once in a job.

    Attributes:
        what: `kill` (SIGKILL), `freeze` (SIGSTOP), `term` (SIGTERM) or `cut` (its network is gone, and nobody is told).
        moment: `forward`, `sum`, `step`, `after the update` (before it is logged), `evaluation`, `finder`, `checkpoint`
            (while it is written), `reshape` (while the next world is formed), `enter` (its ranks are connected, and
            nobody watches over them yet), `entered` (somebody does), `start` (of a worker) or `connect` (its first).
        rank: that it befalls, as the ranks are at that moment; `None` for any.
        host: likewise, instead of the rank.
        t: the iteration; `None` for any.
        delay_s: from the moment on.
        after: the number of another fault that has to have struck before.
    """

    what: str
    moment: str
    rank: int | None = None
    host: str | None = None
    t: int | None = None
    delay_s: float = 0.0
    after: int | None = None


@dataclass(frozen=True)
class Worker:
    """A worker that has begun, as it has told of itself.

    Attributes:
        pid: of its process.
        began: when, in ticks since this machine did.
        host: its host.
        rank: in the newest world that it has trained in; `None` before the first.
        size: of that world.
        t: the first iteration that it did there.
    """

    pid: int
    began: int
    host: str
    rank: int | None
    size: int | None
    t: int | None


class ElasticJob:
    """Started at once; `end` waits for its end, and `kill_all` leaves nothing of it."""

    def __init__(
        self,
        folder: Path,
        settings: Sequence[str],
        np: int,
        *,
        launch: Callable[[list[str]], list[str]] | None = None,
        prefix: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        faults: Sequence[Fault] = (),
        options: Sequence[str] = (),
        driver_options: Sequence[str] = (),
        output: Path | None = None,
        min_np: int = 1,
        max_np: int = 8,
    ) -> None:
        """Start it.

        Args:
            folder: of this job, for what it is told and what it tells.
            settings: for `--set`.
            np: how many workers begin.
            launch: turns the words of a Python program into those of a command; by default the interpreter.
            prefix: words in front of the whole command.
            environ: more variables.
            faults: that strike it.
            options: more of `launch/train.py`.
            driver_options: more of horovodrun.
            output: of the run, by default below the folder.
            min_np: with fewer workers the job waits.
            max_np: more are never started.
        """
        self.folder, self.output = folder, output or folder / "runs"
        (folder / "workers").mkdir(parents=True)
        (folder / "faults.json").write_text(json.dumps([asdict(fault) for fault in faults]))
        self.hosts = [host(number) for number in range(np)]
        self._num_hosts = np
        self._write_hosts()
        script = folder / "hosts.sh"
        script.write_text(f"#!/bin/sh\nexec cat {folder}/hosts\n")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)

        python = launch or (lambda words: [sys.executable, *words])
        words = [word for setting in (*settings, f"output={self.output}") for word in ("--set", setting)]
        worker = python([PROGRAM, str(folder), *words, *options])
        driver = [str(Path(sys.executable).with_name("horovodrun")), "-np", str(np), "--network-interface", "lo"]
        driver += ["--min-np", str(min_np), "--max-np", str(max_np), "--host-discovery-script", str(script)]
        driver += driver_options
        self.log = folder / "log"
        self.began_s = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*prefix, *python(driver), *worker],
                cwd=ROOT,
                env={**os.environ, **(environ or {}), MARK: str(folder)},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    # --- what it is doing ---

    def workers(self) -> list[Worker]:
        """All that live, the oldest first; frozen ones among them."""
        found = []
        for path in self.folder.glob("workers/*.json"):
            worker = Worker(**json.loads(path.read_bytes()))
            if processes.state(worker.pid) is not None and processes.began(worker.pid) == worker.began:
                found.append(worker)
        return sorted(found, key=lambda worker: worker.began)

    def size(self) -> int | None:
        """Of the world that trains, as its newest rank 0 tells it."""
        lines = self.worlds()
        return lines[-1]["size"] if lines else None

    def worlds(self) -> list[dict[str, Any]]:
        """What each rank 0 has told after its first update: size, first iteration and time of its world, in order."""
        return [line for line in _lines(self.folder / "worlds.jsonl") if line["rank"] == 0]

    def strikes(self) -> dict[int, dict[str, Any]]:
        """The faults that have struck, by number: where and when."""
        return {
            int(path.name.partition("-")[2]): json.loads(path.read_bytes()) for path in self.folder.glob("struck-*")
        }

    @property
    def run(self) -> Path:
        """The folder of the run."""
        found = [path.parent for path in self.output.glob("*/attempts.jsonl")]
        return found[0] if found else self.output / "none"

    def metrics(self) -> list[dict[str, Any]]:
        """See `metrics_of`."""
        return metrics_of(self.run)

    def iteration(self) -> int:
        """The last that was logged; 0 before the first."""
        lines = _updates(_lines(self.run / "metrics.jsonl", _TAIL))
        return lines[-1]["iteration"] if lines else 0

    def text(self) -> str:
        """Everything that was printed."""
        return self.log.read_text(errors="replace")

    def wait_for(self, what: str, is_so: Callable[[], Any], timeout_s: float = 120.0) -> Any:
        """Wait until something is so, and give what it returned.

        Raises:
            AssertionError: if it is not in time, or the job has ended.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            found = is_so()
            if found:
                return found
            has_ended = self.process.poll() is not None
            if has_ended or time.monotonic() > deadline_s:
                how = f"the job has ended with {self.process.returncode}" if has_ended else f"not in {timeout_s:g} s"
                raise AssertionError(f"{what}: {how}\n{self.describe()}")
            time.sleep(0.01)

    def describe(self) -> str:
        """What is known of the job, for somebody who looks for what went wrong."""
        lines = [f"hosts {self.hosts}, iteration {self.iteration()}, worlds {[w['size'] for w in self.worlds()]}"]
        lines += [f"{worker}, state {processes.state(worker.pid)}" for worker in self.workers()]
        lines += [f"struck: {strike}" for strike in self.strikes().values()]
        return "\n".join([*lines, self.text()[-6000:]])

    # --- what is done to it ---

    def add_hosts(self, number: int) -> None:
        """Let the discovery script find more hosts."""
        self.hosts += [host(self._num_hosts + one) for one in range(number)]
        self._num_hosts += number
        self._write_hosts()

    def remove_hosts(self, hosts: Sequence[str]) -> None:
        """Let the discovery script find these no more."""
        self.hosts = [name for name in self.hosts if name not in hosts]
        self._write_hosts()

    def pause(self, seconds: float) -> None:
        """Make every update take longer, from the next on; 0 for no longer."""
        _put(self.folder / "pause", str(seconds))

    def send(self, worker: Worker, number: signal.Signals) -> None:
        """Send a worker a signal; a host on which it is lost is removed, as Horovod does not use it again."""
        with suppress(ProcessLookupError):
            os.kill(worker.pid, number)

    def _write_hosts(self) -> None:
        _put(self.folder / "hosts", "".join(f"{name}:1\n" for name in self.hosts))

    # --- its end ---

    def end(self, timeout_s: float = 300.0) -> int:
        """Wait for its end; returns the exit code of horovodrun.

        Raises:
            AssertionError: if it does not end in time.
        """
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"no end in {timeout_s:g} s\n{self.describe()}") from None

    @property
    def digest(self) -> str | None:
        """Of the final state, as rank 0 has printed it."""
        found = re.findall(r"digest ([0-9a-f]{64})", self.text())
        return found[-1] if found else None

    def members(self) -> list[int]:
        """Every process of the job that lives: launchers, workers, and what they have started."""
        found = {worker.pid for worker in self.workers()}
        mark = f"{MARK}={self.folder}".encode()
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.add(int(entry.name))
        for pid in list(found):
            found.update(processes.descendants(pid))
        return sorted(pid for pid in found if pid != os.getpid() and processes.state(pid) is not None)

    def left_behind(self) -> list[str]:
        """Processes that are there a while after the end, by their command lines."""
        deadline_s = time.monotonic() + _GONE_S
        while (members := self.members()) and time.monotonic() < deadline_s:
            time.sleep(0.05)
        return [f"{pid}: {_command(pid)}" for pid in members]

    def kill_all(self) -> None:
        """Leave nothing running."""
        for _ in range(3):  # what horovodrun starts meanwhile
            for pid in self.members():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait(30)

    def next_update_after(self, moment: float) -> float | None:
        """Seconds from a time (since 1970) to the next update that was finished; `None` if there was none.

        The finder logs no updates, so what counts as well is what workers tell of their first one in a world.
        """
        times = [line["time"] for line in (*self.worlds(), *self.metrics()) if line.get("split", "train") == "train"]
        return min((time - moment for time in times if time > moment), default=None)


def metrics_of(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`, but for those that tell of slow inputs: they depend on the machine."""
    return _updates(_lines(run / "metrics.jsonl"))


def without_clocks(metrics: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Lines of metrics but for what a clock has measured."""
    return [{key: value for key, value in line.items() if key not in _CLOCKS} for line in metrics]


def _updates(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line["split"] != "input"]


def _lines(path: Path, most: int | None = None) -> list[dict[str, Any]]:
    """The whole lines of a file that may be written to, or those among its last bytes."""
    try:
        with path.open("rb") as file:
            start = 0 if most is None else max(0, file.seek(0, os.SEEK_END) - most)
            file.seek(start)
            lines = file.read().splitlines(keepends=True)[1 if start else 0 :]
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def _put(path: Path, text: str) -> None:
    """Replace a file at once, because others read it all the time."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


def _command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200]
    return "?"
