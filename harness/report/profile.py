"""A profile of some updates as a table and a Chrome trace, which Perfetto opens (https://ui.perfetto.dev). Pure.

The trace has a process for each rank. Its first thread is the one that trains, with iterations and their parts; the
others are MXNet's, with operators.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

_MOST_RANKS = 8  # of which the terminal shows a line
_MOST_OPERATORS = 10
_LONGEST_NAME = 60
_OUTSIDE = "other"  # what is between updates, in the table


class Span(NamedTuple):
    """A part of an iteration.

    Attributes:
        part: its name.
        number: of the profiled iteration, from 0.
        t: the iteration.
        begin_ns: when it began, by the clock of `RankProfile.zero_ns`.
        duration_ns: how long it took.
    """

    part: str
    number: int
    t: int
    begin_ns: int
    duration_ns: int


class RankProfile(NamedTuple):
    """What one rank noted.

    Attributes:
        host: its name.
        clock: equal for ranks whose clocks are one: the host's start.
        zero_ns: on the rank's clock, when all ranks began.
        usual_ns: how long an iteration took before the profile began.
        spans: parts without gaps, in their order.
        operators: of MXNet: name, beginning, duration, thread; the first ones, if there were too many.
        num_operators: how many there were.
        remark: why there are none; `None` as a rule.
    """

    host: str
    clock: str
    zero_ns: int
    usual_ns: int
    spans: Sequence[Span]
    operators: Sequence[tuple[str, int, int, int]]
    num_operators: int
    remark: str | None

    @classmethod
    def read(cls, content: Sequence[Any]) -> RankProfile:
        """Of the lists that JSON makes of it."""
        profile = cls(*content)
        spans, operators = profile.spans, profile.operators
        return profile._replace(
            spans=[Span(*one) for one in spans], operators=[(n, b, d, h) for n, b, d, h in operators]
        )

    def mean_ms(self, parts: Sequence[str]) -> dict[str, float]:
        """Milliseconds of an iteration by part; then the sum of `parts`, which is an update, and all that is left.

        >>> spans = [Span("step", 0, 6, 0, 2_000_000), Span("log", 0, 6, 2_000_000, 1_000_000)]
        >>> RankProfile("a", "", 0, 0, spans, [], 0, None).mean_ms(["input", "step"])
        {'input': 0.0, 'step': 2.0, 'update': 2.0, 'other': 1.0}
        """
        count = len({span.number for span in self.spans}) or 1
        total = sum(span.duration_ns for span in self.spans)
        found = {part: sum(span.duration_ns for span in self.spans if span.part == part) for part in parts}
        found["update"] = sum(found.values())
        found[_OUTSIDE] = total - found["update"]
        return {name: value / count / 1e6 for name, value in found.items()}


def profile_table(ranks: Sequence[RankProfile], parts: Sequence[str], most: int | None = _MOST_RANKS) -> list[str]:
    """Lines: the time of every part on every rank, and the operators that took longest on rank 0.

    Args:
        ranks: what each noted.
        parts: of an update.
        most: how many ranks have a line; `None` for all.
    """
    numbers = [span.t for span in ranks[0].spans]
    count = len({span.number for span in ranks[0].spans})
    updates = f"updates {numbers[0]} to {numbers[-1]}" if count > 1 else f"update {numbers[0]}"
    means = [rank.mean_ms(parts) for rank in ranks]
    names = [*means[0]]
    lines = [
        f"profile of {updates}, mean ms; the device is waited for after every part",
        "rank  " + "".join(f"{name:>10}" for name in names),
    ]
    shown = means[:most]
    lines += [f"{rank:>4}  " + "".join(f"{mean[name]:10.3f}" for name in names) for rank, mean in enumerate(shown)]
    if len(means) > len(shown):
        lines.append(f"      and {len(means) - len(shown)} more ranks")
    now_ms = means[0]["update"] + means[0][_OUTSIDE]
    lines.append(f"an iteration took {ranks[0].usual_ns / 1e6:.3f} ms before the profile, and {now_ms:.3f} ms in it")
    lines += _slowest(ranks[0], count)
    lines += sorted({rank.remark for rank in ranks if rank.remark is not None})
    return lines


def profile_trace(ranks: Sequence[RankProfile]) -> str:
    """The same on one time line, as JSON of Chrome's trace events.

    Ranks whose clock is that of rank 0 are placed by it; those of other hosts by the moment at which all began.
    """
    events: list[dict[str, Any]] = []
    left_out = 0
    for number, rank in enumerate(ranks):
        zero_ns = ranks[0].zero_ns if rank.clock == ranks[0].clock else rank.zero_ns
        events += [
            {"ph": "M", "name": "process_name", "pid": number, "args": {"name": f"rank {number} ({rank.host})"}},
            {"ph": "M", "name": "process_sort_index", "pid": number, "args": {"sort_index": number}},
            {"ph": "M", "name": "thread_name", "pid": number, "tid": 0, "args": {"name": "training"}},
        ]
        for thread in sorted({operator[3] for operator in rank.operators}):
            called = {"name": f"MXNet {thread}"}
            events.append({"ph": "M", "name": "thread_name", "pid": number, "tid": thread + 1, "args": called})
        for kind, name, begin_ns, duration_ns, thread in _slices(rank):
            ends = {"ts": (begin_ns - zero_ns) / 1e3, "dur": duration_ns / 1e3}
            events.append({"ph": "X", "name": name, "cat": kind, **ends, "pid": number, "tid": thread})
        left_out += rank.num_operators - len(rank.operators)
    others = {"left out": f"{left_out} operators, the last ones of each rank"} if left_out else {}
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms", "otherData": others})


def _slices(rank: RankProfile) -> Iterator[tuple[str, str, int, int, int]]:
    """Kind, name, beginning, duration and thread of everything; what encloses others comes before them."""
    for number in sorted({span.number for span in rank.spans}):
        spans = [span for span in rank.spans if span.number == number]
        duration_ns = sum(span.duration_ns for span in spans)
        yield "iteration", f"iteration {spans[0].t}", spans[0].begin_ns, duration_ns, 0
        for span in spans:
            yield "part", span.part, span.begin_ns, span.duration_ns, 0
    for name, begin_ns, duration_ns, thread in rank.operators:
        yield "operator", name, begin_ns, duration_ns, thread + 1


def _slowest(rank: RankProfile, count: int) -> list[str]:
    """The operators that took longest, each with the part in which it ran for the most time."""
    total: dict[str, int] = defaultdict(int)
    calls: dict[str, int] = defaultdict(int)
    by_part: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    spans = iter(rank.spans)
    span = next(spans, None)
    for name, begin_ns, duration_ns, _ in rank.operators:
        while span is not None and begin_ns >= span.begin_ns + span.duration_ns:
            span = next(spans, None)
        total[name] += duration_ns
        calls[name] += 1
        by_part[name]["other" if span is None else span.part] += duration_ns
    if not total:
        return []
    lines = [f"operators of rank 0: {sum(total.values()) / count / 1e6:.3f} ms of an iteration, these most of all"]
    for name in sorted(total, key=lambda one: -total[one])[:_MOST_OPERATORS]:
        part = max(by_part[name], key=lambda one: by_part[name][one])
        times, shown = calls[name] / count, name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 3] + "..."
        lines.append(f"{total[name] / count / 1e6:10.3f}  {part:<10} {times:8.1f} x {shown}")
    return lines
