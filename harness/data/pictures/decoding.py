"""From the bytes of a JPEG, PNG or WebP file to pixels: with every fault noticed that a decoder can notice.

JPEG goes through libjpeg-turbo (simplejpeg), in strict mode: of files that are cut by two bytes it notices each, while
MXNet's own decoder fills the rest with grey. Other formats, and JPEG files in CMYK, go through OpenCV. Both let go of
Python's lock, so threads decode side by side. Pixels are those of `mx.image.imdecode`, but that pictures are turned as
their EXIF data say, as MXNet's `ImageRecordIter` and OpenCV do.
"""

from __future__ import annotations

import functools
import struct
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from harness.errors import ConfigError
from harness.shipped import install_command

Pixels = npt.NDArray[np.uint8]

MOST_PIXELS = 1 << 28  # of one picture: 268 million, .8 GB
_LONGEST_SIDE = 65_500  # of a JPEG file; libjpeg refuses more
_EXIF = b"Exif\x00\x00"
_ORIENTATION, _SHORT = 0x0112, 3
_MOST_SHRINKING = 8  # what libjpeg can divide both sides by while it decodes


class Size(NamedTuple):
    """Height and width in pixels, as the picture is looked at."""

    height: int
    width: int


class Box(NamedTuple):
    """A part of a picture: its first row and column, its height and its width, in pixels."""

    top: int
    left: int
    height: int
    width: int


class Picture:
    """A picture file, of which the header has been read.

    Attributes:
        size: as it is looked at, that is after it has been turned.

    Args:
        content: the bytes of the file.

    Raises:
        ValueError: if it is no picture, is damaged, or claims more than `MOST_PIXELS`.
        ConfigError: if the packages that decode pictures are not installed.
    """

    def __init__(self, content: bytes | memoryview) -> None:
        """Read the header."""
        self._content = content
        self._decoders = decoders()
        self._turn = 1
        start = bytes(content[:30])
        if start[:2] == b"\xff\xd8":
            height, width = self._begin_jpeg()
        else:
            height, width = _size_by_header(start)
            self._is_jpeg = False
        if height < 1 or width < 1 or height * width > MOST_PIXELS:
            raise ValueError(f"claims {height} x {width} pixels; allowed: 1 to {MOST_PIXELS:,} in all")
        self.size = Size(width, height) if self._turn >= 5 else Size(height, width)

    def _begin_jpeg(self) -> tuple[int, int]:
        try:
            height, width, colours, _ = self._decoders.simplejpeg.decode_jpeg_header(self._content)
        except ValueError as error:
            raise ValueError(f"the header of the JPEG file cannot be read ({error})") from error
        self._is_jpeg = colours not in ("CMYK", "YCCK")
        self._turn = orientation(self._content)
        return int(height), int(width)

    def decode(self, shrinking: int = 1) -> Pixels:
        """All pixels, `(height, width, 3)`, red, green, blue.

        Args:
            shrinking: a power of two up to 8 that a JPEG's sides are divided by, rounded up, while it is decoded; other
                formats are decoded whole, so ask the result for its shape.

        Raises:
            ValueError: if it is damaged.
        """
        if self._is_jpeg:
            size = self.size if self._turn < 5 else Size(self.size.width, self.size.height)
            least = {"min_height": -(-size.height // shrinking), "min_width": -(-size.width // shrinking)}
            pixels = self._decoders.simplejpeg.decode_jpeg(
                self._content, "RGB", strict=True, **(least if shrinking > 1 else {}), min_factor=shrinking
            )
            return np.ascontiguousarray(_TURNS[self._turn](pixels)) if self._turn > 1 else pixels
        cv2 = self._decoders.cv2
        try:
            found = cv2.imdecode(np.frombuffer(self._content, np.uint8), cv2.IMREAD_COLOR_RGB)
        except cv2.error as error:
            raise ValueError(f"cannot be decoded: {error.err}") from error
        if found is None:
            raise ValueError("cannot be decoded: it is damaged, or in a form that OpenCV does not know")
        if found.shape[:2] != self.size:
            raise ValueError(f"its header claims {self.size.height} x {self.size.width} pixels, and it has others")
        whole: Pixels = found
        return whole


def shrinking_for(box: Box, height: int, width: int) -> int:
    """The largest power of two that leaves a part of a picture at least as large as what it is resized to.

    >>> shrinking_for(Box(0, 0, 500, 375), 224, 224), shrinking_for(Box(0, 0, 900, 1000), 224, 224)
    (1, 4)
    """
    shrinking = 1
    while shrinking < _MOST_SHRINKING and box.height >= 2 * shrinking * height and box.width >= 2 * shrinking * width:
        shrinking *= 2
    return shrinking


def resized(pixels: Pixels, height: int, width: int) -> Pixels:
    """Pixels resized bilinearly, to the bit as MXNet's `interp=1` does."""
    cv2 = decoders().cv2
    found: Pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
    return found


def mirrored(pixels: Pixels) -> Pixels:
    """Pixels mirrored left to right; a view that runs backwards would cost OpenCV half a millisecond to split."""
    found: Pixels = decoders().cv2.flip(pixels, 1)
    return found


def split(pixels: Pixels) -> tuple[Pixels, Pixels, Pixels]:
    """The three channels, each `(height, width)`, one after the other in memory."""
    red, green, blue = decoders().cv2.split(pixels)
    return red, green, blue


def channel_means(pixels: Pixels) -> npt.NDArray[np.float64]:
    """The mean of each channel, `(3,)`; sums of whole numbers, so that no order of addition shows."""
    sums = np.array(decoders().cv2.sumElems(pixels)[:3])
    means: npt.NDArray[np.float64] = sums / (pixels.shape[0] * pixels.shape[1])
    return means


def orientation(content: bytes | memoryview) -> int:
    """How a JPEG file's EXIF data say that it is to be turned, 1 to 8; 1, as it is, where they are absent or damaged.

    CIPA DC-008 (EXIF 2.3): tag 0x0112 of the first image file directory.
    """
    place = 2
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker, length = content[place + 1], int.from_bytes(content[place + 2 : place + 4], "big")
        if marker == 0xDA or length < 2:  # the pixels begin
            return 1
        segment = content[place + 4 : place + 2 + length]
        if marker == 0xE1 and bytes(segment[:6]) == _EXIF:
            return _turn_in(bytes(segment[6:]))
        place += 2 + length
    return 1


def _turn_in(held: bytes) -> int:
    try:
        order = {b"II": "<", b"MM": ">"}[held[:2]]
        (first,) = struct.unpack_from(f"{order}I", held, 4)
        (count,) = struct.unpack_from(f"{order}H", held, first)
        for number in range(count):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", held, first + 2 + 12 * number)
            if (tag, kind) == (_ORIENTATION, _SHORT):
                return value if value in _TURNS else 1
    except (KeyError, struct.error):
        pass
    return 1


_TURNS: dict[int, Any] = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels.swapaxes(0, 1)[:, ::-1],
    7: lambda pixels: pixels.swapaxes(0, 1)[::-1, ::-1],
    8: lambda pixels: pixels.swapaxes(0, 1)[::-1],
}


def _size_by_header(start: bytes) -> tuple[int, int]:
    """Height and width of a PNG or WebP file by its first 30 bytes (PNG: ISO 15948; WebP: RFC 9649)."""
    if start[:8] == b"\x89PNG\r\n\x1a\n" and start[12:16] == b"IHDR" and len(start) >= 24:
        width, height = struct.unpack_from(">II", start, 16)
        return height, width
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP" and len(start) == 30:
        if start[12:16] == b"VP8 " and start[23:26] == b"\x9d\x01\x2a":
            width, height = struct.unpack_from("<HH", start, 26)
            return height & 0x3FFF, width & 0x3FFF
        if start[12:16] == b"VP8L" and start[20] == 0x2F:
            (packed,) = struct.unpack_from("<I", start, 21)
            return (packed >> 14 & 0x3FFF) + 1, (packed & 0x3FFF) + 1
        if start[12:16] == b"VP8X":
            return int.from_bytes(start[27:30], "little") + 1, int.from_bytes(start[24:27], "little") + 1
    if not start:
        raise ValueError("is empty")
    raise ValueError(f"is no JPEG, PNG or WebP file; it begins with {start[:8].hex(' ')}")


class Decoders(NamedTuple):
    """The modules that decode."""

    simplejpeg: Any
    cv2: Any


@functools.cache
def decoders() -> Decoders:
    """The modules that decode, imported when a picture is first looked at: OpenCV costs .2 s and 40 MB.

    Raises:
        ConfigError: if they are not installed.
    """
    try:
        import cv2
        import simplejpeg
    except ImportError as error:
        raise ConfigError(
            f"{error.name} is not installed, which decodes pictures; run `{install_command('pictures')}`"
        ) from error
    cv2.setNumThreads(0)  # our own threads take a picture each
    cv2.ipp.setUseIPP(False)  # whose bits depend on the processor
    return Decoders(simplejpeg, cv2)
