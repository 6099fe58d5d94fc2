"""A network of `gluon_nets.py` and one of `torch_nets.py` as the two sides of a run."""

from __future__ import annotations

import mxnet as mx
import numpy as np

from harness.bridge.sides import Sides
from harness.bridge.torch_calls import TorchCalls, build_loss
from harness.bridge.verification import verified
from harness.model.calls import Calls
from harness.model.parameters import held, parameters_of
from tests.bridge import gluon_nets, torch_nets


def both(name, module=None):
    net, data = gluon_nets.built(name)
    label = np.arange(len(data), dtype=np.int32) % gluon_nets.CLASSES
    return Sides(
        Calls(net, mx.gluon.loss.SoftmaxCrossEntropyLoss()),
        TorchCalls(module or torch_nets.NETWORKS[name](), build_loss("softmax_cross_entropy", {}, -1)),
        data,
        label,
        {path: held(parameter).asnumpy() for path, parameter in parameters_of(net).items()},
        3,
    )


def found_in(sides, mapping):
    """What `verify` says is different, in one text."""
    return "\n".join(verified(sides, mapping).differences)
