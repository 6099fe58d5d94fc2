"""How a run ends: one message, one exit code."""

from harness.guard.exits import fail_together, report_failure

__all__ = ["fail_together", "report_failure"]
