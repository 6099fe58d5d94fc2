"""Contact sheets: pixels as the network gets them, with the normalisation undone, as a picture and a page."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from matplotlib.image import imread

from harness.errors import ConfigError
from harness.report.sheet import Sheet, View, as_pixels, write_sheet

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalised(pixels):
    values = (pixels / 255 - MEAN) / STD
    return values.transpose(2, 0, 1).astype(np.float32)


def random_pixels(seed=0, size=(5, 7, 3)):
    return np.random.default_rng(seed).integers(0, 256, size).astype(np.uint8)


def sheet_of(*values, **more):
    views = [View(one, f"sample {row}", f"label {row}", f"file {row}") for row, one in enumerate(values)]
    return Sheet("run: train", {"seed": "0"}, views, **more)


def test_the_normalisation_is_undone_to_the_bit():
    pictures = [random_pixels(seed) for seed in range(3)]
    found, drawn = as_pixels(sheet_of(*map(normalised, pictures), mean=MEAN, std=STD))
    for one, expected in zip(found, pictures, strict=True):
        np.testing.assert_array_equal(one, expected)
    assert drawn == "float32 (3, 5, 7); 0 is drawn black, and 1 white, after mean and std were undone"


def test_one_channel_is_grey_and_others_stand_side_by_side():
    grey = random_pixels(size=(1, 4, 6))
    (found,), drawn = as_pixels(sheet_of(grey))
    np.testing.assert_array_equal(found, np.repeat(grey[0][:, :, None], 3, axis=2))
    assert drawn == "uint8 (1, 4, 6); 0 is drawn black, and 255 white"
    two = random_pixels(size=(2, 4, 6))
    (found,), _ = as_pixels(sheet_of(two))
    np.testing.assert_array_equal(found[:, :, 0], np.concatenate([two[0], two[1]], axis=1))


def test_values_beyond_are_drawn_from_the_least_to_the_greatest_of_all():
    values = np.array([[[-2.0, 0.0]]], np.float32), np.array([[[2.0, 1.0]]], np.float32)
    (one, other), drawn = as_pixels(sheet_of(*values))
    assert (one[0, :, 0].tolist(), other[0, :, 0].tolist()) == ([0, 128], [255, 191])
    assert drawn == "float32 (1, 1, 2); -2 is drawn black, and 2 white"


@pytest.mark.parametrize("count", [1, 5, 40])
def test_page_and_picture_hold_every_sample(tmp_path, count):
    values = [normalised(random_pixels(seed)) for seed in range(count)]
    write_sheet(sheet_of(*values, mean=MEAN, std=STD), tmp_path / "new" / "a.html")
    page = (tmp_path / "new" / "a.html").read_text()
    inside = [base64.b64decode(found) for found in re.findall(r'src="data:image/png;base64,([^"]+)"', page)]
    assert len(inside) == count
    drawn = (imread(io.BytesIO(inside[-1]))[:, :, :3] * 255).round()
    np.testing.assert_array_equal(drawn, random_pixels(count - 1))
    assert f"<b>label {count - 1}</b>" in page
    assert f'title="file {count - 1}"' in page
    assert "img-src data:" in page
    whole = (imread(tmp_path / "new" / "a.png")[:, :, :3] * 255).round().astype(np.uint8)
    assert whole.shape[1] <= 1600
    first = random_pixels(0).repeat(16, axis=0).repeat(16, axis=1)  # to a side of 112
    np.testing.assert_array_equal(whole[40 : 40 + len(first), 10 : 10 + first.shape[1]], first)


def test_columns_are_as_many_as_are_asked_for(tmp_path):
    values = [normalised(random_pixels(seed)) for seed in range(6)]
    write_sheet(sheet_of(*values, columns=2), tmp_path / "a.html")
    assert "grid-template-columns: repeat(2," in (tmp_path / "a.html").read_text()
    assert imread(tmp_path / "a.png").shape[1] == 10 + 2 * (112 + 10)


def test_large_pictures_are_drawn_smaller(tmp_path):
    write_sheet(sheet_of(random_pixels(size=(3, 300, 700))), tmp_path / "a.html")
    assert imread(tmp_path / "a.png").shape[1] == 10 + (234 + 10)


def test_what_a_label_says_is_text_and_no_markup(tmp_path):
    view = View(random_pixels(size=(1, 4, 4)), "sample <i>", "$x_1$ <b>", '"><script>')
    write_sheet(Sheet("<run>", {"note": "a & b"}, [view]), tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text()
    assert "<script>" not in page
    assert "&lt;run&gt;" in page


def test_a_place_that_cannot_be_written_is_told_of(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"a.html: cannot be written"):
        write_sheet(sheet_of(random_pixels(size=(1, 4, 4))), tmp_path / "file" / "a.html")
