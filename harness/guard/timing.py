"""How long the guard waits for what, in seconds, from the first sign of trouble to the end of the last process."""

PERIOD_S = 0.25
"""The guard's thread looks around at least this often."""

STATUS_EVERY_S = 1.0
"""A rank reports its status to rank 0 this often, and rank 0 to all."""

SILENT_AFTER_S = 5.0
"""A rank that reports nothing for this long is not running, or its host is unreachable."""

ACKNOWLEDGE_S = 4.0
"""The others have this long to write down why a rank leaves, before it does."""

GRACE_S = 8.0
"""From the moment that a loss is known, main threads have this long to end by themselves."""

GRACE_WITHOUT_ERROR_S = 1.0
"""The same where a collective never fails (MPI): main threads would wait in it for ever, so waiting longer is vain."""
