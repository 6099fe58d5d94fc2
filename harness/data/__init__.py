"""Data sets, the sample order as a pure function of the iteration, and the assembly of batches.

Everything here is NumPy; it knows nothing about ranks, devices and MXNet.
"""

from harness.data.arrays import ArrayDataset, Dataset, Subset
from harness.data.augment import Augmentation
from harness.data.batches import (
    Batch,
    BatchStream,
    EvaluationBatch,
    GlobalBatch,
    chosen_batches,
    evaluation_batches,
    evaluation_samples,
)
from harness.data.batching import Batching
from harness.data.collated import CollatedDataset, with_functions
from harness.data.datasets import DATASETS, count_samples, load
from harness.data.functions import COLLATES, Functions
from harness.data.group_by import GroupBy
from harness.data.grouping import Grouping
from harness.data.leaves import count_of, described_shapes, each_leaf, leaves_of, names_of, pack, rows_of
from harness.data.order import Order, permutation, sweep_order
from harness.data.pictures.dataset import EVERY_HOST
from harness.data.pictures.replacement import Replacement
from harness.data.purity import draws_at_random, probe_splits, seeded_splits
from harness.data.request import Counts
from harness.data.scales import describe_scale
from harness.data.sequences import SequenceDataset
from harness.data.shares import EvaluationShare
from harness.data.splits import Splits, is_soft, make_splits
from harness.data.streams import EvaluationStreams

__all__ = [
    "COLLATES",
    "DATASETS",
    "EVERY_HOST",
    "ArrayDataset",
    "Augmentation",
    "Batch",
    "BatchStream",
    "Batching",
    "CollatedDataset",
    "Counts",
    "Dataset",
    "EvaluationBatch",
    "EvaluationShare",
    "EvaluationStreams",
    "Functions",
    "GlobalBatch",
    "GroupBy",
    "Grouping",
    "Order",
    "Replacement",
    "SequenceDataset",
    "Splits",
    "Subset",
    "chosen_batches",
    "count_of",
    "count_samples",
    "describe_scale",
    "described_shapes",
    "draws_at_random",
    "each_leaf",
    "evaluation_batches",
    "evaluation_samples",
    "is_soft",
    "leaves_of",
    "load",
    "make_splits",
    "names_of",
    "pack",
    "permutation",
    "probe_splits",
    "rows_of",
    "seeded_splits",
    "sweep_order",
    "with_functions",
]
