"""Applies an update to the weights: the optimizer, and where it runs."""

from harness.gluon.step.optimizer_step import OptimizerStep

__all__ = ["OptimizerStep"]
