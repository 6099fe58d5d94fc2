"""How a run ends: one message, one exit code."""

from harness.guard.exits import begin_together, report_failure

__all__ = ["begin_together", "report_failure"]
