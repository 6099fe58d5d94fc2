"""A check-up of this machine: facts are gathered, a judgement makes findings of them, and findings are shown.

Nothing of the stack is imported in this process: MXNet and Horovod are asked in processes of their own, because an
import could end one.
"""

from harness.doctor.checkup import check_up
from harness.doctor.findings import Finding, as_json, as_text, exit_code, summary

__all__ = ["Finding", "as_json", "as_text", "check_up", "exit_code", "summary"]
