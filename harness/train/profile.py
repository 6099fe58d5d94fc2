"""Times the parts of some updates on every rank, beside MXNet's operators: `launch/train.py --profile N`.

MXNet computes behind Python's back, so a part would end before it is computed. While a profile runs, each part is
waited for, and in `wait` the ranks wait for each other, so that time belongs to what it is spent on, and parts add up
to updates. That costs what would have been done at the same time: the table says how long iterations took before. It
changes no bit.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from harness.errors import ConfigError
from harness.files import make_folder, replace_file
from harness.gluon import OperatorTimes, Timing
from harness.gluon.operator_times import wait_for_device
from harness.gluon.timing import UPDATE
from harness.report.profile import RankProfile, Span, profile_table, profile_trace
from harness.train.run import Run

WARM_UP = 5  # updates in which graphs are compiled, and whose usual time is taken
FOLDER, TRACE, TABLE = "profile", "trace.json", "table.txt"
_MOST_OPERATORS = 200_000  # of all ranks together


class Profile(Timing):
    """Profiles updates of one attempt, after the first few; every rank has one."""

    def __init__(
        self,
        run: Run,
        count: int,
        *,
        clock: Callable[[], int] = time.perf_counter_ns,
        wait: Callable[[], None] = wait_for_device,
    ) -> None:
        """Nothing is timed yet.

        Args:
            run: whose updates.
            count: how many; fewer if the run ends before.
            clock: nanoseconds.
            wait: waits for the device.

        Raises:
            ConfigError: on every rank, if the run is too short.
        """
        super().__init__()
        left = run.last - run.initial_state.iteration
        if left <= WARM_UP:
            raise ConfigError(
                f"--profile {count}: the run has {left} updates left, and a profile begins after {WARM_UP}; make the "
                "run longer (train), or start it again from an earlier checkpoint"
            ).on_all_ranks()
        self._world, self._folder = run.world, run.folder.path / FOLDER
        self._count, self._clock, self._wait = count, clock, wait
        self._operators = OperatorTimes()
        self._begun_ns: list[int] = []  # iterations of the warm-up
        self._is_on = self._is_done = False
        self._spans: list[Span] = []
        self._part, self._number, self._t, self._since_ns, self._zero_ns = "", -1, 0, 0, 0

    def begin(self, t: int) -> None:
        """Iteration `t` begins: one of the warm-up, one to be profiled, or the first after those."""
        if self._is_done:
            return
        if not self._is_on:
            self._begun_ns.append(self._clock())
            if len(self._begun_ns) <= WARM_UP:
                return
            self._start()
        else:
            self.enter("input")
        if self._number + 1 == self._count:
            self._finish()
        self._number, self._t = self._number + 1, t

    def enter(self, part: str) -> None:
        """End the part before, with everything that it asked of the device, and begin this one."""
        if not self._is_on or part == self._part:
            return
        self._wait()
        now_ns = self._clock()
        self._spans.append(Span(self._part, self._number, self._t, self._since_ns, now_ns - self._since_ns))
        self._part, self._since_ns = part, now_ns
        if part == "wait":
            self._world.barrier("profile")

    def end(self) -> None:
        """Write what there is: the run has ended before the profile."""
        if self._is_on:
            self.enter("log")
            self._finish()

    def close(self) -> None:
        """Stop MXNet's profiler, if the run has failed under it."""
        if self._is_on:
            self._is_on, self._is_done = False, True
            with suppress(Exception):  # what has failed is about to be told
                self._operators.stop()

    def _start(self) -> None:
        self._operators.start()
        self._world.barrier("profile")
        self._is_on, self._part = True, "input"
        self._zero_ns = self._since_ns = self._clock()

    def _finish(self) -> None:
        """Gather what all ranks have noted, and let rank 0 write and show it; a collective."""
        self._is_on, self._is_done = False, True
        operators, remark = self._operators.stop()
        between = [two - one for one, two in zip(self._begun_ns[1:], self._begun_ns[2:], strict=False)]
        own = RankProfile(
            self._world.hostname,
            _clock_of_host(),
            self._zero_ns,
            int(statistics.median(between)),
            self._spans,
            operators[: _MOST_OPERATORS // self._world.size],
            len(operators),
            remark,
        )
        ranks = [RankProfile.read(one) for one in self._world.allgather_object(own, "profile")]
        if self._world.rank == 0:
            self._write(ranks)

    def _write(self, ranks: list[RankProfile]) -> None:
        for line in profile_table(ranks, UPDATE):
            self.say(line)
        try:
            make_folder(self._folder)
            replace_file(self._folder / TRACE, profile_trace(ranks))
            replace_file(self._folder / TABLE, "\n".join(profile_table(ranks, UPDATE, most=None)) + "\n")
        except OSError as error:
            self.say(f"warning: {self._folder}: the profile could not be written ({error.strerror}); the run goes on")
            return
        self.say(f"{self._folder / TRACE}: open it at https://ui.perfetto.dev; the table is in {TABLE} beside it")


def _clock_of_host() -> str:
    """What identifies the clock of `time.perf_counter_ns`: the start of the kernel."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""
