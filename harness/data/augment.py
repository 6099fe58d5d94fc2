"""Augmentation and normalisation of entire batches, without a random generator.

What happens to a sample is a function of `(seed, epoch, sample)`: not of its position in a batch, nor of the batch, the
shard or the rank. Images are `(batch, channels, height, width)`. Works on arrays and knows no data set.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from harness.data.dtypes import as_float32, as_they_are, divided, refuse_lossy
from harness.data.leaves import Array, each_leaf, leaves_of, names_of, pack
from harness.errors import DataError

if TYPE_CHECKING:
    from harness.data.arrays import Floats, Indices, Scales
    from harness.data.dtypes import Name, Scale
    from harness.data.leaves import Data, Shape

Bits = npt.NDArray[np.uint64]
Numbers = tuple[float, ...]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio, the step between SplitMix64's states


def random_bits(seed: int, epoch: int, indices: Indices) -> Bits:
    """64 random bits for each sample, by hashing `(seed, epoch, index)`."""
    digest = hashlib.blake2b(f"augment/{seed}/{epoch}".encode(), digest_size=8).digest()
    return mixed_bits(indices.astype(np.uint64), int.from_bytes(digest, "little"))


def mixed_bits(counters: Bits, key: int) -> Bits:
    """64 random bits for each counter: the output of SplitMix64 at state `key + (counter + 1) * golden`.

    G. Steele, D. Lea, C. Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014.

    Args:
        counters: of any shape; the array is used up.
        key: of 64 bits.
    """
    bits = counters
    bits += np.uint64(1)
    bits *= _GOLDEN  # unsigned arithmetic on arrays wraps around, as the hash requires
    bits += np.uint64(key)
    bits ^= bits >> np.uint64(30)
    bits *= np.uint64(0xBF58476D1CE4E5B9)
    bits ^= bits >> np.uint64(27)
    bits *= np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    return bits


def crop_offsets(bits: Bits, padding: int) -> tuple[Indices, Indices]:
    """Rows and columns, uniform in `0..2 * padding`, from bits 32 to 62 and 0 to 31."""
    choices = np.uint64(2 * padding + 1)
    rows = ((bits >> np.uint64(32) & np.uint64(0x7FFFFFFF)) * choices) >> np.uint64(31)
    columns = ((bits & np.uint64(0xFFFFFFFF)) * choices) >> np.uint64(32)
    return rows.astype(np.int64), columns.astype(np.int64)


def flip_choices(bits: Bits) -> npt.NDArray[np.bool_]:
    """Whether each sample is mirrored, from bit 63."""
    return (bits >> np.uint64(63)).astype(np.bool_)


def pad_crop(images: Array, padding: int, rows: Indices, columns: Indices) -> Array:
    """Add a border of zeros and cut out windows of the original size.

    Args:
        images: `(batch, channels, height, width)`.
        padding: width of the border in pixels.
        rows: for each image the first row of the window, `0..2 * padding`; `padding` leaves the image unchanged.
        columns: the same for the first column.

    Returns:
        A new array of the same shape and type.
    """
    count, channels, height, width = images.shape
    padded = np.zeros((count, channels, height + 2 * padding, width + 2 * padding), images.dtype)
    padded[:, :, padding : padding + height, padding : padding + width] = images
    image, channel, row, column = padded.strides
    windows = np.lib.stride_tricks.as_strided(  # (batch, channels, first row, first column, height, width), no copy
        padded,
        (count, channels, 2 * padding + 1, 2 * padding + 1, height, width),
        (image, channel, row, column, row, column),
        writeable=False,
    )
    cut: Array = windows[np.arange(count), :, rows, columns]
    return cut


def flip(images: Array, choices: npt.NDArray[np.bool_]) -> Array:
    """Mirror the chosen images left to right; returns a new array."""
    flipped = images.copy()
    flipped[choices] = images[choices, ..., ::-1]
    return flipped


def normalize(
    data: Array, full_scale: Scale, mean: Numbers | None, std: Numbers | None, name: Name = "sample {}".format
) -> Array:
    """`(data / full_scale - mean) / std` as float32; only integer data is divided by `full_scale`.

    With a mean or a deviation this is one multiplication and one addition, whose constants are rounded once. Integers
    without scale, mean and deviation stay integers.

    Args:
        data: `(batch, channels, ...)`.
        full_scale: the value that becomes 1; None leaves integers unchanged.
        mean: one number, or one for each channel, in units of the scaled data; None is 0.
        std: one number, or one for each channel, not 0; None is 1.
        name: what messages call a row.

    Raises:
        DataError: if float32, or the type that MXNet has for such integers, cannot hold a number.
    """
    unit = (full_scale or 1.0) if data.dtype.kind in "iu" else 1.0
    if mean is None and std is None:
        if data.dtype.kind == "f" or full_scale is None:
            return as_they_are(data, name)
        return as_float32(data, name) if unit == 1.0 else divided(data, unit, name)
    refuse_lossy(data, name)
    deviation = _by_channel(std or (1.0,), data.ndim)
    scale = (1.0 / (unit * deviation)).astype(np.float32)
    shift = (-_by_channel(mean or (0.0,), data.ndim) / deviation).astype(np.float32)
    scaled: Floats = np.multiply(data, scale, dtype=np.float32, casting="unsafe", order="C")
    scaled += shift
    return scaled


@dataclass(frozen=True)
class Augmentation:
    """Operations on a batch of data: random crops and flips in training, normalisation always.

    Attributes:
        pad_crop: pixels of zeros to add on every side before cutting out a window of the original size; 0 for none.
        flip: mirror half of the images left to right.
        mean: value to subtract after scaling, one number or one for each channel; None for none.
        std: value to divide by, one number or one for each channel; None for none.
        is_done: whether the data set does all of it, so that batches stay as they are.

    Raises:
        DataError: if `pad_crop` is negative or a `std` is not above 0.
    """

    pad_crop: int = 0
    flip: bool = False
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    is_done: bool = False

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        if self.pad_crop < 0:
            raise DataError(f"augmentation: pad_crop is {self.pad_crop}; give a number of pixels, 0 for none")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and (len(values) == 0 or not np.all(np.isfinite(values))):
                raise DataError(f"augmentation: {name} is {values}; give one finite number, or one for each channel")
        if self.std is not None and min(self.std) <= 0:
            raise DataError(f"augmentation: std is {self.std}; every deviation must be above 0")

    @property
    def changes(self) -> bool:
        """Whether samples are changed at all."""
        return bool(self.pad_crop or self.flip or self.mean is not None or self.std is not None)

    def check(self, sample_shape: Shape | tuple[Shape, ...] | dict[str, Shape]) -> None:
        """Raise a `DataError` unless samples of this shape (without the batch) suit the augmentation."""
        shapes = [shape for shape in leaves_of(sample_shape) if isinstance(shape, tuple)]
        if shapes and self.changes:
            raise DataError(
                f"augmentation: pad_crop, flip, mean and std apply to one input, but samples have {len(shapes)}, of "
                f"the shapes {', '.join(map(str, shapes))}; remove them, and augment where the items are created"
            )
        if not shapes:
            self._check(tuple(size for size in leaves_of(sample_shape) if isinstance(size, int)))

    def _check(self, sample_shape: Shape) -> None:
        if (self.pad_crop or self.flip) and len(sample_shape) != 3:
            raise DataError(
                f"augmentation: pad_crop and flip need images (channels, height, width), but samples have shape "
                f"{sample_shape}; turn them off or reshape the data"
            )
        if self.pad_crop and self.pad_crop >= min(sample_shape[1:]):
            raise DataError(
                f"augmentation: pad_crop is {self.pad_crop}, but images are {sample_shape[1]} x "
                f"{sample_shape[2]}: a crop "
                "could hold nothing but the border; allowed: less than height and width"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) not in (1, *sample_shape[:1]):
                raise DataError(
                    f"augmentation: {len(values)} values of {name} for samples of shape {sample_shape}; give one "
                    "number, or one for each channel (the first dimension)"
                )

    def train(
        self,
        data: Data,
        epoch: int,
        indices: Indices,
        seed: int,
        full_scale: Scales,
        name: Name = "sample {}".format,
    ) -> Data:
        """The batch for training: cropped, flipped, normalised.

        Args:
            data: `(batch, channels, height, width)`; without crop and flip also `(batch, ...)`, and without any
                augmentation a tuple or dict of these.
            epoch: the epoch, from 1.
            indices: the sample of the data set in each row.
            seed: the run's seed.
            full_scale: the divisor for integer data; None leaves it unchanged.
            name: what messages call a row.

        Returns:
            C-contiguous arrays of the same shape, float32 unless they stay integers; `data` itself if nothing
            changes.
        """
        if self.pad_crop or self.flip:
            bits = random_bits(seed, epoch, indices)
            if self.pad_crop:
                data = each_leaf(lambda leaf: pad_crop(leaf, self.pad_crop, *crop_offsets(bits, self.pad_crop)), data)
            if self.flip:
                data = each_leaf(lambda leaf: flip(leaf, flip_choices(bits)), data)
        return self.evaluate(data, full_scale, name)

    def evaluate(self, data: Data, full_scale: Scales, name: Name = "sample {}".format) -> Data:
        """The batch for evaluation: only normalised."""
        if self.is_done:
            return data
        if isinstance(data, tuple | dict):
            leaves, names = leaves_of(data), names_of(data, "data")
            scales = full_scale if isinstance(full_scale, tuple) else (full_scale,) * len(leaves)
            normal = [
                normalize(leaf, scale, None, None, named_leaf(name, what))
                for leaf, scale, what in zip(leaves, scales, names, strict=True)
            ]
            return pack(normal, data)
        scale = full_scale[0] if isinstance(full_scale, tuple) else full_scale
        return normalize(data, scale, self.mean, self.std, name)


def labels_as_they_are(label: Data, name: Name) -> Data:
    """Labels in MXNet's types; see `as_they_are`.

    Args:
        label: `(n, ...)`, or a tuple or dict of such arrays.
        name: what messages call a row.
    """
    if isinstance(label, np.ndarray):
        return as_they_are(label, name)
    named = zip(leaves_of(label), names_of(label, "label"), strict=True)
    return pack([as_they_are(leaf, named_leaf(name, what)) for leaf, what in named], label)


def named_leaf(name: Name, what: str) -> Name:
    """What messages call a row of a leaf."""
    return lambda row: f"{name(row)} ({what})"


def _by_channel(values: tuple[float, ...], ndim: int) -> npt.NDArray[np.float64]:
    """Numbers shaped so that they broadcast along the second dimension of a batch."""
    return np.array(values, np.float64).reshape(1, -1, *[1] * (ndim - 2))
