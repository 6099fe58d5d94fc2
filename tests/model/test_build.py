"""First weights of a network that a configuration names."""

from __future__ import annotations

import numpy as np

from harness.config import load_config
from harness.data import Augmentation, load
from harness.model import build_model
from harness.train.samples import first_samples


def test_what_a_network_draws_for_itself_does_not_come_again_in_its_other_weights():
    samples = first_samples(load("digits").train, Augmentation(), 2)
    network = "network={name: 'tests.programs.odd_nets:HalfMade', initializer: {normal: {sigma: 0.3}}}"

    def weights(seed):
        net = build_model(load_config("configs/digits.yaml", [network, f"seed={seed}"]), 0, samples, 10).net
        return [layer.weight.data().asnumpy() for layer in net]

    own, given = weights(seed=1)
    assert np.abs(own - given).max() > 0.1
    np.testing.assert_array_equal(weights(seed=1), [own, given])
    assert np.abs(np.subtract(weights(seed=2), [own, given])).max(axis=(1, 2)).min() > 0.1
