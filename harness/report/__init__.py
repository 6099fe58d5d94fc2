"""Displays and stores what plan, finder and loop return; decides nothing."""

from harness.report.across import write_across_report
from harness.report.compare_page import write_comparison
from harness.report.finder import write_finder_report
from harness.report.plan_files import write_plan
from harness.report.plans import NamedPlan, first_difference, table_of_plans
from harness.report.plots import plot_plan, plot_plans
from harness.report.progress import LOG_LEVELS, Progress
from harness.report.run_page import reported, write_run_report

__all__ = [
    "LOG_LEVELS",
    "NamedPlan",
    "Progress",
    "first_difference",
    "plot_plan",
    "plot_plans",
    "reported",
    "table_of_plans",
    "write_across_report",
    "write_comparison",
    "write_finder_report",
    "write_plan",
    "write_run_report",
]
