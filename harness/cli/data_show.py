"""`data.py show`: what the network of a configuration sees."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

import numpy as np

from harness.config import RunConfig, load_config
from harness.data.arrays import Indices
from harness.errors import ConfigError, DataError
from harness.report.counter import say
from harness.report.sheet import Sheet, write_sheet
from harness.train.shown import Shown

_MOST = 400  # pictures of a sheet
_BY_DEFAULT = 24


def show(options: argparse.Namespace) -> None:
    """Write a sheet of samples, as a picture and a page.

    Raises:
        ConfigError: if there are no such samples, or the sheet cannot be written.
        DataError: if the data cannot be read, or are no pictures.
    """
    config = load_config(options.config, options.set)
    try:
        with Shown(config, options.split, len(os.sched_getaffinity(0))) as shown:
            sheet, name = _sheet(config, shown, options)
    except (ConfigError, DataError) as error:
        error.found_in(config.source)
        raise
    path = options.output / f"{name}.html"
    write_sheet(sheet, path)
    say(f"{sheet.title}: {len(sheet.views)} pictures\nwrote {path} and {path.with_suffix('.png')}")


def _sheet(config: RunConfig, shown: Shown, options: argparse.Namespace) -> tuple[Sheet, str]:
    facts = {"configuration": config.source, "data": shown.source, "seed": str(config.seed)}
    title, columns = f"{config.run_name}: {options.split}", None
    if options.iteration is not None:
        what = f"iteration {options.iteration}"
        views = list(shown.iteration(options.iteration))
    else:
        epochs = options.epoch or [1]
        indices = _indices(shown, options.samples, len(epochs))
        what = f"epoch{'s' * (len(epochs) > 1)} {', '.join(map(str, epochs))}" if options.split == "train" else ""
        columns = len(epochs) if len(epochs) > 1 else None
        views = list(shown.samples(indices, epochs))
        if shown.is_collated:
            facts["note"] = "before data.collate, which makes batches of samples; --iteration shows what it makes"
    if len(views) > _MOST:
        raise ConfigError(f"{len(views)} pictures are too many for a sheet; allowed: {_MOST}")
    mean, std = shown.normalisation
    title = f"{title}, {what}" if what else title
    name = title.replace(": ", "-").replace(", ", "-").replace(" ", "-")
    return Sheet(title, facts, views, columns, mean, std), name


def _indices(shown: Shown, samples: Sequence[int] | None, num_epochs: int) -> Indices:
    count = len(shown)
    if samples is None:
        return np.unique(np.linspace(0, count - 1, max(1, _BY_DEFAULT // num_epochs)).astype(np.int64))
    beyond = [one for one in samples if one >= count]
    if beyond:
        raise ConfigError(f"--samples: there is no sample {beyond[0]}; allowed: 0 to {count - 1}")
    if len(samples) * num_epochs > _MOST:
        raise ConfigError(f"--samples: {len(samples) * num_epochs} pictures are too many for a sheet; allowed: {_MOST}")
    return np.array(samples)
