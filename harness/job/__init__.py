"""The front door for programs: one object that puts the parts together; the loop stays the program's own."""

from harness.job.job import Job

__all__ = ["Job"]
