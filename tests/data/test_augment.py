from __future__ import annotations

import hashlib

import numpy as np
import pytest

from harness.data import Augmentation
from harness.data.augment import crop_offsets, flip, flip_choices, normalize, pad_crop, random_bits
from harness.errors import DataError


@pytest.fixture
def images():
    return np.random.RandomState(0).randint(0, 256, (40, 3, 6, 5)).astype(np.uint8)


def slow_pad_crop(image: np.ndarray, padding: int, row: int, column: int) -> np.ndarray:
    """One image, pixel by pixel."""
    channels, height, width = image.shape
    out = np.zeros_like(image)
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                y0, x0 = y + row - padding, x + column - padding
                if 0 <= y0 < height and 0 <= x0 < width:
                    out[c, y, x] = image[c, y0, x0]
    return out


def test_pad_crop_pixel_by_pixel(images):
    rows, columns = np.divmod(np.arange(40) % 25, 5)
    got = pad_crop(images, 2, rows, columns)
    for i in range(40):
        np.testing.assert_array_equal(got[i], slow_pad_crop(images[i], 2, rows[i], columns[i]))
    np.testing.assert_array_equal(pad_crop(images, 2, np.full(40, 2), np.full(40, 2)), images)


def test_flip_mirrors_the_chosen_and_leaves_its_argument_alone(images):
    before = images.copy()
    choices = np.arange(40) % 3 == 0
    got = flip(images, choices)
    np.testing.assert_array_equal(images, before)
    for i in range(40):
        np.testing.assert_array_equal(got[i], images[i, :, :, ::-1] if choices[i] else images[i])


def splitmix64(state: int) -> int:
    """The output function in Python's integers."""
    mask = 2**64 - 1
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    return state ^ (state >> 31)


def test_the_bits_are_those_of_splitmix64():
    # the key of (seed, epoch) is the state before index -1
    indices = np.array([0, 1, 5, 2**40])
    step = 0x9E3779B97F4A7C15
    key = int.from_bytes(hashlib.blake2b(b"augment/3/2", digest_size=8).digest(), "little")
    expected = [splitmix64((key + (int(i) + 1) * step) % 2**64) for i in indices]
    assert random_bits(3, 2, indices).tolist() == expected
    assert splitmix64(step) == 0xE220A8397B1DCDAF  # SplitMix64's well-known first output for seed 0


def test_a_sample_is_treated_the_same_in_any_batch(images):
    augmentation = Augmentation(pad_crop=2, flip=True, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    indices = np.random.RandomState(1).permutation(1000)[:40]
    whole = augmentation.train(images, 3, indices, 7, 255.0)
    for rows in ([5], [39, 0, 5], list(range(0, 40, 2)), list(reversed(range(40)))):
        part = augmentation.train(images[rows], 3, indices[rows], 7, 255.0)
        np.testing.assert_array_equal(part, whole[rows])


def test_epoch_seed_and_sample_all_change_the_treatment():
    indices = np.arange(500)
    base = random_bits(0, 1, indices)
    assert len(set(base.tolist())) == 500
    for other in (random_bits(1, 1, indices), random_bits(0, 2, indices), random_bits(0, 1, indices + 500)):
        assert not set(other.tolist()) & set(base.tolist())


def test_offsets_and_flips_are_uniform_and_independent():
    # 0.999 quantiles of chi-square; the draws are fixed, so this cannot fail by chance
    for seed, epoch in ((0, 1), (0, 2), (1, 1)):
        bits = random_bits(seed, epoch, np.arange(50_000))
        rows, columns = crop_offsets(bits, 4)
        cells = np.bincount((rows * 9 + columns) * 2 + flip_choices(bits), minlength=162)
        assert cells.size == 162
        assert ((cells - 50_000 / 162) ** 2 / (50_000 / 162)).sum() < 221  # 161 degrees of freedom
        shifted = np.bincount(rows[1:] * 9 + rows[:-1], minlength=81)  # neighbours in the data set
        assert ((shifted - 49_999 / 81) ** 2 / (49_999 / 81)).sum() < 125  # 80 degrees of freedom


@pytest.mark.parametrize("padding", [1, 2, 4, 100])
def test_offsets_reach_both_ends(padding):
    rows, columns = crop_offsets(random_bits(0, 1, np.arange(20_000)), padding)
    for offsets in (rows, columns):
        assert (offsets.min(), offsets.max()) == (0, 2 * padding)
    ends = np.array([0, 2**64 - 1], np.uint64)
    assert [array.tolist() for array in crop_offsets(ends, padding)] == [[0, 2 * padding]] * 2


@pytest.mark.parametrize(
    ("data", "full_scale", "expected"),
    [
        (np.array([[0, 51, 255]], np.uint8), 255.0, [[0.0, 0.2, 1.0]]),
        (np.array([[0, 4, 16]], np.uint8), 16.0, [[0.0, 0.25, 1.0]]),
        (np.array([[0, 51, 255]], np.int32), 255.0, [[0.0, 0.2, 1.0]]),
        (np.array([[0.5, -2.0]], np.float32), 1.0, [[0.5, -2.0]]),
        (np.array([[0.1, 1e-3]], np.float64), 1.0, [[0.1, 1e-3]]),
    ],
)
def test_scaling_is_rounded_once(data, full_scale, expected):
    got = normalize(data, full_scale, None, None)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, np.array(expected, np.float32))


@pytest.mark.parametrize("mean", [None, (0.5,), (0.1, 0.2, 0.3)])
@pytest.mark.parametrize("std", [None, (0.5,), (0.3, 0.2, 0.1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_normalisation_against_its_formula(images, mean, std, dtype):
    data = images.astype(dtype) if dtype == np.uint8 else images.astype(dtype) / 255
    full_scale = 255.0 if dtype == np.uint8 else 1.0
    per_channel = [np.array(values or (default,)).reshape(-1, 1, 1) for values, default in ((mean, 0), (std, 1))]
    expected = (images / 255 - per_channel[0]) / per_channel[1]
    got = normalize(data, full_scale, mean, std)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    # three roundings of float32 (2^-24 each), of numbers up to 1 / 0.1
    np.testing.assert_allclose(got, expected, rtol=0, atol=4 * 2.0**-24 * 10)


def test_features_are_normalised_by_column():
    data = np.arange(6, dtype=np.float32).reshape(3, 2)
    got = Augmentation(mean=(1.0, 2.0), std=(2.0, 4.0)).evaluate(data, 1.0)
    np.testing.assert_array_equal(got, [[-0.5, -0.25], [0.5, 0.25], [1.5, 0.75]])


@pytest.mark.parametrize("layout", ["plain", "transposed", "empty", "read-only"])
def test_the_result_is_contiguous_float32_and_the_input_untouched(images, layout):
    data = {
        "plain": images,
        "transposed": np.asfortranarray(images),
        "empty": images[:0],
        "read-only": np.frombuffer(images.tobytes(), np.uint8).reshape(images.shape),
    }[layout]
    before = data.copy()
    indices = np.arange(len(data))
    for augmentation in (Augmentation(), Augmentation(2, True), Augmentation(0, True, (0.5,), (0.5,))):
        for got in (augmentation.train(data, 1, indices, 0, 255.0), augmentation.evaluate(data, 255.0)):
            assert got.dtype == np.float32
            assert got.flags.c_contiguous
            assert got.shape == data.shape
    np.testing.assert_array_equal(data, before)


def test_evaluation_neither_crops_nor_flips(images):
    np.testing.assert_array_equal(
        Augmentation(2, True, (0.5,), None).evaluate(images, 255.0), Augmentation(mean=(0.5,)).evaluate(images, 255.0)
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pad_crop": -1}, "pad_crop is -1; give a number of pixels"),
        ({"std": (0.5, 0.0)}, "every deviation must be above 0"),
        ({"mean": ()}, "give one finite number, or one for each channel"),
        ({"mean": (float("nan"),)}, "give one finite number"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(DataError, match=message):
        Augmentation(**settings)


def test_settings_that_do_not_fit_the_samples():
    Augmentation(2, True, (0.1, 0.2, 0.3), (1.0,)).check((3, 8, 8))
    with pytest.raises(DataError, match=r"2 values of mean for samples of shape \(3, 8, 8\)"):
        Augmentation(mean=(0.1, 0.2)).check((3, 8, 8))
    with pytest.raises(DataError, match=r"need images \(channels, height, width\), but samples have shape \(64,\)"):
        Augmentation(flip=True).check((64,))
