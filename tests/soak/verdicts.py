"""How a soak ends: what went wrong, what it could not judge, and whether a process stayed level."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

EXIT_CODES = """\
exit codes: 0 nothing went wrong, and everything was judged; 1 something went wrong; 3 nothing went wrong, but not
everything could be judged, because the time was too short or the user is not root"""
_MAY_GROW = {"MiB": 0.02}  # by unit, as a fraction: what is freed may be given back late
_FEWEST = 3  # looks in a half


@dataclass
class Verdict:
    """What a soak has found so far.

    Attributes:
        wrong: what went wrong.
        unjudged: what could not be judged, and why.
    """

    wrong: list[str] = field(default_factory=list)
    unjudged: list[str] = field(default_factory=list)

    def judge_level(self, what: str, looks: Sequence[Mapping[str, float]]) -> None:
        """Judge whether all that was measured of processes is level, and print it.

        The first third of the looks does not count. Of the others, the median of the second half may not be above that
        of the first one; where the unit is MiB, not by more than 2%.

        Args:
            what: was looked at.
            looks: in the order of time; each has all measures, by names that end with their unit.
        """
        counted = looks[len(looks) // 3 :]
        middle = len(counted) // 2
        if middle < _FEWEST:
            self.unjudged.append(f"whether {what} stays level: too short for more than {len(looks)} looks")
            return
        for name, first in looks[0].items():
            halves = counted[:middle], counted[middle:]
            early, late = (statistics.median(look[name] for look in half) for half in halves)
            course = f"{what}: {first:.6g} at first, then {early:.6g} -> {late:.6g} {name}"
            print(f"{course} ({len(looks)} looks)", flush=True)
            if late > early * (1 + _MAY_GROW.get(name.split()[-1], 0)):
                self.wrong.append(f"not level: {course}")

    def conclude(self, right: str) -> int:
        """Print it all; returns the exit code.

        Args:
            right: what can be said when nothing went wrong.
        """
        lines = [f"WRONG: {what}" for what in self.wrong] or [right]
        print("\n".join([*lines, *(f"NOT JUDGED: {what}" for what in self.unjudged)]), flush=True)
        return 1 if self.wrong else 3 if self.unjudged else 0
