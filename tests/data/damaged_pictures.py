"""200 damaged picture files, made anew from a seed; and a program that looks at each of them in a process of its own.

`damaged_pictures.py DECODER` prints a line of JSON: for each file what the decoder said, and the memory that it took.
DECODER is `harness`, with 1, 2 and 3 workers; `cv2`; or `mxnet`.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
import struct
import sys
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

SIZE = (64, 88)
FORMATS = ("jpeg", "grey", "progressive", "restarts", "png", "webp", "lossless")


class Damaged(NamedTuple):
    """A file.

    Attributes:
        kind: what was done to it.
        base: the format that it was.
        content: its bytes.
    """

    kind: str
    base: str
    content: bytes


def picture(seed):
    """Pixels with some structure at every scale, `(height, width, 3)`."""
    import cv2

    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    smooth = cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_LINEAR).astype(np.int16)
    return np.clip(smooth + generator.integers(-20, 21, smooth.shape), 0, 255).astype(np.uint8)


def encoded(base, seed=0):
    """A picture that is not damaged."""
    import cv2

    pixels = picture(seed)
    suffix, options = {
        "jpeg": (".jpg", []),
        "grey": (".jpg", []),
        "progressive": (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
        "restarts": (".jpg", [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]),
        "png": (".png", []),
        "webp": (".webp", [cv2.IMWRITE_WEBP_QUALITY, 80]),
        "lossless": (".webp", [cv2.IMWRITE_WEBP_QUALITY, 101]),
    }[base]
    return cv2.imencode(suffix, pixels[:, :, 0] if base == "grey" else pixels, options)[1].tobytes()


def chunk(kind, content):
    """A part of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, colour=2, body=b"\0" * 999):
    """A PNG file that claims a size."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def with_sides(content, height, width):
    """A JPEG file that claims other sides than it has."""
    place = next(one for mark in (b"\xff\xc0", b"\xff\xc2") if (one := content.find(mark)) > 0) + 5
    return content[:place] + struct.pack(">HH", height, width) + content[place + 4 :]


def webp(width, height):
    """A WebP file whose extended header claims a size; its content is another's."""
    sides = b"".join((one - 1).to_bytes(3, "little") for one in (width, height))
    body = b"WEBPVP8X" + struct.pack("<II", 10, 0) + sides + encoded("webp")[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def with_byte(content, place, value):
    return content[:place] + bytes([value]) + content[place + 1 :]


def _headers():
    """Files whose beginning is wrong."""
    whole = {base: encoded(base) for base in FORMATS}
    jpeg, place = whole["jpeg"], whole["jpeg"].find(b"\xff\xc0")
    yield "jpeg", b"\xff" + jpeg[2:]
    yield "jpeg", jpeg[:2] + b"\0" * 18 + jpeg[20:]
    yield "jpeg", with_sides(jpeg, 0, SIZE[1])
    yield "jpeg", with_sides(jpeg, SIZE[0], 0)
    yield "jpeg", with_sides(jpeg, SIZE[0] * 4, SIZE[1])
    yield "jpeg", with_byte(jpeg, place + 9, 7)  # components
    yield "jpeg", with_byte(jpeg, place + 4, 12)  # bits of a value
    yield "jpeg", jpeg[:2] + jpeg[jpeg.find(b"\xff\xda") :]  # no tables
    yield "progressive", with_sides(whole["progressive"], 8, 8)
    yield "png", with_byte(whole["png"], 25, 9)  # colour type, and its checksum
    yield "png", png(*SIZE[::-1], colour=3, body=b"\0" * (SIZE[0] * (SIZE[1] + 1)))  # no palette
    yield "png", with_byte(whole["png"], 0, 0)
    yield "webp", with_byte(whole["webp"], 23, 0)
    yield "webp", whole["webp"][:4] + b"\xff" * 4 + whole["webp"][8:]
    yield "lossless", with_byte(whole["lossless"], 20, 0)


def _other_formats():
    import cv2

    pixels = picture(9)
    yield "gif", b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\1\0\1\0\0\2\2D\1\0;"
    yield "tiff", cv2.imencode(".tiff", pixels)[1].tobytes()
    yield "bmp", cv2.imencode(".bmp", pixels)[1].tobytes()
    yield "ppm", cv2.imencode(".ppm", pixels)[1].tobytes()
    yield "text", b"Sorry, this picture is not available.\n" * 20
    yield "HTML", b"<!DOCTYPE html><html><head><title>404 Not Found</title></head><body></body></html>\n"
    yield "gzip", gzip.compress(encoded("jpeg"), mtime=0)
    yield "SVG", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>'
    yield "zeros", bytes(4000)
    yield "noise", random.Random(5).randbytes(4000)


def _claims():
    """Files that claim more than there is; the first three more than is allowed."""
    yield "jpeg", with_sides(encoded("jpeg"), 60_000, 60_000)
    yield "png", png(60_000, 60_000)
    yield "webp", webp(60_000, 60_000)
    yield "progressive", with_sides(encoded("progressive"), 60_000, 60_000)
    yield "jpeg", with_sides(encoded("jpeg"), 16_000, 16_000)
    yield "png", png(16_000, 16_000)
    yield "webp", webp(16_000, 16_000)


def damaged_pictures(seed=0, count=200):
    """So many files, in an order that no kind prefers."""
    generator = random.Random(seed)
    files = [Damaged("header", *one) for one in _headers()] + [Damaged("claim", *one) for one in _claims()]
    files += [Damaged("format", *one) for one in _other_formats()]
    files += [Damaged("empty", "jpeg", encoded("jpeg")[:length]) for length in (0, 1, 2)]
    for number in range(count - len(files)):
        base, kind = FORMATS[number % len(FORMATS)], ("cut", "zeroed", "flipped")[number // len(FORMATS) % 3]
        content = encoded(base, seed=number)
        size, place = len(content), generator.randrange(30, len(content) - 70)
        if kind == "cut":
            content = content[: [size - 2, size - 1, place, size // 2, size - generator.randrange(3, 60)][number % 5]]
        elif kind == "zeroed":
            content = content[:place] + bytes(64) + content[place + 64 :]
        else:
            content = with_byte(content, place, content[place] ^ 1 << generator.randrange(8))
        files.append(Damaged(kind, base, content))
    generator.shuffle(files)
    return files


class Held:
    """Files in memory, as a source of pictures."""

    def __init__(self, files):
        self.files = files

    def __len__(self):
        return len(self.files)

    def name_of(self, row):
        return f"file {row}"

    def read(self, row):
        return memoryview(self.files[row]), np.full(1, row % 7, np.float32)


def _by_harness(files):
    """What each file gives on 1, 2 and 3 workers, in training and evaluation: a message, or a digest of pixels."""
    from harness.data.pictures.dataset import PictureDataset
    from harness.data.pictures.decoding import Size
    from harness.data.pictures.recipe import Recipe
    from harness.errors import DataError

    said = [[] for _ in files]
    for workers in (1, 2, 3):
        split = PictureDataset(Held(files), Recipe(Size(16, 16), 20), "data", workers=workers)
        for row, found in enumerate(said):
            rows = np.array([row] * 5)  # enough for two workers
            for draws in ((1, 0), ()):
                try:
                    found.append(hashlib.sha256(split.take(rows, *draws)[0].tobytes()).hexdigest())
                except DataError as error:
                    found.append(f"error: {error}")
        split.close()
    return said


def _by_cv2(files):
    import cv2

    said = []
    for content in files:
        try:
            found = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:
            found = None
        said.append(["error" if found is None else "a picture"])
    return said


def _by_mxnet(files):
    import mxnet as mx

    said = []
    for content in files:
        try:
            mx.image.imdecode(content).wait_to_read()
            said.append(["a picture"])
        except (mx.MXNetError, ValueError):
            said.append(["error"])
    return said


def peak_bytes():
    """The most memory that this process has had; `ru_maxrss` would begin with that of the one that started it."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) << 10


def main():
    """Look at all files, and print what was found."""
    files = [one.content for one in damaged_pictures()]
    decode = {"harness": _by_harness, "cv2": _by_cv2, "mxnet": _by_mxnet}[sys.argv[1]]
    decode([encoded(base) for base in FORMATS])  # imports and pools, which are no part of what a file takes
    before = peak_bytes()
    said = decode(files)
    print(json.dumps({"said": said, "peak_bytes": peak_bytes() - before}))


if __name__ == "__main__":
    main()
