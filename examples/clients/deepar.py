"""DeepAR as GluonTS has it (Salinas et al. 2017, arXiv 1704.04110), on hourly series of which a fifth is missing.

GluonTS makes the transformations, the windows and the network, whose nine inputs are a tuple here. Its trainer takes
the mean over series of means over time; the mean here is over the observed values of all workers. Run it:
mpirun -np 2 .venv-clients/bin/python launch/train.py --config examples/clients/deepar.yaml
"""

import numpy as np
import pandas as pd
from gluonts.mx.model.deepar import DeepAREstimator
from gluonts.mx.model.deepar._network import DeepARTrainingNetwork
from gluonts.mx.util import get_hybrid_forward_input_names
from gluonts.transform import InstanceSampler, ValidationSplitSampler

CONTEXT, HORIZON, KINDS = 12, 6, 3
INPUTS = get_hybrid_forward_input_names(DeepARTrainingNetwork)


class OneWindow(InstanceSampler):
    """One window of a series at a time; the number that GluonTS's own sampler gives depends on what it gave before."""

    def __call__(self, target):
        """Where the window begins to be forecast; drawn from NumPy's generator, which is seeded for every item."""
        first, last = self._get_bounds(target)
        return np.array([np.random.randint(first, last + 1)])


def estimator():
    """What GluonTS's users write, but for the trainer."""
    return DeepAREstimator(
        freq="H",
        prediction_length=HORIZON,
        context_length=CONTEXT,
        num_layers=1,
        num_cells=16,
        use_feat_static_cat=True,
        cardinality=[KINDS],
        lags_seq=[1, 2, 24],
        train_sampler=OneWindow(min_past=CONTEXT + 24, min_future=HORIZON),
        validation_sampler=ValidationSplitSampler(min_future=HORIZON),
    )


def series(count, seed):
    """Daily waves of three kinds with noise and holes, in the form of GluonTS's data sets."""
    random = np.random.default_rng(seed)
    hours = np.arange(7 * 24)
    for number in range(count):
        kind = number % KINDS
        wave = 2 + kind + np.sin(2 * np.pi * (hours + 8 * kind) / 24) * (1 + kind)
        target = wave * random.uniform(1, 10) + random.normal(0, 0.2, len(hours))
        target[random.random(len(hours)) < 0.2] = np.nan
        yield {"start": pd.Period("2026-01-05", "H"), "target": target, "feat_static_cat": [kind]}


class Windows:
    """A window of each series, which the estimator cuts: another one in every epoch, or the last one."""

    def __init__(self, count, seed, mode):
        """Transform all series once, as GluonTS's trainer does with `cache_data`."""
        made = estimator()
        self._series = list(made.create_transformation()(series(count, seed), is_train=True))
        self._splitter = made._create_instance_splitter(mode)

    def __len__(self):
        """The number of series."""
        return len(self._series)

    def __getitem__(self, index):
        """The nine inputs, and which values of context and horizon were observed."""
        (window,) = self._splitter([self._series[index]], is_train=True)
        observed = [window["past_observed_values"][-CONTEXT:], window["future_observed_values"]]
        return tuple(np.asarray(window[name], np.float32) for name in INPUTS), np.concatenate(observed)


def windows():
    """For `data.name`."""
    return Windows(96, 0, "training"), Windows(24, 1, "validation")


def network():
    """For `network.name`."""
    return estimator().create_training_network()


def over_observed():
    """For `network.loss`: of what the network returns the negative log-likelihoods `(n, time)`."""
    return lambda outputs, observed: (outputs[1], observed)
