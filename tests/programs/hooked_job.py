"""A job that a hook stops at update 6, and that a second start finishes: FOLDER. Ranks print a line each."""

from __future__ import annotations

import sys

from harness.hooks import Ask, Logged
from tests.job.small import job_of

told = []


def watch(event):
    """Ask for the end in the first attempt."""
    told.append(f"{type(event).__name__} {event.iteration}")
    return Ask(stop=True, why="enough") if isinstance(event, Logged) and event.iteration == 6 else None


with job_of(sys.argv[1], hooks=watch, log_every=3) as job:
    job.resume()
    for t in job:
        job.update(t)
    ended = f"rank {job.rank}: {job.iteration}, {job.stopped}, {job.learner.digest()}"
print(f"{ended}, {', '.join(told)}\n", end="", flush=True)
