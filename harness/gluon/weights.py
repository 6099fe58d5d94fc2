"""Weights as files: Gluon's own `.params`, which any MXNet program reads, and the sets of a run."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import numpy.typing as npt

from harness.checkpoint import locate, newest_valid, read_arrays
from harness.checkpoint.matching import Form, Matched, Target, accept, match, without_kinds
from harness.checkpoint.params import read_params
from harness.errors import CheckpointError, listed
from harness.files import TEMPORARY
from harness.gluon.state import not_finite
from harness.model.parameters import held

_GIVE = "give a .params file, an exported network or a checkpoint, such as a run's final.params"


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
        with suppress(OSError):  # a read-only file system refuses this as well
            temporary.unlink(missing_ok=True)
        raise CheckpointError(
            f"{path}: could not be written ({_last_line(error)}); free some disk space, or choose another file"
        ) from None


def find_weights(path: str) -> Path:
    """The file or checkpoint that a path means.

    Args:
        path: a `.params` file; the `X-symbol.json` of an exported network, or its stem `X`, of which the newest
            `X-NNNN.params` is meant; or a checkpoint, a folder of checkpoints or a run's folder, of which the newest
            valid one is.

    Raises:
        CheckpointError: if there is none.
    """
    place = Path(path)
    try:
        if place.is_dir():
            found = newest_valid(locate(place))
            if found.newest is None:
                raise CheckpointError(
                    f"{path}: contains no valid checkpoint:{listed([reason for _, reason in found.rejected])}"
                )
            return found.newest
        stem = path.removesuffix("-symbol.json")
        if place.is_file() and stem == path:
            return place
        exported = sorted(one for one in Path(stem).parent.iterdir() if _is_exported(one.name, Path(stem).name))
    except (OSError, ValueError) as error:  # a missing folder, or a name that no file system accepts
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path[:200]}: cannot be read ({reason}); {_GIVE}") from None
    if not exported:
        raise CheckpointError(f"{path}: there is no such file; {_GIVE}")
    return exported[-1]


def read_weights(path: str) -> dict[str, npt.NDArray[Any]]:
    """Weights and running statistics by the names that the file has, without the `arg:` and `aux:` of Module.

    Args:
        path: see `find_weights`.

    Raises:
        CheckpointError: if nothing can be read there, or something there is not finite.
    """
    place = find_weights(path)
    if place.is_dir():
        arrays = read_arrays(place)["parameters"]
    else:
        loaded = read_params(place)
        try:
            arrays = {bare: loaded[name] for bare, name in without_kinds(loaded).items()}
        except CheckpointError as error:
            raise CheckpointError(f"{place}: {error}") from None
    damaged = not_finite(arrays)
    if damaged:
        raise CheckpointError(f"{place}: holds numbers that are not finite, in{listed(damaged)}")
    return arrays


def choose_weights(
    path: str, parameters: Mapping[str, Any], ctx: Any, policy: str
) -> tuple[Matched, dict[str, npt.NDArray[Any]]]:
    """What a network takes of a file or checkpoint, by structural name.

    Args:
        path: see `find_weights`.
        parameters: the network's, by structural name.
        ctx: a device where they are.
        policy: see `accept`.

    Raises:
        CheckpointError: if nothing can be read there, or what is there does not fit.
    """
    try:
        found = read_weights(path)
        targets = {name: Target(one.name, _form(held(one, ctx))) for name, one in parameters.items()}
        matched = match(targets, {name: _form(array) for name, array in found.items()})
        accept(matched, policy, path)
    except CheckpointError as error:
        raise CheckpointError(f"init.from: {error}") from None
    return matched, {name: found[theirs] for name, theirs in matched.taken.items()}


def _is_exported(name: str, stem: str) -> bool:
    """Whether a file is one of those that `net.export(stem, epoch)` and `save_checkpoint` write."""
    return re.fullmatch(re.escape(stem) + r"-[0-9]{4,9}\.params", name) is not None


def _form(array: Any) -> Form:
    return str(np.dtype(array.dtype)), tuple(array.shape)


def _of_mxnet(array: Any) -> Any:
    return array if isinstance(array, mx.nd.NDArray) else mx.nd.array(array, dtype=array.dtype)


def _last_line(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).strip().splitlines()[-1]
