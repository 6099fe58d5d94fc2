"""Shows and stores what plan, finder and loop return; decides nothing."""

from harness.report.compare_page import write_comparison
from harness.report.events import EventFile
from harness.report.finder import write_finder_report
from harness.report.metrics import MetricsFile
from harness.report.plans import NamedPlan, first_difference, table_of_plans
from harness.report.plots import plot_plan, plot_plans
from harness.report.progress import LOG_LEVELS, Progress
from harness.report.run_folder import RunFolder, write_plan
from harness.report.run_page import reported, write_run_report

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
    "reported",
    "table_of_plans",
    "write_comparison",
    "write_finder_report",
    "write_plan",
    "write_run_report",
]
