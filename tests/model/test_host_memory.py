"""Arrays in NumPy's memory, and the end of a process that has left operations behind."""

from __future__ import annotations

import subprocess
import sys

import mxnet as mx
import numpy as np

from harness.model.host_memory import in_host_memory
from tests.conftest import ROOT

LEAVES_AN_OPERATION = """
import atexit, ctypes, sys, time

atexit.register(lambda: ctypes.PyDLL(None).exit(3))  # called last; ends the process while it holds Python's lock

import mxnet as mx
import numpy as np

from harness.model.host_memory import in_host_memory

shared = in_host_memory(np.zeros((2500, 2500), np.float32))
product = mx.nd.dot(shared, shared)
time.sleep(0.1)  # it begins, and takes longer
del shared
"""


def test_it_is_the_same_memory():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    shared = in_host_memory(array[:])
    array[1, 2] = 7
    assert np.array_equal(shared.asnumpy(), array)
    assert shared.context == mx.cpu()


def test_a_process_ends_though_an_operation_is_under_way():
    """Without the wait it may not; whether it does depends on when the operation ends."""
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", LEAVES_AN_OPERATION], cwd=ROOT, timeout=60).returncode == 3
