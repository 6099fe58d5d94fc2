"""Damage to files: one byte changed, or the structure broken in the ways that files break. Seeded."""

from __future__ import annotations

import gzip
import random

from tests.conftest import THOROUGH

EACH = 100 if THOROUGH else 12


def single_bytes(content: bytes, seed: int, most_of_them_before: int = 128):
    """Copies with one byte changed; every other one in the header."""
    generator = random.Random(seed)
    for number in range(EACH):
        end = min(most_of_them_before, len(content)) if number % 2 else len(content)
        place, bit = generator.randrange(end), generator.randrange(1, 256)
        yield content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]


def structures(content: bytes, seed: int):
    """Copies with something cut off, taken out, put in, repeated, exchanged, filled, or put behind."""
    generator = random.Random(seed)
    for number in range(EACH):
        a, b = sorted(generator.sample(range(len(content) + 1), 2))
        a, b = (a, b) if number % 2 else (a % 130, a % 130 + 1 + b % 16)
        yield [
            content[:a],
            content[a:],
            content[:a] + content[b:],
            content[:a] + generator.randbytes(b - a) + content[a:],
            content[:b] + content[a:],
            content[b:] + content[:b],
            content[:a] + b"\xff" * (b - a) + content[b:],
            content[:a] + b"\0" * (b - a) + content[b:],
            content + generator.randbytes(1 + a % 7),
            b"",
            content + content,
            content[:a] + b"(" * 4000 + content[a:],
        ][number % 12]


def inside_gzip(damaged):
    """The same damage, packed anew: gzip's checksum is right."""
    for content in damaged:
        yield gzip.compress(content, 1)


def npy(text: str | bytes, body: bytes = b"", version: bytes = b"\x01\x00", length: int | None = None) -> bytes:
    """A `.npy` file whose header is what is given."""
    header = text.encode("latin-1") if isinstance(text, str) else text
    size = len(header) if length is None else length
    return b"\x93NUMPY" + version + size.to_bytes(2 if version[0] == 1 else 4, "little") + header + body
