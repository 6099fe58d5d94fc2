"""From the configuration of picture files to what reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.config.picture_sections import FilesConfig, PicturesConfig
from harness.config.sections import AugmentConfig, DataConfig
from harness.data.pictures.decoding import Size
from harness.data.pictures.recipe import Colours, Erasing, Recipe
from harness.data.pictures.request import OF_PICTURES, PictureRequest, SplitFiles
from harness.errors import ConfigError

_COLOURS = ("brightness", "contrast", "saturation", "hue", "lighting")
_FOR_PICTURES = (*_COLOURS, "erase")


def picture_request(data: DataConfig, threads: int = 1) -> PictureRequest | None:
    """What reads the pictures that a configuration names; `None` if it names none.

    Args:
        data: the section.
        threads: that decode, where `workers` is `auto`.

    Raises:
        ConfigError: for settings that do not fit each other.
    """
    pictures = data.pictures
    if pictures is None:
        without = [name for name in _FOR_PICTURES if getattr(data.augment, name)]
        if without and data.name not in OF_PICTURES:  # which need pictures, and say so
            raise ConfigError(
                f"data.augment.{without[0]}: has no effect without data.pictures; remove it, or augment in "
                "data.transform"
            )
        return None
    return PictureRequest(
        train=_files(pictures.train),
        validation=None if pictures.validation is None else _files(pictures.validation),
        test=None if pictures.test is None else _files(pictures.test),
        recipe=_recipe(pictures, data.augment),
        num_classes=pictures.num_classes,
        class_names=None if pictures.class_names is None else Path(pictures.class_names).expanduser(),
        workers=threads if data.workers == "auto" else int(data.workers),
        timeout_s=data.timeout_s,
        replace_damaged=pictures.damaged == "replace",
    )


def _files(files: FilesConfig) -> SplitFiles:
    records = [files.rec] if isinstance(files.rec, str) else files.rec or []
    idx, folder, lst = (None if one is None else Path(one) for one in (files.idx, files.folder, files.lst))
    return SplitFiles(tuple(map(Path, records)), idx, folder, lst)


def _recipe(pictures: PicturesConfig, augment: AugmentConfig) -> Recipe:
    size = Size(*pictures.size)
    resize = pictures.resize or round(max(size) * 8 / 7)
    if resize < max(size):
        raise ConfigError(
            f"data.pictures.resize: {resize}, but the network gets {size.height} x {size.width}; give at least "
            f"{max(size)}"
        )
    if augment.pad_crop:
        raise ConfigError("data.augment.pad_crop: is for arrays; for pictures use data.pictures.crop: random, and pad")
    if pictures.area[1] > 1:
        raise ConfigError(f"data.pictures.area: found {pictures.area}; shares of a picture are at most 1")
    if pictures.pad and pictures.crop != "random":
        raise ConfigError("data.pictures.pad: has an effect only with crop: random")
    return Recipe(
        size=size,
        resize=resize,
        crop=pictures.crop,
        pad=pictures.pad,
        area=(pictures.area[0], pictures.area[1]),
        ratio=(pictures.ratio[0], pictures.ratio[1]),
        flip=augment.flip,
        colours=Colours(**{name: getattr(augment, name) for name in _COLOURS}),
        erasing=Erasing(augment.erase),
        mean=_by_channel("mean", augment.mean, 0.0),
        std=_by_channel("std", augment.std, 1.0),
    )


def _by_channel(name: str, values: list[Any] | None, default: float) -> tuple[float, float, float]:
    numbers = [default] if values is None else values
    if len(numbers) not in (1, 3):
        raise ConfigError(f"data.augment.{name}: found {len(numbers)} numbers; give 1, or 3 for red, green and blue")
    red, green, blue = numbers * 3 if len(numbers) == 1 else numbers
    return float(red), float(green), float(blue)
