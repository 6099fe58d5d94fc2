"""Weights as files: Gluon's own `.params`, which any MXNet program reads, and the sets of a run."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy.typing as npt

from harness.checkpoint import locate, newest_whole, read_arrays
from harness.errors import CheckpointError
from harness.files import TEMPORARY


def write_params(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays of NumPy or MXNet as a Gluon `.params` file, whole or not at all.

    `net.load_parameters` reads it.

    Raises:
        CheckpointError: if it cannot be written.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{secrets.token_hex(8)}")  # MXNet would follow a planted link
    try:
        mx.nd.save(str(temporary), {name: _of_mxnet(array) for name, array in arrays.items()})
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.rename(path)
    except (OSError, mx.base.MXNetError) as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(
            f"{path}: could not be written ({_last_line(error)}); make room, or choose another"
        ) from None


def read_weights(path: str) -> dict[str, npt.NDArray[Any]]:
    """Weights and running statistics by structural name.

    Args:
        path: a Gluon `.params` file; or a set, a folder of sets or a run's folder, whose newest whole set is read.

    Raises:
        CheckpointError: if nothing can be read there.
    """
    place = Path(path)
    if place.is_dir():
        found = newest_whole(locate(place))
        if found.newest is None:
            reasons = "\n  ".join(reason for _, reason in found.rejected)
            raise CheckpointError(f"{path}: no set there is whole:\n  {reasons}")
        return read_arrays(found.newest)["parameters"]
    if not place.is_file():
        raise CheckpointError(
            f"{path}: there is no such file; give a .params file or a set, such as a run's final.params"
        )
    try:
        loaded = mx.nd.load(path)
    except (mx.base.MXNetError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: no Gluon .params file can be read there ({_last_line(error)})") from None
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path}: holds arrays without names; write it with net.save_parameters")
    return {name: array.asnumpy() for name, array in loaded.items()}


def _of_mxnet(array: Any) -> Any:
    return array if isinstance(array, mx.nd.NDArray) else mx.nd.array(array, dtype=array.dtype)


def _last_line(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).strip().splitlines()[-1]
