"""Data sets, the order of their samples as a pure function of the iteration, and whole-batch assembly.

Everything here is NumPy; it knows nothing of ranks, devices and MXNet.
"""

from harness.data.arrays import ArrayDataset, Dataset, SequenceDataset, Subset
from harness.data.augment import Augmentation
from harness.data.batches import Batch, BatchStream, EvaluationBatch, GlobalBatch, evaluation_batches
from harness.data.datasets import DATASETS, count_samples, load
from harness.data.order import Order, permutation
from harness.data.request import Counts
from harness.data.splits import Splits, make_splits

__all__ = [
    "DATASETS",
    "ArrayDataset",
    "Augmentation",
    "Batch",
    "BatchStream",
    "Counts",
    "Dataset",
    "EvaluationBatch",
    "GlobalBatch",
    "Order",
    "SequenceDataset",
    "Splits",
    "Subset",
    "count_samples",
    "evaluation_batches",
    "load",
    "make_splits",
    "permutation",
]
