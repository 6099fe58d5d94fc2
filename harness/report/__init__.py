"""Shows and stores what plan, finder and loop return; decides nothing."""

from harness.report.comparison import NamedPlan, first_difference, table_of_plans
from harness.report.events import EventFile
from harness.report.finder import write_finder_report
from harness.report.metrics import MetricsFile
from harness.report.plots import plot_plan, plot_plans
from harness.report.progress import LOG_LEVELS, Progress
from harness.report.run_folder import RunFolder, write_plan

__all__ = [
    "LOG_LEVELS",
    "EventFile",
    "MetricsFile",
    "NamedPlan",
    "Progress",
    "RunFolder",
    "first_difference",
    "plot_plan",
    "plot_plans",
    "table_of_plans",
    "write_finder_report",
    "write_plan",
]
