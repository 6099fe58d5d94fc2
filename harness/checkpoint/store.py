"""Checkpoints on disk: arrays as safetensors, everything else as JSON, and checksums of both. Knows no ranks.

A checkpoint is a folder `iteration-000001234` with `params.safetensors`, `optimizer.safetensors`,
`carried.safetensors` where shards carry state, `averages.safetensors` where weights are averaged,
`manifest.json` (format, state, each file's size and sha256) and
`manifest.sha256`. It is written beside its place under a temporary name, each file and the folder are forced to disk,
the folder is renamed, the parent is forced to disk: a checkpoint that has its name is complete, whenever the process
died. Nothing is ever pickled, and nothing pickled is ever read.
`docs/checkpoint-format.md` tells other programs how to read it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file

from harness.checkpoint.manifest import ARRAY_FILES, FORMAT, LARGEST_MANIFEST, OPTIONAL_FILES, read_manifest
from harness.checkpoint.places import checkpoint_path, list_checkpoints
from harness.errors import CheckpointError
from harness.files import TEMPORARY, force_folder, make_folder, must_be_regular, open_regular, replace_file

ASIDE = "aside"
_REPLACED = re.compile(r"\.writing-(iteration-[0-9]{9,})-[0-9]+-replaced")
_LARGEST_HEADER = 32 << 20  # bytes
_MOST_ARRAYS = 100_000
_DTYPES = {
    "<f8": "F64",
    "<i8": "I64",
    "<f4": "F32",
    "<i4": "I32",
    "<f2": "F16",
    "|u1": "U8",
    "|i1": "I8",
    "|b1": "BOOL",
}

Arrays = Mapping[str, npt.NDArray[Any]]


class Found(NamedTuple):
    """What a folder of checkpoints holds.

    Attributes:
        newest: the newest checkpoint that passes verification, or `None`.
        rejected: newer ones that do not, each with the reason.
    """

    newest: Path | None
    rejected: list[tuple[Path, str]]


def write_checkpoint(folder: Path, iteration: int, arrays: Mapping[str, Arrays], manifest: Mapping[str, Any]) -> Path:
    """Write one checkpoint; on any failure nothing of it is left and older ones are untouched.

    Args:
        folder: of the checkpoints; it must exist, so that a folder that was deleted or unmounted is noticed.
        iteration: the last update that the state contains.
        arrays: `parameters` and `slots`, each by structural name, `carried` where shards carry state, and `averages`.
        manifest: anything JSON can hold; `format`, `iteration` and `files` are added.

    Returns:
        The checkpoint's folder. One of the same iteration is replaced.

    Raises:
        CheckpointError: if the disk is full, read-only, or gone; the message has the system's reason.
    """
    target = checkpoint_path(folder, iteration)
    temporary = folder / f"{TEMPORARY}{target.name}-{os.getpid()}"
    replaced = temporary.with_name(f"{temporary.name}-replaced")
    named = False
    try:
        for debris in (temporary, replaced):
            shutil.rmtree(debris, ignore_errors=True)
        temporary.mkdir()
        files = {}
        for kind, name in {**ARRAY_FILES, **OPTIONAL_FILES}.items():
            if kind in ARRAY_FILES or kind in arrays:
                files[name] = _write_file(temporary / name, _safetensors(arrays[kind]))
        content = {"format": FORMAT, "iteration": iteration, **manifest, "files": files}
        text = json.dumps(content, indent=1).encode()
        if len(text) > LARGEST_MANIFEST:
            raise CheckpointError(
                f"{target}: its manifest would have {len(text):,} bytes, and at most {LARGEST_MANIFEST:,} are read; "
                "what is large in it is most likely a list in the configuration (data.params, network.params): put "
                "that into a file"
            )
        described = _write_file(temporary / "manifest.json", [text])
        _write_file(temporary / "manifest.sha256", [f"{described['sha256']}\n".encode()])
        force_folder(temporary)
        if target.exists():
            target.rename(replaced)
        temporary.rename(target)
        named = True
        force_folder(folder)
        shutil.rmtree(replaced, ignore_errors=True)
    except BaseException as error:
        with contextlib.suppress(OSError):
            if named:
                target.rename(temporary)
            if replaced.exists():
                replaced.rename(target)
        shutil.rmtree(temporary, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        raise CheckpointError(
            f"{target}: the checkpoint could not be written ({error.strerror or error}); older ones are untouched. "
            "Free some disk space, or set output to a folder that can be written"
        ) from error
    return target


def remove_debris(folder: Path) -> None:
    """Remove what an interrupted write left behind; a checkpoint that was being replaced gets its name back."""
    for path in folder.glob(f"{TEMPORARY}*"):
        replaced = _REPLACED.fullmatch(path.name)
        is_folder = path.is_dir() and not path.is_symlink()
        if replaced is not None and is_folder and not os.path.lexists(folder / replaced[1]):
            path.rename(folder / replaced[1])
        elif is_folder:
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


def keep_newest(folder: Path, keep: int, protected: Iterable[Path] = ()) -> None:
    """Remove all but the newest `keep` checkpoints and the protected ones; each loses its name before its files go."""
    spared = set(protected)
    for path in list_checkpoints(folder)[:-keep]:
        if path not in spared:
            doomed = path.with_name(f"{TEMPORARY}removed-{path.name}")
            try:
                path.rename(doomed)
            except OSError:
                continue
            shutil.rmtree(doomed, ignore_errors=True)


def set_aside(checkpoints: Iterable[Path]) -> list[Path]:
    """Move checkpoints that no longer belong to their run (damaged, or later than where it resumed) out of the way.

    Returns:
        Where they are now: in `aside/` beside the other checkpoints, numbered where a name is taken.
    """
    moved = []
    for path in checkpoints:
        folder = path.parent / ASIDE
        make_folder(folder)
        names = (path.name if n == 0 else f"{path.name}.{n}" for n in range(1_000_000))
        target = next(folder / name for name in names if not (folder / name).exists())
        moved.append(path.rename(target))
    return moved


def verify(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint that passes verification: every file has its size and sha256.

    Raises:
        CheckpointError: naming the first file that is missing, cut, changed, or of an unknown format.
    """
    manifest = read_manifest(path)
    files = manifest["files"]
    with ThreadPoolExecutor(len(files), thread_name_prefix="verify") as threads:  # hashing leaves the interpreter
        for name, found in zip(files, threads.map(_describe, [path / name for name in files]), strict=True):
            for key in ("bytes", "sha256"):
                if found[key] != files[name].get(key):
                    told = str(files[name].get(key))[:80]
                    raise CheckpointError(f"{path}: {name} has {key} {found[key]}, the manifest says {told}")
    return manifest


def read_arrays(path: Path) -> dict[str, dict[str, npt.NDArray[Any]]]:
    """The arrays of a checkpoint, `parameters` and `slots`, each by structural name; `verify` it first.

    Where shards carry state, `carried` by `shard/name`; where weights are averaged, `averages` by structural name.

    Raises:
        CheckpointError: if a file cannot be read.
    """
    try:
        listed = read_manifest(path)["files"]
        files = {**ARRAY_FILES, **{kind: name for kind, name in OPTIONAL_FILES.items() if name in listed}}
        for name in files.values():
            must_be_regular(path / name)  # the library would wait for the other end of a FIFO
            _refuse_large_header(path / name)
        return {kind: load_file(path / name) for kind, name in files.items()}
    except (OSError, SafetensorError, AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        # NumPy has no bfloat16 or float8, and not more than 32 dimensions
        raise CheckpointError(f"{path}: the arrays cannot be read ({error})") from error


def newest_valid(checkpoints: Iterable[Path]) -> Found:
    """The newest of some checkpoints (oldest first) that passes verification, and why newer ones do not."""
    rejected: list[tuple[Path, str]] = []
    for path in reversed(list(checkpoints)):
        try:
            verify(path)
        except CheckpointError as error:
            rejected.append((path, str(error)))
        else:
            return Found(path, rejected)
    return Found(None, rejected)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a small file completely or not at all."""
    replace_file(path, f"{json.dumps(content, indent=1)}\n", force=True)


def _write_file(path: Path, parts: Iterable[Any]) -> dict[str, Any]:
    """Write and hash at the same time; both leave the interpreter to other threads."""
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as out:
        for part in parts:
            digest.update(part)
            out.write(part)
            size += len(part)
        out.flush()
        os.fsync(out.fileno())
    return {"bytes": size, "sha256": digest.hexdigest()}


def _safetensors(arrays: Arrays) -> Iterable[Any]:
    """The parts of a safetensors file: length of the header, header, arrays, the widest first so that all are aligned.

    The library's own writer would hold the interpreter, and with it the training, until a whole file is on disk.
    """
    ordered = sorted(arrays.items(), key=lambda item: -item[1].dtype.itemsize)
    header, offset = {}, 0
    for name, array in ordered:
        end = offset + array.nbytes
        header[name] = {"dtype": _DTYPES[array.dtype.str], "shape": list(array.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for _, array in ordered:
        yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _refuse_large_header(path: Path) -> None:
    """Refuse a header that would become more objects than any network has arrays.

    Raises:
        ValueError: with what was found; the library checks everything else.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LARGEST_HEADER:
            raise ValueError(f"{path.name} is said to have a header of {length:,} bytes, at most {_LARGEST_HEADER:,}")
        header = file.read(length)
    if header.count(b"{") > _MOST_ARRAYS or header.count(b",") > 8 * _MOST_ARRAYS:
        raise ValueError(f"{path.name} has a header of more than {_MOST_ARRAYS:,} arrays")


def _describe(path: Path) -> dict[str, Any]:
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            return {"bytes": size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    except OSError as error:
        raise CheckpointError(f"{path.parent}: {path.name} cannot be read ({error.strerror})") from None
