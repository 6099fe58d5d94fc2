"""What is trained, by name: networks, losses, initializers, optimizers, metrics. Knows no ranks and no update."""

from harness.model.build import Model, build_model, devices_of_rank
from harness.model.inputs import seed_generator
from harness.model.metrics import Mean, Metric, Rows, Sums, build_metrics, try_metrics

__all__ = [
    "Mean",
    "Metric",
    "Model",
    "Rows",
    "Sums",
    "build_metrics",
    "build_model",
    "devices_of_rank",
    "seed_generator",
    "try_metrics",
]
