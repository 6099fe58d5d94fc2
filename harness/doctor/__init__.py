"""Checks this machine, and predicts how a run scales.

The check (`checkup.py`) gathers facts (`facts.py`, `gather.py`), judges them (`judge.py`, pure) and shows findings
(`findings.py`). It imports nothing of the stack in its own process: MXNet and Horovod are queried in other processes,
because an import could end one. The prediction (`scaling.py`) measures on real ranks (`measure.py`) and fits a model
(`cost_model.py`, pure).
"""

from harness.doctor.checkup import check_up
from harness.doctor.findings import Finding, as_json, as_text, exit_code, summary

__all__ = ["Finding", "as_json", "as_text", "check_up", "exit_code", "summary"]
