"""The earlier name of `harness.model.networks`: programs that import from here get that very module."""

import sys

from harness.model import networks

sys.modules[__name__] = networks
