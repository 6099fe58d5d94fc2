"""Pictures: what decoders, crops and colours give, as functions of the file and of (seed, epoch, sample)."""

from __future__ import annotations

import math
import os
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from harness.data import Augmentation, BatchStream, Order
from harness.data.pictures.dataset import PictureDataset, Workers
from harness.data.pictures.decoding import Box, Picture, Size, orientation, resized, shrinking_for
from harness.data.pictures.draws import NUM_WORDS, Draws, cosine_and_sine, log_2, power_of_2, sample_words
from harness.data.pictures.recipe import GREY, Colours, Erasing, Recipe
from harness.errors import DataError

cv2 = pytest.importorskip("cv2")
simplejpeg = pytest.importorskip("simplejpeg")

ROOT = Path(__file__).parents[2]
RANDOM = np.random.default_rng(3)
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def made(height, width):
    """A picture with some structure at every scale."""
    coarse = RANDOM.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3)).astype(np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.int16)
    return np.clip(smooth + RANDOM.integers(-20, 21, smooth.shape), 0, 255).astype(np.uint8)


def jpeg(pixels, quality=90, **how):
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=quality, **how)


def other(pixels, suffix):
    return cv2.imencode(suffix, pixels[:, :, ::-1])[1].tobytes()


def turned(file, value, order="<"):
    """A JPEG file with EXIF data that say how it is to be turned."""
    table = struct.pack(f"{order}HHHIHHI", 1, 0x0112, 3, 1, value, 0, 0)
    exif = b"Exif\0\0" + (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8) + table
    return file[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + file[2:]


def draws_of(sample, epoch=1, seed=0):
    return Draws(sample_words(seed, epoch, np.array([sample]))[0])


# Decoding.


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (64, 48), (375, 500)])
@pytest.mark.parametrize("quality", [30, 90, 100])
def test_pixels_are_those_of_mxnets_decoder(size, quality):
    file = jpeg(made(*size), quality)
    picture = Picture(file)
    assert picture.size == size
    np.testing.assert_array_equal(picture.decode(), mx.image.imdecode(file).asnumpy())


def test_grey_pictures_have_three_channels():
    file = jpeg(made(20, 30)[:, :, :1], colorspace="GRAY")
    pixels = Picture(file).decode()
    assert pixels.shape == (20, 30, 3)
    assert (pixels[:, :, 0] == pixels[:, :, 2]).all()


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_other_formats_are_decoded(suffix):
    pixels = made(33, 50)
    picture = Picture(other(pixels, suffix))
    assert picture.size == (33, 50)
    found = picture.decode()
    if suffix == ".png":
        np.testing.assert_array_equal(found, pixels)
    assert np.abs(found.astype(int) - pixels).mean() < 20


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_picture_is_turned_as_opencv_turns_it(value, order):
    file = turned(jpeg(made(24, 40)), value, order)
    picture = Picture(file)
    expected = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert orientation(file) == value
    assert picture.size == expected.shape[:2]
    np.testing.assert_array_equal(picture.decode(), expected)
    assert picture.decode(2).shape[:2] == tuple(-(-side // 2) for side in picture.size)


@pytest.mark.parametrize("value", [0, 9, 60000])
def test_a_turn_that_there_is_not_is_none(value):
    assert orientation(turned(jpeg(made(8, 8)), value)) == 1


@pytest.mark.parametrize("size", [(224, 224), (300, 499), (449, 450), (1000, 1791)])
def test_a_jpeg_is_decoded_smaller_where_enough_is_left(size):
    shrinking = shrinking_for(Box(0, 0, *size), 224, 224)
    picture = Picture(jpeg(made(*size)))
    found = picture.decode(shrinking)
    assert found.shape[:2] == tuple(-(-side // shrinking) for side in size)
    assert min(found.shape[:2]) >= 224
    assert shrinking == 8 or min(size) < 448 * shrinking


@pytest.mark.parametrize("wanted", [(224, 224), (100, 341), (600, 650)])
def test_resizing_is_that_of_mxnet_to_the_bit(wanted):
    pixels = made(375, 500)
    expected = mx.image.imresize(mx.nd.array(pixels, dtype="uint8"), wanted[1], wanted[0], interp=1)
    np.testing.assert_array_equal(resized(pixels, *wanted), expected.asnumpy())


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb(side):
    """A PNG file that claims more pixels than memory has."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 999)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"GIF89a", "is no JPEG, PNG or WebP file; it begins with 47 49 46 38 39 61"),
        (bomb(60_000), "claims 60000 x 60000 pixels; allowed: 1 to 268,435,456 in all"),
        (bomb(20), "cannot be decoded"),
        (b"\xff\xd8\xff", "."),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "is no JPEG, PNG or WebP file"),
    ],
)
def test_what_is_no_picture_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        Picture(content).decode()


def test_jpeg_files_that_are_cut_are_noticed():
    file = jpeg(made(100, 120))
    for cut in (2, 10, len(file) // 2, len(file) - 3):
        with pytest.raises(ValueError, match=r"."):
            Picture(file[:-cut]).decode()


@pytest.mark.parametrize("seed", range(60))
def test_damaged_bytes_give_a_picture_or_an_error(seed):
    draw = np.random.default_rng(seed)
    pixels = made(48, 64)
    file = bytearray([jpeg(pixels), other(pixels, ".png"), other(pixels, ".webp")][seed % 3])
    for _ in range(draw.integers(1, 20)):
        file[draw.integers(0, len(file))] = draw.integers(0, 256)
    recipe = Recipe(Size(16, 16), 20)
    try:
        recipe.train(Picture(bytes(file)), draws_of(seed), np.empty((3, 16, 16), np.float32))
    except ValueError as error:
        said = str(error)
    else:
        said = "a picture"
    assert said


# Random numbers.


def test_words_are_those_of_the_sample_in_any_batch():
    together = sample_words(7, 3, np.array([5, 0, 9]))
    assert together.shape == (3, NUM_WORDS)
    np.testing.assert_array_equal(together[2], sample_words(7, 3, np.array([9]))[0])
    others = [sample_words(7, 4, np.array([9])), sample_words(8, 3, np.array([9])), sample_words(7, 3, np.array([8]))]
    assert all((together[2] != one[0]).any() for one in others)


def test_numbers_are_uniform_and_normal():
    many = [Draws(words) for words in sample_words(0, 1, np.arange(4000))]
    uniform = np.array([[one.uniform(number) for number in range(0, 64, 7)] for one in many])
    assert abs(uniform.mean(axis=0) - 0.5).max() < 5 * math.sqrt(1 / 12 / 4000)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert np.abs(np.corrcoef(uniform.T) - np.eye(10)).max() < 0.08
    normal = np.array([one.normal(28) for one in many])
    assert abs(normal.mean()) < 5 / math.sqrt(4000)
    assert abs(normal.var() - 1) < 5 * math.sqrt(2 / 4000)
    assert {one.below(3, 5) for one in many} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("value", [-7.3, -1.0, -0.4150374992788438, 0.0, 0.3, 0.999999, 5.5])
def test_powers_sines_and_logarithms_are_right(value):
    assert power_of_2(value) == pytest.approx(2.0**value, rel=1e-15)
    turns = value / 15
    assert cosine_and_sine(turns) == pytest.approx((math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)))
    assert log_2(2.0**value) == pytest.approx(value, abs=1e-12)


# Recipes.


def test_parts_have_the_areas_and_ratios_that_were_asked_for():
    recipe = Recipe(Size(224, 224), 256)
    size = Size(375, 500)
    boxes = [recipe.random_box(draws_of(sample), size) for sample in range(2000)]
    assert all(box.top >= 0 and box.left >= 0 for box in boxes)
    assert all(box.top + box.height <= 375 and box.left + box.width <= 500 for box in boxes)
    areas = np.array([box.height * box.width for box in boxes]) / (375 * 500)
    ratios = np.array([box.width / box.height for box in boxes])
    assert 0.075 < areas.min() < 0.1
    assert areas.max() > 0.9
    assert 0.74 < ratios.min() < 0.78
    assert 1.28 < ratios.max() < 1.36
    assert abs(np.log(ratios[areas < 0.3]).mean()) < 0.03, "as often wide as high"


@pytest.mark.parametrize(
    ("size", "box"),
    [(Size(10, 1000), Box(0, 493, 10, 13)), (Size(1000, 9), Box(494, 0, 12, 9)), (Size(8, 8), Box(0, 0, 8, 8))],
)
def test_where_no_part_fits_the_middle_is_taken(size, box):
    assert Recipe(Size(4, 4), 4, area=(5.0, 6.0)).random_box(draws_of(0), size) == box


def seen(recipe, file, sample=0, epoch=1):
    out = np.full((3, *recipe.size), np.nan, np.float32)
    recipe.train(Picture(file), draws_of(sample, epoch), out)
    return out


def test_training_without_any_change_is_the_picture_normalised():
    pixels = made(32, 32)
    recipe = Recipe(Size(32, 32), 32, area=(1.0, 1.0), ratio=(1.0, 1.0), **IMAGENET)
    found = seen(recipe, other(pixels, ".png"))
    expected = (pixels / 255 - IMAGENET["mean"]) / IMAGENET["std"]
    np.testing.assert_allclose(found, expected.transpose(2, 0, 1), atol=1e-6)


def test_half_of_the_pictures_are_mirrored():
    pixels = made(16, 16)
    plain, both = (Recipe(Size(16, 16), 16, area=(1.0, 1.0), ratio=(1.0, 1.0), flip=flip) for flip in (False, True))
    file = other(pixels, ".png")
    expected = seen(plain, file)
    found = [seen(both, file, sample) for sample in range(200)]
    mirrored = sum((one == expected[:, :, ::-1]).all() for one in found)
    assert mirrored + sum((one == expected).all() for one in found) == 200
    assert 70 < mirrored < 130


def test_a_random_part_of_a_padded_picture():
    pixels = np.full((8, 8, 3), 255, np.uint8)
    recipe = Recipe(Size(8, 8), 8, crop="random", pad=4)
    found = [seen(recipe, other(pixels, ".png"), sample) for sample in range(100)]
    rows = {int(one[0].any(axis=1).sum()) for one in found}
    assert rows == {4, 5, 6, 7, 8}


def test_evaluation_is_mxnets_resize_and_middle():
    pixels = made(60, 90)
    file = other(pixels, ".png")
    out = np.empty((3, 40, 40), np.float32)
    Recipe(Size(40, 40), 48).evaluate(Picture(file), out)
    expected = mx.image.center_crop(mx.image.resize_short(mx.nd.array(pixels, dtype="uint8"), 48, interp=1), (40, 40))
    np.testing.assert_array_equal(out, (expected[0].asnumpy() * np.float32(1 / 255)).transpose(2, 0, 1))


def by_hand(pixels, colours, draws):
    """Saturation, hue, brightness and contrast, one after the other."""
    bright, contrast, saturation = (
        draws.uniform(number, 1 - most, 1 + most)
        for number, most in ((23, colours.brightness), (24, colours.contrast), (25, colours.saturation))
    )
    values = pixels.astype(np.float64)
    mean = bright * (values @ GREY).mean()
    values = values * saturation + (1 - saturation) * (values @ GREY)[..., None]
    if colours.hue:
        angle = math.pi * draws.uniform(26, -colours.hue, colours.hue)
        turn = np.array([[1, 0, 0], [0, math.cos(angle), -math.sin(angle)], [0, math.sin(angle), math.cos(angle)]])
        to_yiq = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]])
        from_yiq = np.array([[1, 0.956, 0.621], [1, -0.272, -0.647], [1, -1.107, 1.705]])
        values = values @ (from_yiq @ turn @ to_yiq).T
    return values * bright * contrast + (1 - contrast) * mean


@pytest.mark.parametrize(
    "colours", [Colours(brightness=0.4), Colours(contrast=0.4), Colours(saturation=0.4), Colours(0.4, 0.4, 0.4, 0.1)]
)
def test_colours_are_changed_as_by_hand(colours):
    pixels = made(24, 24)
    recipe = Recipe(Size(24, 24), 24, area=(1.0, 1.0), ratio=(1.0, 1.0), colours=colours, **IMAGENET)
    for sample in range(5):
        expected = np.clip(by_hand(pixels, colours, draws_of(sample)), 0, 255) / 255
        expected = (expected - IMAGENET["mean"]) / IMAGENET["std"]
        found = seen(recipe, other(pixels, ".png"), sample)
        np.testing.assert_allclose(found, expected.transpose(2, 0, 1), atol=2e-5)


def test_lighting_adds_one_colour_along_the_components():
    pixels = np.full((8, 8, 3), 128, np.uint8)
    recipe = Recipe(Size(8, 8), 8, colours=Colours(lighting=0.1))
    shifts = np.array([seen(recipe, other(pixels, ".png"), sample)[:, 0, 0] * 255 - 128 for sample in range(500)])
    assert 2 < shifts.std() < 5
    main = np.linalg.eigh(np.cov(shifts.T))[1][:, -1]
    assert np.abs(main) == pytest.approx([0.5675, 0.5808, 0.5836], abs=0.02)


def test_erasing_covers_the_share_that_was_asked_for():
    recipe = Recipe(Size(64, 64), 64, erasing=Erasing(probability=0.25))
    file = other(np.full((64, 64, 3), 255, np.uint8), ".png")
    shares = np.array([(seen(recipe, file, sample) == 0).mean() for sample in range(400)])
    assert 0.18 < (shares > 0).mean() < 0.32
    assert shares[shares > 0].min() > 0.01
    assert shares.max() < 0.36


# A split.


class Held:
    """Files in memory, some of which are damaged."""

    def __init__(self, count=40, damaged=(), labels=1):
        self.files = [jpeg(made(40 + row, 50)) for row in range(count)]
        self.damaged, self.labels = set(damaged), labels

    def __len__(self):
        return len(self.files)

    def name_of(self, row):
        return f"file {row}"

    def read(self, row):
        file = self.files[row]
        return memoryview(file[:-40] if row in self.damaged else file), np.full(self.labels, row % 7, np.float32)


RECIPE = Recipe(Size(24, 24), 32, flip=True, colours=Colours(0.4, 0.4, 0.4, 0.1, 0.1), **IMAGENET)
ROWS = np.array([5, 3, 39, 0, 17, 17, 20, 21, 22, 8, 2])


def test_the_bytes_do_not_depend_on_the_number_of_threads_or_on_the_batch():
    held = Held()
    data, label = PictureDataset(held, RECIPE, "data", num_classes=7).take(ROWS, 2, 9)
    for workers in (1, 2, 3, 8):
        split = PictureDataset(held, RECIPE, "data", workers=workers, num_classes=7)
        again, labels = split.take(ROWS, 2, 9)
        split.close()
        assert again.tobytes() == data.tobytes()
        assert labels.tolist() == label.tolist() == [row % 7 for row in ROWS]
    one, _ = PictureDataset(held, RECIPE, "data").take(ROWS[2:3], 2, 9)
    assert one[0].tobytes() == data[2].tobytes()
    assert (PictureDataset(held, RECIPE, "data").take(ROWS, 3, 9)[0] != data).any()


@pytest.mark.parametrize("workers", [0, 1, 2, 8])
def test_the_damaged_picture_of_the_lowest_row_is_named(workers):
    split = PictureDataset(Held(damaged=(39, 17, 8)), RECIPE, "data", workers=workers)
    with pytest.raises(DataError, match=r"^data: sample 39: file 39: .*; replace the file, leave it out, or set data"):
        split.take(ROWS, 1, 0)
    split.close()


def test_a_damaged_picture_is_replaced_by_the_one_that_follows():
    whole, held = Held(), Held(damaged=(39, 17, 18))
    held.files = whole.files
    split = PictureDataset(held, RECIPE, "data", workers=2, replace_damaged=True, num_classes=7)
    data, label = split.take(ROWS)
    expected, labels = PictureDataset(whole, RECIPE, "data", num_classes=7).take(
        np.array([5, 3, 0, 0, 19, 19, 20, 21, 22, 8, 2])
    )
    assert data.tobytes() == expected.tobytes()
    assert label.tolist() == labels.tolist()
    assert [one[:2] for one in split.last_replaced] == [(39, 0), (17, 19), (17, 19)]
    split.close()


def test_where_all_are_damaged_it_is_said():
    split = PictureDataset(Held(3, damaged=range(3)), RECIPE, "data", replace_damaged=True)
    with pytest.raises(DataError, match=r"sample 1: file 1: .*; so is every other one of 3, and none can replace it"):
        split.take(np.array([1]))


def test_a_label_that_is_no_class_is_named():
    split = PictureDataset(Held(), RECIPE, "data", num_classes=6)
    with pytest.raises(DataError, match="data: sample 20: the label is 6, but classes are 0 to 5"):
        split.take(np.array([5, 20]))


def test_several_labels_are_rows():
    assert PictureDataset(Held(labels=3), RECIPE, "data").take(np.array([5, 20]))[1].shape == (2, 3)


def test_threads_stop_at_the_first_error():
    done = []

    def work(row):
        done.append(row)
        if row == 8:
            raise DataError(str(row))
        time.sleep(0.001)  # so that whoever hears of the first error has time to call off the rest

    workers = Workers(2)
    with pytest.raises(DataError, match=r"^8$"):
        workers.run(work, 4000)
    workers.close()
    assert len(done) < 2000


@pytest.mark.parametrize("workers", [1, 3])
def test_a_picture_that_takes_too_long_is_named(workers):
    held, split = Held(), None
    release = threading.Event()

    def read(row):
        if row == 17:
            release.wait(20)
        return Held.read(held, row)

    held.read = read
    split = PictureDataset(held, RECIPE, "data", workers=workers, timeout_s=0.5)
    begun = time.monotonic()
    said = r"^data: sample 17: file 17: reading and decoding takes longer than data.timeout_s = 0.5 s; see whether"
    with pytest.raises(DataError, match=said):
        split.take(ROWS, 1, 0)
    assert time.monotonic() - begun < 2.5
    release.set()
    split.close()


def test_batches_that_wait_for_threads_that_hang_end_with_the_first():
    held, release = Held(), threading.Event()
    held.read = lambda row: (release.wait(60), Held.read(held, row))[1] if row % 2 else Held.read(held, row)
    split = PictureDataset(held, RECIPE, "data", workers=2, timeout_s=0.5)
    stream = BatchStream(split, Order(40, 1, 8, seed=1), [0], Augmentation(is_done=True), seed=1, prefetch=3)
    begun = time.monotonic()
    with pytest.raises(DataError, match=r"data: sample \d+: file \d+: reading and decoding takes longer"):
        stream(1)
    stream.close()
    assert time.monotonic() - begun < 4.0
    release.set()
    split.close()


def test_many_slow_pictures_are_not_one_that_takes_too_long():
    held = Held(8)
    held.read = lambda row: (time.sleep(0.2), Held.read(held, row))[1]
    split = PictureDataset(held, RECIPE, "data", workers=1, timeout_s=0.9)
    assert len(split.take(np.arange(8))[0]) == 8
    split.close()


PROGRAM = """
import hashlib, sys
import numpy as np
sys.path.insert(0, ".")
from tests.data.test_pictures import RECIPE, ROWS, Held
from harness.data.pictures.dataset import PictureDataset
print(hashlib.sha256(PictureDataset(Held(), RECIPE, "data", workers=2).take(ROWS, 2, 9)[0].tobytes()).hexdigest())
"""


def test_the_bytes_do_not_depend_on_what_the_processor_can():
    features = "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL"
    without = {"JSIMD_FORCENONE": "1", "OPENCV_CPU_DISABLE": "SSE4.1,SSE4.2,AVX,AVX2,FP16,AVX512-SKX"}
    found = set()
    for settings in ({}, without, {**without, "NPY_DISABLE_CPU_FEATURES": features}):
        environ = {**os.environ, "PYTHONWARNINGS": "ignore", **settings}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        found.add(done.stdout)
    assert len(found) == 1
