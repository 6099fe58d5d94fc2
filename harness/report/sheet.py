"""Contact sheets: what a network sees of many samples, as one PNG picture and as a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from harness.errors import ConfigError
from harness.files import replace_file
from harness.folder import seen
from harness.report.pages import render, write_page
from harness.report.plots import as_png

Pixels = npt.NDArray[np.uint8]

_LEAST, _MOST = 112, 256  # pixels of a side in the PNG; smaller pictures are drawn larger, larger ones smaller
_DPI, _FONT = 100, 7.5
_LINE = 13  # pixels
_CHARACTER = 5.6  # pixels wide
_GAP, _TITLE = 10, 40
_WIDTH = 1600  # pixels, at most, if there is no number of columns
_ROUNDING = 1e-3  # by which values may exceed their bounds once the normalisation is undone


class View(NamedTuple):
    """One sample.

    Attributes:
        values: as the network gets them, `(channels, height, width)`, of any type that it gets.
        name: such as `sample 7`.
        label: its label in words.
        source: its file or record; empty for arrays.
    """

    values: npt.NDArray[Any]
    name: str
    label: str
    source: str = ""


@dataclass(frozen=True)
class Sheet:
    """Many samples.

    Attributes:
        title: above them.
        facts: what the page says of them, by name.
        views: from left to right, row by row.
        columns: in a row; `None` for as many as there is room for.
        mean: that was subtracted from each channel.
        std: by which each was then divided.
    """

    title: str
    facts: Mapping[str, str]
    views: Sequence[View]
    columns: int | None = None
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)


def write_sheet(sheet: Sheet, path: Path) -> None:
    """Write a sheet as a PNG picture and as a page.

    Args:
        sheet: the samples.
        path: of the page, ending in `.html`; the picture lies beside it.

    Raises:
        ConfigError: if they cannot be written.
    """
    pixels, drawn = as_pixels(sheet)
    picture = path.with_suffix(".png")
    tiles = [(view, _inline(one), _shown_width(one)) for view, one in zip(sheet.views, pixels, strict=True)]
    write_page(path, render("sheet.html", sheet=sheet, facts={**sheet.facts, "values": drawn}, tiles=tiles))
    try:
        replace_file(picture, _drawn(sheet, pixels))
    except OSError as error:
        raise ConfigError(f"{picture}: cannot be written ({error.strerror}); choose another --output") from None


def as_pixels(sheet: Sheet) -> tuple[list[Pixels], str]:
    """The views as pixels, `(height, width, 3)`, with the normalisation undone; and in words, how they are drawn.

    From 0 to 1, or for integers to 255, is black to white; if values are beyond, from their least to their greatest.
    Of other than one or three channels, each is drawn by itself, from left to right.
    """
    first = sheet.views[0].values
    values = [_denormalised(view.values, sheet.mean, sheet.std) for view in sheet.views]
    least, most = 0.0, 1.0 if first.dtype.kind == "f" else 255.0
    low, high = min(float(one.min()) for one in values), max(float(one.max()) for one in values)
    if low < least - _ROUNDING * most or high > most * (1.0 + _ROUNDING):
        least, most = low, max(high, low + 1e-12)
    drawn = f"{first.dtype} {first.shape}; {least:.4g} is drawn black, and {most:.4g} white"
    if any(sheet.mean) or set(sheet.std) != {1.0}:
        drawn += ", after mean and std were undone"
    levels = [np.clip(np.rint((one - least) * (255.0 / (most - least))), 0, 255).astype(np.uint8) for one in values]
    return [_as_colours(one) for one in levels], drawn


def _denormalised(values: npt.NDArray[Any], mean: Sequence[float], std: Sequence[float]) -> npt.NDArray[np.float64]:
    shift, scale = (np.array(one, np.float64).reshape(-1, 1, 1) for one in (mean, std))
    found: npt.NDArray[np.float64] = values.astype(np.float64) * scale + shift
    return found


def _as_colours(levels: Pixels) -> Pixels:
    if len(levels) == 3:
        return np.ascontiguousarray(levels.transpose(1, 2, 0))
    row = np.concatenate(list(levels), axis=1)
    return np.repeat(row[:, :, None], 3, axis=2)


def _inline(pixels: Pixels) -> str:
    """A picture as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(_png(pixels)).decode()}"


def _png(pixels: Pixels) -> bytes:
    from matplotlib.image import imsave

    content = io.BytesIO()
    imsave(content, pixels, format="png")
    return content.getvalue()


def _shown_width(pixels: Pixels) -> int:
    """In pixels of the page."""
    height, width = pixels.shape[:2]
    return width * -(-_LEAST // max(height, width))


def _fitted(pixels: Pixels) -> Pixels:
    """Each pixel drawn as several, or one of several left, so that a side has about as many as a tile."""
    longest = max(pixels.shape[:2])
    if longest > _MOST:
        step = -(-longest // _MOST)
        return pixels[::step, ::step]
    times = -(-_LEAST // longest)
    return pixels.repeat(times, axis=0).repeat(times, axis=1)


def _drawn(sheet: Sheet, pixels: Sequence[Pixels]) -> bytes:
    """The whole sheet as the bytes of a PNG file."""
    from matplotlib.figure import Figure

    tiles = [_fitted(one) for one in pixels]
    height, width = (max(one.shape[axis] for one in tiles) for axis in (0, 1))
    step_y, step_x = height + 2 * _LINE + _GAP, width + _GAP
    rows = -(-len(tiles) // (sheet.columns or max(1, (_WIDTH - _GAP) // step_x)))
    columns = sheet.columns or -(-len(tiles) // rows)
    canvas = np.full((_TITLE + rows * step_y, _GAP + columns * step_x, 3), 255, np.uint8)
    figure = Figure(figsize=(canvas.shape[1] / _DPI, canvas.shape[0] / _DPI), dpi=_DPI)
    style: dict[str, Any] = {"va": "top", "parse_math": False, "fontsize": _FONT}

    def write(x: int, y: int, text: str, room: int, **more: Any) -> None:
        most = max(2, int(room / _CHARACTER))
        shown = seen(text, 1000)
        shown = shown if len(shown) <= most else f"{shown[: most - 1]}\N{HORIZONTAL ELLIPSIS}"
        figure.text(x / canvas.shape[1], 1 - y / canvas.shape[0], shown, **style, **more)

    write(_GAP, 12, sheet.title, canvas.shape[1] - 2 * _GAP, fontweight="bold")
    for number, (view, tile) in enumerate(zip(sheet.views, tiles, strict=True)):
        row, column = divmod(number, columns)
        top, left = _TITLE + row * step_y, _GAP + column * step_x
        canvas[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
        write(left, top + height + 3, view.label, width, fontweight="bold")
        write(left, top + height + 3 + _LINE, view.name, width, color="#59616b")
    figure.figimage(canvas)
    return as_png(figure)
