"""Distributed Gluon training with a scheduled learning rate.

`Job` is the door for programs; it is imported when it is first asked for, so `import harness` costs nothing.
"""

from typing import TYPE_CHECKING

import harness_compat as harness_compat  # in a checkout on PYTHONPATH there is no .pth file that would import it

if TYPE_CHECKING:
    from harness.job import Job as Job

__all__ = ["Job"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import what is asked for by name."""
    if name == "Job":
        from harness.job import Job

        return Job
    raise AttributeError(f"module 'harness' has no attribute {name!r}")
