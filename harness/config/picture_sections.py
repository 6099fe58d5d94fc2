"""The section of a configuration that says where pictures are, and what becomes of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, PlainValidator, WithJsonSchema

from harness.config.values import Count, NotNegative, PathText, either, read_path
from harness.parsing import as_number, is_count

STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True)
_LONGEST_SIDE = 10_000  # pixels of what a network gets


def _read_size(value: object) -> list[int]:
    given = value if isinstance(value, list) else [value, value]
    sides = [one for one in given if isinstance(one, int) and is_count(one) and one <= _LONGEST_SIDE]
    if len(sides) == len(given) == 2:
        return sides
    raise ValueError(f"must be pixels (224), or [height, width], each from 1 to {_LONGEST_SIDE}")


def _read_range(value: object) -> list[float]:
    numbers = [as_number(one) for one in value] if isinstance(value, list) else []
    if len(numbers) == 2 and numbers[0] is not None and numbers[1] is not None and 0 < numbers[0] <= numbers[1]:
        return [numbers[0], numbers[1]]
    raise ValueError("must be [least, greatest], two numbers above 0")


def _read_paths(value: object) -> str | list[str]:
    if isinstance(value, str):
        return read_path(value)
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        return [read_path(one) for one in value]
    raise ValueError("must be a path, or a list of paths")


Sides = Annotated[
    list[int],
    PlainValidator(_read_size),
    either({"type": "integer", "minimum": 1}, {"type": "array", "items": {"type": "integer", "minimum": 1}}),
]
Range = Annotated[
    list[float],
    PlainValidator(_read_range),
    WithJsonSchema({"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}),
]
Paths = Annotated[
    str | list[str],
    PlainValidator(_read_paths),
    either({"type": "string"}, {"type": "array", "items": {"type": "string"}}),
]


class _Section(BaseModel):
    model_config = STRICT


class FilesConfig(_Section):
    """Where the pictures of a split are: RecordIO files, or a folder."""

    rec: Paths | None = None
    """One or several .rec files that im2rec wrote."""
    idx: PathText | None = None
    """The index of the only .rec file; null means the .idx beside each, or none."""
    folder: PathText | None = None
    """A folder with a folder of pictures for each class."""
    lst: PathText | None = None
    """A list that im2rec wrote: keys, labels and paths in `folder`."""


class PicturesConfig(_Section):
    """Pictures in files, for `data.name: records` and `folder`; relative paths are taken from `data.root`."""

    train: FilesConfig
    """The training pictures."""
    validation: FilesConfig | None = None
    """Pictures for model selection."""
    test: FilesConfig | None = None
    """Pictures to report on at the end."""
    num_classes: Count | None = None
    """The number of classes; null counts the names, folders, or the labels of a list or of up to 100,000 records."""
    class_names: PathText | None = None
    """A file with a class in each line, in their order: of `folder` the folders, of which null sorts all."""
    size: Sides = [224, 224]
    """What the network gets: pixels, or [height, width]."""
    resize: Count | None = None
    """The short edge that pictures are resized to before their middle is cut out; null means 8/7 of the size."""
    crop: Literal["random_resized", "random"] = "random_resized"
    """In training: a part of random area and ratio, or, of a picture resized to `resize`, a part of `size`."""
    pad: NotNegative = 0
    """Pixels of zeros to add on every side before a part is cut out, with `crop: random`."""
    area: Range = [0.08, 1.0]
    """The least and the greatest share of the picture, with `crop: random_resized`."""
    ratio: Range = [0.75, 4 / 3]
    """The least and the greatest width by height, with `crop: random_resized`."""
    damaged: Literal["stop", "replace"] = "stop"
    """End the run at a damaged picture, or take the next one of its split, and tell of it (pictures.md)."""
