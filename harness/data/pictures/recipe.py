"""What becomes of a picture between its file and the network: pure functions of the picture and its random numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.data.pictures.decoding import (
    Box,
    Picture,
    Pixels,
    Size,
    channel_means,
    mirrored,
    resized,
    shrinking_for,
    split,
)
from harness.data.pictures.draws import Draws, cosine_and_sine, log_2, power_of_2

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.float64]
Range = tuple[float, float]

_TRIES = 10  # of a crop
_ERASURES = 6  # tries
# which of a sample's random numbers decides what; a new purpose gets new ones, so that old runs can be resumed
_AREAS, _TOP, _LEFT, _FLIP, _BRIGHTNESS, _CONTRAST, _SATURATION, _HUE, _LIGHTING = 0, 20, 21, 22, 23, 24, 25, 26, 28
_ERASE, _ERASE_TOP, _ERASE_LEFT, _ERASE_AREAS = 46, 47, 48, 49

GREY = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601
# red, green and blue to luminance and two differences of colour, and back (NTSC)
_TO_YIQ = np.array([GREY, (0.596, -0.274, -0.321), (0.211, -0.523, 0.311)])
_FROM_YIQ = np.array([(1.0, 0.956, 0.621), (1.0, -0.272, -0.647), (1.0, -1.107, 1.705)])
# principal components of ImageNet's colours, of 255, each times its deviation: A. Krizhevsky, I. Sutskever, G. Hinton,
# ImageNet Classification with Deep Convolutional Neural Networks, NIPS 2012; the numbers are those of MXNet's examples
_COMPONENTS = np.array([(-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203)]) * np.array(
    [55.46, 4.794, 1.148]
)


@dataclass(frozen=True)
class Colours:
    """Random changes of a picture's colours; 0 leaves them as they are.

    The first three multiply by a number from 1 - x to 1 + x: all values, their distance from the picture's mean grey,
    and their distance from the pixel's own grey. Nothing is cut off in between, so the order of the three does not
    matter, and all five are one matrix and one shift; then values are cut off at 0 and 255.

    Attributes:
        brightness: x.
        contrast: x.
        saturation: x.
        hue: the largest rotation of hue, in half turns, as in Gluon's `RandomHue`.
        lighting: the deviation of AlexNet's noise along the principal components of colours.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    lighting: float = 0.0

    def __bool__(self) -> bool:
        """Whether anything changes."""
        return any((self.brightness, self.contrast, self.saturation, self.hue, self.lighting))

    def matrix_and_shift(self, draws: Draws, mean: Numbers) -> tuple[Numbers, Numbers]:
        """What a pixel is multiplied by, `(3, 3)`, and what is added to it, `(3,)`, in units of 255.

        Args:
            draws: the sample's.
            mean: of each channel, `(3,)`.
        """
        bright, contrast, saturation = (
            draws.uniform(number, 1.0 - most, 1.0 + most) if most else 1.0
            for number, most in (
                (_BRIGHTNESS, self.brightness),
                (_CONTRAST, self.contrast),
                (_SATURATION, self.saturation),
            )
        )
        grey = np.array(GREY)
        matrix = np.eye(3) * saturation + np.tile(grey * (1.0 - saturation), (3, 1))
        if self.hue:
            cosine, sine = cosine_and_sine(draws.uniform(_HUE, -self.hue, self.hue) / 2.0)
            turn = np.array([(1.0, 0.0, 0.0), (0.0, cosine, -sine), (0.0, sine, cosine)])
            matrix = _times(_times(_times(_FROM_YIQ, turn), _TO_YIQ), matrix)
        own = sum(float(one) * part for one, part in zip(mean, GREY, strict=True))
        shift = np.full(3, bright * (1.0 - contrast) * own)
        if self.lighting:
            for number in range(3):
                shift = shift + _COMPONENTS[:, number] * (self.lighting * draws.normal(_LIGHTING + 6 * number))
        return bright * contrast * matrix, shift


def _times(one: Numbers, other: Numbers) -> Numbers:
    """The product of two matrices of 3 x 3, added in this order on every processor, as BLAS does not promise."""
    product: Numbers = one[:, :1] * other[0] + one[:, 1:2] * other[1] + one[:, 2:] * other[2]
    return product


@dataclass(frozen=True)
class Erasing:
    """Random erasing: a rectangle becomes the mean colour (Z. Zhong et al., arXiv 1708.04896).

    Attributes:
        probability: that a picture gets one.
        area: its least and its greatest share of the picture.
        ratio: its least and its greatest width by height.
    """

    probability: float = 0.0
    area: Range = (0.02, 1 / 3)
    ratio: Range = (0.3, 1 / 0.3)

    def box(self, draws: Draws, size: Size) -> Box | None:
        """The rectangle, if there is one."""
        if draws.uniform(_ERASE) >= self.probability:
            return None
        found = _random_shape(draws, size, self.area, self.ratio, _ERASE_AREAS, _ERASURES)
        if found is None:
            return None
        top = draws.below(_ERASE_TOP, size.height - found.height + 1)
        return Box(top, draws.below(_ERASE_LEFT, size.width - found.width + 1), *found)


@dataclass(frozen=True)
class Recipe:
    """How pictures become arrays `(3, height, width)` of float32.

    In training: a part of the picture, resized to `size`, mirrored, coloured, erased. In evaluation: the picture
    resized so that its short edge has `resize` pixels, and its middle. Then normalised.

    Attributes:
        size: height and width of what the network gets.
        resize: the short edge that a picture is resized to before its middle, or with `crop: random` a random part, is
            cut out; in pixels.
        crop: `random_resized`, a part of random area and ratio (C. Szegedy et al., arXiv 1409.4842); or `random`, a
            part of `size`.
        pad: pixels of zeros on every side before a random part is cut out, with `crop: random`.
        area: the least and the greatest share of the picture, with `crop: random_resized`.
        ratio: the least and the greatest width by height of the part.
        flip: mirror half of the pictures left to right.
        colours: random changes of colours.
        erasing: random erasing.
        mean: of each channel, subtracted; 1 is a full pixel.
        std: of each channel, divided by.
    """

    size: Size
    resize: int
    crop: str = "random_resized"
    pad: int = 0
    area: Range = (0.08, 1.0)
    ratio: Range = (3 / 4, 4 / 3)
    flip: bool = False
    colours: Colours = Colours()
    erasing: Erasing = Erasing()
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def train(self, picture: Picture, draws: Draws, out: Floats) -> None:
        """Write what the network sees of a picture in this epoch.

        Args:
            picture: the file.
            draws: the sample's random numbers.
            out: `(3, height, width)`.

        Raises:
            ValueError: if the picture is damaged.
        """
        pixels = self._random_part(picture, draws)
        if self.flip and draws.integer(_FLIP) >> 31:
            pixels = mirrored(pixels)
        if self.colours:
            self._coloured(pixels, draws, out)
        else:
            self._normalised(pixels, out)
        erased = self.erasing.probability and self.erasing.box(draws, self.size)
        if erased:
            out[:, erased.top : erased.top + erased.height, erased.left : erased.left + erased.width] = 0.0

    def evaluate(self, picture: Picture, out: Floats) -> None:
        """Write the middle of a picture, `(3, height, width)`; see `train`."""
        pixels = self._with_short_edge(picture)
        top, left = ((have - want) // 2 for have, want in zip(pixels.shape, self.size, strict=False))
        self._normalised(pixels[top : top + self.size.height, left : left + self.size.width], out)

    def _random_part(self, picture: Picture, draws: Draws) -> Pixels:
        """The pixels of a random part, `(height, width, 3)`."""
        if self.crop == "random_resized":
            box = self.random_box(draws, picture.size)
            shrinking = shrinking_for(box, *self.size)
            pixels = picture.decode(shrinking)
            return resized(_cut(pixels, box, picture.size), *self.size)
        pixels = self._with_short_edge(picture)
        if self.pad:
            pixels = np.pad(pixels, ((self.pad, self.pad), (self.pad, self.pad), (0, 0)))
        top = draws.below(_TOP, pixels.shape[0] - self.size.height + 1)
        left = draws.below(_LEFT, pixels.shape[1] - self.size.width + 1)
        return pixels[top : top + self.size.height, left : left + self.size.width]

    def random_box(self, draws: Draws, size: Size) -> Box:
        """A part of random area and ratio; after ten tries that do not fit, the largest in the middle that does."""
        found = _random_shape(draws, size, self.area, self.ratio, _AREAS, _TRIES)
        if found is None:
            height, width = size
            low, high = self.ratio
            if width < height * low:
                height = max(1, round(width / low))
            elif width > height * high:
                width = max(1, round(height * high))
            return Box((size.height - height) // 2, (size.width - width) // 2, height, width)
        top = draws.below(_TOP, size.height - found.height + 1)
        return Box(top, draws.below(_LEFT, size.width - found.width + 1), *found)

    def _with_short_edge(self, picture: Picture) -> Pixels:
        """All of a picture, its short edge `resize` pixels long, the other rounded down, as MXNet's `resize_short`."""
        height, width = picture.size
        if height <= width:
            want = Size(self.resize, max(self.size.width, self.resize * width // height))
        else:
            want = Size(max(self.size.height, self.resize * height // width), self.resize)
        pixels = picture.decode(shrinking_for(Box(0, 0, height, width), *want))
        return pixels if pixels.shape[:2] == want else resized(pixels, *want)

    def _normalised(self, pixels: Pixels, out: Floats) -> None:
        scale, shift = self._scale_and_shift()
        for plane, one, number in zip(out, split(pixels), range(3), strict=True):
            np.multiply(one, scale[number], out=plane, dtype=np.float32, casting="unsafe")
            plane += shift[number]

    def _scale_and_shift(self) -> tuple[Floats, Floats]:
        """What values of each channel are multiplied by, and what is then added, each rounded once."""
        mean, std = np.array(self.mean), np.array(self.std)
        return (1.0 / (255.0 * std)).astype(np.float32), (-mean / std).astype(np.float32)

    def _coloured(self, pixels: Pixels, draws: Draws, out: Floats) -> None:
        """Colours and normalisation as one matrix; the limits 0 and 255 become those of normalised values."""
        matrix, shift = self.colours.matrix_and_shift(draws, channel_means(pixels))
        mean, std = np.array(self.mean), np.array(self.std)
        scales = 1.0 / (255.0 * std)
        matrix, shift = (matrix * scales[:, None]).astype(np.float32), (shift * scales - mean / std).astype(np.float32)
        low, high = (-mean / std).astype(np.float32), ((1.0 - mean) / std).astype(np.float32)
        red, green, blue = (plane.astype(np.float32) for plane in split(pixels))
        part = np.empty_like(red)
        for plane, (by_red, by_green, by_blue), add, least, most in zip(out, matrix, shift, low, high, strict=True):
            np.multiply(red, by_red, out=plane)
            plane += np.multiply(green, by_green, out=part)
            plane += np.multiply(blue, by_blue, out=part)
            plane += add
            np.maximum(plane, least, out=plane)
            np.minimum(plane, most, out=plane)


def _random_shape(draws: Draws, size: Size, area: Range, ratio: Range, first: int, tries: int) -> Size | None:
    """Height and width of a random part: area uniform, ratio uniform in its logarithm; `None` if no try fits."""
    pixels = size.height * size.width
    low, high = log_2(ratio[0]), log_2(ratio[1])
    for number in range(first, first + 2 * tries, 2):
        share = pixels * draws.uniform(number, *area)
        width_by_height = power_of_2(draws.uniform(number + 1, low, high))
        width = math.floor(math.sqrt(share * width_by_height) + 0.5)
        height = math.floor(math.sqrt(share / width_by_height) + 0.5)
        if 0 < width <= size.width and 0 < height <= size.height:
            return Size(height, width)
    return None


def _cut(pixels: Pixels, box: Box, size: Size) -> Pixels:
    """The part of decoded pixels that a box of the whole picture covers, which they may be a smaller copy of."""
    rows, columns = pixels.shape[:2]
    top, left = box.top * rows // size.height, box.left * columns // size.width
    bottom = -(-(box.top + box.height) * rows // size.height)
    right = -(-(box.left + box.width) * columns // size.width)
    return pixels[top:bottom, left:right]
