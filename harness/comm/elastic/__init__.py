"""Workers that come and go within one job, on Horovod's own elastic driver (`horovodrun --host-discovery-script`).

The driver starts processes, notices those that end, and gives each a number. Which of them train together is decided
here, so that training waits neither for the driver nor for a process that is still importing. `usher.py` talks to the
driver beside the training, `notices.py` has what processes tell each other at its key-value server, `membership.py`
lets those that have the state, and those that are ready, become the next world; `lifeline.py` and `library.py` see to
it that a process that dies meanwhile does not take the others with it.
"""

from harness.comm.elastic.connecting import ElasticWorld
from harness.comm.elastic.meeting import RemovedError
from harness.comm.elastic.membership import DriverMembership, join_elastic

__all__ = ["DriverMembership", "ElasticWorld", "RemovedError", "join_elastic"]
